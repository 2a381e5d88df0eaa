/* _sleeploop: the C half of sleeploop. This file is the module only; its parts are
 * in csrc/, one translation unit in which every symbol is static.
 */
#include "csrc/compat.h"

static struct PyModuleDef sleeploop_module;

#include "csrc/functions.h"
#include "csrc/private.h"

static PyMethodDef module_methods[] = {
    {"run", (PyCFunction)(void (*)(void))module_py_run, METH_FASTCALL | METH_KEYWORDS, run_doc},
    {"create_task", (PyCFunction)(void (*)(void))module_py_create_task,
     METH_FASTCALL | METH_KEYWORDS, create_task_doc},
    {"current_task", module_py_current_task, METH_NOARGS, current_task_doc},
    {"current_loop", module_py_current_loop, METH_NOARGS, current_loop_doc},
    {"sleep", module_py_sleep, METH_O, sleep_doc},
    {"sleep_until", module_py_sleep_until, METH_O, sleep_until_doc},
    {"sleep_forever", module_py_sleep_forever, METH_NOARGS, sleep_forever_doc},
    {"checkpoint", module_py_checkpoint, METH_NOARGS, checkpoint_doc},
    {"every", (PyCFunction)(void (*)(void))module_py_every, METH_FASTCALL | METH_KEYWORDS,
     every_doc},
    {"timeout", (PyCFunction)(void (*)(void))module_py_timeout, METH_FASTCALL | METH_KEYWORDS,
     timeout_doc},
    {"timeout_at", (PyCFunction)(void (*)(void))module_py_timeout_at,
     METH_FASTCALL | METH_KEYWORDS, timeout_at_doc},
    {"move_on_after", (PyCFunction)(void (*)(void))module_py_move_on_after,
     METH_FASTCALL | METH_KEYWORDS, move_on_after_doc},
    {"move_on_at", (PyCFunction)(void (*)(void))module_py_move_on_at,
     METH_FASTCALL | METH_KEYWORDS, move_on_at_doc},
    {"current_effective_deadline", module_py_current_effective_deadline, METH_NOARGS,
     current_effective_deadline_doc},
    {"_park", module_py_park, METH_NOARGS, park_doc},
    {"_park_for_thread", module_py_park_for_thread, METH_NOARGS, park_for_thread_doc},
    {"_wait_done", module_py_wait_done, METH_O, wait_done_doc},
    {"_watch", module_py_watch, METH_O, watch_doc},
    {"_check_awaitable", (PyCFunction)(void (*)(void))module_py_check_awaitable, METH_FASTCALL,
     check_awaitable_doc},
    {"_task_tree", module_py_task_tree, METH_O, task_tree_doc},
    {"_trace_size", module_py_trace_size, METH_O, trace_size_doc},
    {"_trace_rows", module_py_trace_rows, METH_O, trace_rows_doc},
    {"_trace_all", (PyCFunction)(void (*)(void))module_py_trace_all, METH_FASTCALL, trace_all_doc},
    {"_running_task", module_py_running_task, METH_O, running_task_doc},
    {"_executor", (PyCFunction)(void (*)(void))module_py_executor, METH_FASTCALL, executor_doc},
    {"_unseen", module_py_unseen, METH_O, unseen_doc},
    {"_run_main", module_py_run_main, METH_O, run_main_doc},
    {"_drive", (PyCFunction)(void (*)(void))module_py_drive, METH_FASTCALL, drive_doc},
    {"_pause", module_py_pause, METH_O, pause_doc},
    {"_stop", module_py_stop, METH_O, stop_doc},
    {"_in_group", module_py_in_group, METH_O, in_group_doc},
    {"_is_innermost", module_py_is_innermost, METH_O, is_innermost_doc},
    {"_take_errors", module_py_take_errors, METH_O, take_errors_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(deadlock_error_doc,
"Every task waits, and nothing could ever wake one. The message tells who waits for what.\n");
PyDoc_STRVAR(lag_error_doc,
"The loop is further behind its schedule than its `strict` allows.\n");
PyDoc_STRVAR(loop_closed_error_doc, "The loop has run already; a loop runs once.\n");

/* Creates *type from spec and adds it to the module under its own name if `exported`. */
static int
add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type, int exported)
{
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (*type == NULL) {
        return -1;
    }
    return exported ? PyModule_AddType(module, *type) : 0;
}

static int
add_exception(PyObject *module, const char *qualified, const char *doc, PyObject *base,
              PyObject **exception)
{
    *exception = PyErr_NewExceptionWithDoc(qualified, doc, base, NULL);
    if (*exception == NULL) {
        return -1;
    }
    return PyModule_AddType(module, (PyTypeObject *)*exception);
}

static int
module_exec(PyObject *module)
{
    ModuleState *state = PyModule_GetState(module);
    const struct {
        PyObject **at;
        const char *text;
    } strings[] = {
        {&state->str_send, "send"},
        {&state->str_throw, "throw"},
        {&state->str_close, "close"},
        {&state->str_aclose, "aclose"},
    };
    for (size_t i = 0; i < Py_ARRAY_LENGTH(strings); i++) {
        *strings[i].at = PyUnicode_InternFromString(strings[i].text);
        if (*strings[i].at == NULL) {
            return -1;
        }
    }
    if (walltime_init(state) < 0) {
        return -1;
    }
    state->StatsType = PyStructSequence_NewType(&stats_desc);
    if (state->StatsType == NULL || PyModule_AddType(module, state->StatsType) < 0) {
        return -1;
    }
    if (add_type(module, &loop_spec, &state->LoopType, 1) < 0
        || add_type(module, &task_spec, &state->TaskType, 1) < 0
        || add_type(module, &sleep_spec, &state->SleepType, 0) < 0
        || add_type(module, &join_spec, &state->JoinType, 0) < 0
        || add_type(module, &scope_spec, &state->ScopeType, 1) < 0
        || add_type(module, &group_spec, &state->GroupType, 1) < 0
        || add_type(module, &leave_spec, &state->LeaveType, 0) < 0
        || add_type(module, &start_spec, &state->StartType, 0) < 0
        || add_type(module, &instant_spec, &state->InstantType, 0) < 0
        || add_type(module, &every_spec, &state->EveryType, 1) < 0
        || add_type(module, &nexttick_spec, &state->NextTickType, 0) < 0
        || add_type(module, &tick_spec, &state->TickType, 1) < 0) {
        return -1;
    }
    state->CancelledError =
        PyType_FromModuleAndSpec(module, &cancelled_error_spec, PyExc_BaseException);
    if (state->CancelledError == NULL
        || PyModule_AddType(module, (PyTypeObject *)state->CancelledError) < 0
        || add_exception(module, "sleeploop.DeadlockError", deadlock_error_doc,
                         PyExc_RuntimeError, &state->DeadlockError) < 0
        || add_exception(module, "sleeploop.LagError", lag_error_doc, PyExc_RuntimeError,
                         &state->LagError) < 0
        || add_exception(module, "sleeploop.LoopClosedError", loop_closed_error_doc,
                         PyExc_RuntimeError, &state->LoopClosedError) < 0) {
        return -1;
    }
    return 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    ModuleState *state = PyModule_GetState(module);
    Py_VISIT(state->LoopType);
    Py_VISIT(state->TaskType);
    Py_VISIT(state->SleepType);
    Py_VISIT(state->JoinType);
    Py_VISIT(state->ScopeType);
    Py_VISIT(state->GroupType);
    Py_VISIT(state->LeaveType);
    Py_VISIT(state->StartType);
    Py_VISIT(state->InstantType);
    Py_VISIT(state->EveryType);
    Py_VISIT(state->NextTickType);
    Py_VISIT(state->TickType);
    Py_VISIT(state->StatsType);
    Py_VISIT(state->CancelledError);
    Py_VISIT(state->DeadlockError);
    Py_VISIT(state->LagError);
    Py_VISIT(state->LoopClosedError);
    Py_VISIT(state->datetime_type);
    Py_VISIT(state->timedelta_type);
    Py_VISIT(state->utc);
    Py_VISIT(state->epoch);
    Py_VISIT(state->stop_iteration);
    Py_VISIT(state->trace_callback);
    return 0;
}

static int
module_clear(PyObject *module)
{
    ModuleState *state = PyModule_GetState(module);
    Py_CLEAR(state->LoopType);
    Py_CLEAR(state->TaskType);
    Py_CLEAR(state->SleepType);
    Py_CLEAR(state->JoinType);
    Py_CLEAR(state->ScopeType);
    Py_CLEAR(state->GroupType);
    Py_CLEAR(state->LeaveType);
    Py_CLEAR(state->StartType);
    Py_CLEAR(state->InstantType);
    Py_CLEAR(state->EveryType);
    Py_CLEAR(state->NextTickType);
    Py_CLEAR(state->TickType);
    Py_CLEAR(state->StatsType);
    Py_CLEAR(state->CancelledError);
    Py_CLEAR(state->DeadlockError);
    Py_CLEAR(state->LagError);
    Py_CLEAR(state->LoopClosedError);
    Py_CLEAR(state->datetime_type);
    Py_CLEAR(state->timedelta_type);
    Py_CLEAR(state->utc);
    Py_CLEAR(state->epoch);
    Py_CLEAR(state->stop_iteration);
    Py_CLEAR(state->trace_callback);
    Py_CLEAR(state->str_send);
    Py_CLEAR(state->str_throw);
    Py_CLEAR(state->str_close);
    Py_CLEAR(state->str_aclose);
    return 0;
}

static void
module_free(void *module)
{
    (void)module_clear((PyObject *)module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

PyDoc_STRVAR(module_doc, "The C half of sleeploop; import sleeploop instead.");

static struct PyModuleDef sleeploop_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_sleeploop",
    .m_doc = module_doc,
    .m_size = sizeof(ModuleState),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__sleeploop(void)
{
    return PyModuleDef_Init(&sleeploop_module);
}
