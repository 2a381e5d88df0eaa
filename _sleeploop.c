/* _sleeploop: the C half of sleeploop. This file is the module only; its parts are
 * in csrc/, one translation unit in which every symbol is static.
 */
#include "csrc/api/functions.h"
#include "csrc/api/loop.h"
#include "csrc/api/onbehalf.h"
#include "csrc/api/private.h"
#include "csrc/api/stats.h"
#include "csrc/api/tasktype.h"
#include "csrc/api/traceread.h"
#include "csrc/api/waitgraph.h"
#include "csrc/base/compat.h"
#include "csrc/base/ring.h"
#include "csrc/core/cancelled.h"
#include "csrc/core/copies.h"
#include "csrc/core/interrupt.h"
#include "csrc/core/kinds.h"
#include "csrc/core/objects.h"
#include "csrc/core/sequence.h"
#include "csrc/core/walltime.h"
#include "csrc/scope/cancelscope.h"
#include "csrc/scope/group.h"
#include "csrc/scope/groupexit.h"
#include "csrc/scope/groupstart.h"
#include "csrc/scope/timeout.h"
#include "csrc/sim/container.h"
#include "csrc/sim/preempt.h"
#include "csrc/sim/request.h"
#include "csrc/sim/resource.h"
#include "csrc/sim/store.h"
#include "csrc/sync/barrier.h"
#include "csrc/sync/channel.h"
#include "csrc/sync/channelends.h"
#include "csrc/sync/condition.h"
#include "csrc/sync/condwait.h"
#include "csrc/sync/event.h"
#include "csrc/sync/future.h"
#include "csrc/sync/limiter.h"
#include "csrc/sync/limitertype.h"
#include "csrc/sync/lock.h"
#include "csrc/sync/locktype.h"
#include "csrc/sync/queue.h"
#include "csrc/sync/queuetype.h"
#include "csrc/sync/roster.h"
#include "csrc/sync/semaphore.h"
#include "csrc/time/every.h"
#include "csrc/time/moment.h"
#include "csrc/time/sleep.h"
#include "csrc/time/tick.h"
#include "csrc/wait/inlinemethod.h"
#include "csrc/wait/join.h"
#include "csrc/wait/meter.h"
#include "csrc/wait/readyawaitable.h"
#include "csrc/wait/waitobject.h"

/* The table of kinds.h, now that all rows are known. */
static const struct await_kind *const await_kinds[N_AWAIT_KINDS] = {AWAIT_KINDS(ROW_LISTED)};

static PyMethodDef module_methods[] = {
    {"run", (PyCFunction)(void (*)(void))module_py_run, METH_FASTCALL | METH_KEYWORDS, run_doc},
    {"create_task", (PyCFunction)(void (*)(void))module_py_create_task,
     METH_FASTCALL | METH_KEYWORDS, create_task_doc},
    {"current_task", module_py_current_task, METH_NOARGS, current_task_doc},
    {"current_loop", module_py_current_loop, METH_NOARGS, current_loop_doc},
    {"get_running_loop", module_py_get_running_loop, METH_NOARGS, get_running_loop_doc},
    {"current_time", module_py_current_time, METH_NOARGS, current_time_doc},
    {"sleep", (PyCFunction)(void (*)(void))module_py_sleep, METH_FASTCALL | METH_KEYWORDS,
     sleep_doc},
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
    {"open_channel", (PyCFunction)(void (*)(void))module_py_open_channel,
     METH_FASTCALL | METH_KEYWORDS, open_channel_doc},
    {"_park", module_py_park, METH_NOARGS, park_doc},
    {"_park_for_thread", module_py_park_for_thread, METH_NOARGS, park_for_thread_doc},
    {"_has_failed", module_py_has_failed, METH_O, has_failed_doc},
    {"_wait_done", module_py_wait_done, METH_O, wait_done_doc},
    {"_watch", module_py_watch, METH_O, watch_doc},
    {"_unwatch", module_py_unwatch, METH_O, unwatch_doc},
    {"_check_awaitable", (PyCFunction)(void (*)(void))module_py_check_awaitable, METH_FASTCALL,
     check_awaitable_doc},
    {"_excuse", module_py_excuse, METH_O, excuse_doc},
    {"_effective_deadline", module_py_effective_deadline, METH_O, effective_deadline_doc},
    {"_task_tree", module_py_task_tree, METH_O, task_tree_doc},
    {"_trace_size", module_py_trace_size, METH_O, trace_size_doc},
    {"_trace_rows", module_py_trace_rows, METH_O, trace_rows_doc},
    {"_trace_all", (PyCFunction)(void (*)(void))module_py_trace_all, METH_FASTCALL, trace_all_doc},
    {"_running_task", module_py_running_task, METH_O, running_task_doc},
    {"_need_loop", module_py_need_loop, METH_O, need_loop_doc},
    {"_need_task", module_py_need_task, METH_O, need_task_doc},
    {"_is_running", module_py_is_running, METH_NOARGS, is_running_doc},
    {"_closing", module_py_closing, METH_O, closing_doc},
    {"_pool_thread", module_py_pool_thread, METH_O, pool_thread_doc},
    {"_pool_call", module_py_pool_call, METH_O, pool_call_doc},
    {"_call_from_pool", (PyCFunction)(void (*)(void))module_py_call_from_pool, METH_FASTCALL,
     call_from_pool_doc},
    {"_executor", (PyCFunction)(void (*)(void))module_py_executor, METH_FASTCALL, executor_doc},
    {"_unseen", module_py_unseen, METH_O, unseen_doc},
    {"_run_main", module_py_run_main, METH_O, run_main_doc},
    {"_drive", (PyCFunction)(void (*)(void))module_py_drive, METH_FASTCALL, drive_doc},
    {"_pause", module_py_pause, METH_O, pause_doc},
    {"_stop", module_py_stop, METH_O, stop_doc},
    {"_in_group", module_py_in_group, METH_O, in_group_doc},
    {"_suspended_loop", module_py_suspended_loop, METH_NOARGS, suspended_loop_doc},
    {"_share_context", module_py_share_context, METH_O, share_context_doc},
    {"_piece_scope", module_py_piece_scope, METH_O, piece_scope_doc},
    {"_open_blocks", module_py_open_blocks, METH_NOARGS, open_blocks_doc},
    {"_tear_off", module_py_tear_off, METH_O, tear_off_doc},
    {"_begin_piece", module_py_begin_piece, METH_NOARGS, begin_piece_doc},
    {"_was_torn", module_py_was_torn, METH_NOARGS, was_torn_doc},
    {"_take_errors", module_py_take_errors, METH_O, take_errors_doc},
    {"_wait_graph", module_py_wait_graph, METH_O, wait_graph_doc},
    {"_blockers", module_py_blockers, METH_O, blockers_doc},
    {"_describe_wait", module_py_describe_wait, METH_O, describe_wait_doc},
    {"_begins_wait", module_py_begins_wait, METH_O, begins_wait_doc},
    {"_is_cancelled", module_py_is_cancelled, METH_NOARGS, is_cancelled_doc},
    {"_act_for", module_py_act_for, METH_O, act_for_doc},
    {"_give_way", module_py_give_way, METH_O, give_way_doc},
    {"_race", module_py_race, METH_O, race_doc},
    {"_take_place", (PyCFunction)(void (*)(void))module_py_take_place, METH_FASTCALL,
     take_place_doc},
    {"_give_back", (PyCFunction)(void (*)(void))module_py_give_back, METH_FASTCALL, give_back_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(deadlock_error_doc,
"Every task waits, and nothing could ever wake one; or one asks for the Lock that it has. The\n"
"message tells who waits for what.\n"
"\n"
"tasks: a tuple of those that wait for each other in a circle, each for the next and the last\n"
"for the first; empty if it is not about a circle. See find_deadlocks().\n");
PyDoc_STRVAR(lag_error_doc,
"The loop is further behind its schedule than its `strict` allows.\n");
PyDoc_STRVAR(loop_closed_error_doc, "The loop has run already; a loop runs once.\n");

PyDoc_STRVAR(would_block_doc, "What was asked for cannot be had without waiting.\n");
PyDoc_STRVAR(broken_barrier_error_doc,
"Who waits at a Barrier will not be let go: it has been broken, or reset meanwhile.\n");
PyDoc_STRVAR(queue_empty_doc, "get_nowait(): there is no item in the queue.\n");
PyDoc_STRVAR(queue_full_doc, "put_nowait(): there is no room in the queue.\n");
PyDoc_STRVAR(queue_shut_down_doc,
"The queue has been shut down, and takes no more items, or has none any more.\n");
PyDoc_STRVAR(end_of_channel_doc,
"All send ends of the channel are closed, and nothing is left to receive.\n");
PyDoc_STRVAR(closed_resource_error_doc, "What is used has been closed, by its own user.\n");
PyDoc_STRVAR(broken_resource_error_doc,
"What is used has lost its other side: all receive ends of the channel are closed, or the\n"
"task that had the Lock has ended without releasing it.\n");

PyDoc_STRVAR(request_cancelled_doc,
"Raised by the await of a Request that has been withdrawn by its cancel().\n");

/* ---- what the state holds -------------------------------------------------------------------- */

/* A line each: what module_exec() makes, and what is visited and cleared with the module. */

#define AT(field) offsetof(ModuleState, field)

static PyObject **
state_slot(ModuleState *state, size_t at)
{
    return (PyObject **)((char *)state + at);
}

static const struct {
    PyType_Spec *spec;
    size_t at;
    int exported;  /* under its own name */
} module_types[] = {
    {&loop_spec, AT(LoopType), 1},
    {&task_spec, AT(TaskType), 1},
    {&sleep_spec, AT(SleepType), 0},
    {&join_spec, AT(JoinType), 0},
    {&moment_spec, AT(MomentType), 0},
    {&scope_spec, AT(ScopeType), 1},
    {&group_spec, AT(GroupType), 1},
    {&groupexit_spec, AT(GroupExitType), 0},
    {&start_spec, AT(StartType), 0},
    {&ready_awaitable_spec, AT(ReadyAwaitableType), 0},
    {&every_spec, AT(EveryType), 1},
    {&nexttick_spec, AT(NextTickType), 0},
    {&tick_spec, AT(TickType), 1},
    {&wait_spec, AT(WaitType), 0},
    {&inline_method_spec, AT(InlineMethodType), 0},
    {&inline_descr_spec, AT(InlineDescrType), 0},
    {&event_spec, AT(EventType), 1},
    {&future_spec, AT(FutureType), 1},
    {&lock_spec, AT(LockType), 1},
    {&condition_spec, AT(ConditionType), 1},
    {&barrier_spec, AT(BarrierType), 1},
    {&semaphore_spec, AT(SemaphoreType), 1},
    {&bounded_semaphore_spec, AT(BoundedSemaphoreType), 1},
    {&limiter_spec, AT(LimiterType), 1},
    {&token_spec, AT(TokenType), 0},
    {&queue_spec, AT(QueueType), 1},
    {&priority_queue_spec, AT(PriorityQueueType), 1},
    {&lifo_queue_spec, AT(LifoQueueType), 1},
    {&channel_spec, AT(ChannelType), 0},
    {&send_channel_spec, AT(SendChannelType), 1},
    {&receive_channel_spec, AT(ReceiveChannelType), 1},
    {&resource_spec, AT(ResourceType), 1},
    {&request_spec, AT(RequestType), 1},
    {&container_spec, AT(ContainerType), 1},
    {&store_spec, AT(StoreType), 1},
};

static const struct {
    PyStructSequence_Desc *desc;
    size_t at;
} module_sequences[] = {
    {&stats_desc, AT(StatsType)},
    {&level_stats_desc, AT(LevelStatsType)},
    {&wait_stats_desc, AT(WaitStatsType)},
    {&queue_stats_desc, AT(QueueStatsType)},
    {&resource_stats_desc, AT(ResourceStatsType)},
    {&preempted_desc, AT(PreemptedType)},
    {&container_stats_desc, AT(ContainerStatsType)},
    {&store_stats_desc, AT(StoreStatsType)},
};

static const struct {
    size_t type;
    const char *name;
    size_t offset;
} module_inline_methods[] = {
    {AT(LockType), "__aenter__", offsetof(LockObject, enter)},
    {AT(LockType), "__aexit__", offsetof(LockObject, leave)},
    {AT(ConditionType), "__aenter__", offsetof(ConditionObject, enter)},
    {AT(ConditionType), "__aexit__", offsetof(ConditionObject, leave)},
    {AT(SemaphoreType), "__aenter__", offsetof(SemaphoreObject, enter)},
    {AT(SemaphoreType), "__aexit__", offsetof(SemaphoreObject, leave)},
};

static const struct {
    const char *name, *doc;
    PyObject **base;
    size_t at;
} module_exceptions[] = {
    {"sleeploop.DeadlockError", deadlock_error_doc, &PyExc_RuntimeError, AT(DeadlockError)},
    {"sleeploop.LagError", lag_error_doc, &PyExc_RuntimeError, AT(LagError)},
    {"sleeploop.LoopClosedError", loop_closed_error_doc, &PyExc_RuntimeError, AT(LoopClosedError)},
    {"sleeploop.WouldBlock", would_block_doc, &PyExc_Exception, AT(WouldBlock)},
    {"sleeploop.RequestCancelled", request_cancelled_doc, &PyExc_Exception, AT(RequestCancelled)},
    {"sleeploop.Interrupt", interrupt_doc, &PyExc_Exception, AT(Interrupt)},
    {"sleeploop.BrokenBarrierError", broken_barrier_error_doc, &PyExc_RuntimeError,
     AT(BrokenBarrierError)},
    /* These two: see module_own_bases. */
    {"sleeploop.QueueEmpty", queue_empty_doc, &PyExc_Exception, AT(QueueEmpty)},
    {"sleeploop.QueueFull", queue_full_doc, &PyExc_Exception, AT(QueueFull)},
    {"sleeploop.QueueShutDown", queue_shut_down_doc, &PyExc_Exception, AT(QueueShutDown)},
    {"sleeploop.EndOfChannel", end_of_channel_doc, &PyExc_Exception, AT(EndOfChannel)},
    {"sleeploop.ClosedResourceError", closed_resource_error_doc, &PyExc_Exception,
     AT(ClosedResourceError)},
    {"sleeploop.BrokenResourceError", broken_resource_error_doc, &PyExc_Exception,
     AT(BrokenResourceError)},
};

/* What has one of ours as its base, which stands before it. */
static const struct {
    size_t at, base;
} module_own_bases[] = {
    {AT(BoundedSemaphoreType), AT(SemaphoreType)},
    {AT(PriorityQueueType), AT(QueueType)},
    {AT(LifoQueueType), AT(QueueType)},
    {AT(QueueEmpty), AT(WouldBlock)},
    {AT(QueueFull), AT(WouldBlock)},
};

/* Borrowed. */
static PyObject *
own_base(ModuleState *state, size_t at, PyObject *otherwise)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(module_own_bases); i++) {
        if (module_own_bases[i].at == at) {
            return *state_slot(state, module_own_bases[i].base);
        }
    }
    return otherwise;
}

static const struct {
    const char *text;
    size_t at;
} module_strings[] = {
    {"send", AT(str_send)},
    {"throw", AT(str_throw)},
    {"close", AT(str_close)},
    {"aclose", AT(str_aclose)},
};

static const size_t module_others[] = {
    AT(CancelledError),
    AT(datetime_type),
    AT(timedelta_type),
    AT(utc),
    AT(epoch),
    AT(stop_iteration),
    AT(trace_callback),
    AT(done),
    AT(origins),
};

/* The public functions are sleeploop's: errors about their arguments say so. */
static int
name_functions(PyObject *module)
{
    PyObject *name = PyUnicode_InternFromString("sleeploop");
    int rc = name != NULL ? 0 : -1;
    for (const PyMethodDef *method = module_methods; method->ml_name != NULL && rc == 0; method++) {
        PyObject *function = PyObject_GetAttrString(module, method->ml_name);
        rc = function == NULL ? -1
             : method->ml_name[0] != '_' ? PyObject_SetAttrString(function, "__module__", name)
                                         : 0;
        Py_XDECREF(function);
    }
    Py_XDECREF(name);
    return rc;
}

/* What a spec cannot say of a type. Nothing has been made of any yet, and nobody has seen one. */
static int
finish_types(ModuleState *state)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(module_inline_methods); i++) {
        PyObject *type = *state_slot(state, module_inline_methods[i].type);
        if (inline_descr_add(state, (PyTypeObject *)type, module_inline_methods[i].name,
                             module_inline_methods[i].offset) < 0) {
            return -1;
        }
    }
    /* It is a base of one of ours alone, which has been made. Python reads this flag of a base when
     * a class is made, and at no other time. */
    state->SemaphoreType->tp_flags &= ~Py_TPFLAGS_BASETYPE;
    /* Those that have been open so far; each stands behind its base. */
    for (size_t i = 0; i < Py_ARRAY_LENGTH(module_types); i++) {
        if (PyType_Freeze((PyTypeObject *)*state_slot(state, module_types[i].at)) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
module_exec(PyObject *module)
{
    ModuleState *state = PyModule_GetState(module);
    ring_init(&state->begun);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(module_strings); i++) {
        PyObject *text = PyUnicode_InternFromString(module_strings[i].text);
        if (text == NULL) {
            return -1;
        }
        *state_slot(state, module_strings[i].at) = text;
    }
    if (walltime_init(state) < 0 || name_functions(module) < 0) {
        return -1;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(module_sequences); i++) {
        PyTypeObject *type = struct_sequence_type_new(module_sequences[i].desc);
        *state_slot(state, module_sequences[i].at) = (PyObject *)type;
        if (type == NULL || PyModule_AddType(module, type) < 0) {
            return -1;
        }
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(module_types); i++) {
        PyObject *type = PyType_FromModuleAndSpec(module, module_types[i].spec,
                                                  own_base(state, module_types[i].at, NULL));
        *state_slot(state, module_types[i].at) = type;
        if (type == NULL
            || (module_types[i].exported && PyModule_AddType(module, (PyTypeObject *)type) < 0)) {
            return -1;
        }
    }
    if (finish_types(state) < 0) {
        return -1;
    }
    state->done = ready_awaitable_done_new(state);
    if (state->done == NULL) {
        return -1;
    }
    state->CancelledError =
        PyType_FromModuleAndSpec(module, &cancelled_error_spec, PyExc_BaseException);
    if (state->CancelledError == NULL
        || PyModule_AddType(module, (PyTypeObject *)state->CancelledError) < 0) {
        return -1;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(module_exceptions); i++) {
        PyObject *base = own_base(state, module_exceptions[i].at, *module_exceptions[i].base);
        PyObject *type = PyErr_NewExceptionWithDoc(module_exceptions[i].name,
                                                   module_exceptions[i].doc, base, NULL);
        *state_slot(state, module_exceptions[i].at) = type;
        if (type == NULL || PyModule_AddType(module, (PyTypeObject *)type) < 0
            || error_add_methods((PyTypeObject *)type) < 0) {
            return -1;
        }
    }
    PyObject *cause = PyDescr_NewGetSet((PyTypeObject *)state->Interrupt, &interrupt_cause_def);
    int rc = cause != NULL ? PyObject_SetAttrString(state->Interrupt, "cause", cause) : -1;
    Py_XDECREF(cause);
    PyObject *none = rc == 0 ? PyTuple_New(0) : NULL;
    rc = none != NULL ? PyObject_SetAttrString(state->DeadlockError, "tasks", none) : -1;
    Py_XDECREF(none);
    return rc;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    ModuleState *state = PyModule_GetState(module);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(module_types); i++) {
        Py_VISIT(*state_slot(state, module_types[i].at));
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(module_sequences); i++) {
        Py_VISIT(*state_slot(state, module_sequences[i].at));
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(module_exceptions); i++) {
        Py_VISIT(*state_slot(state, module_exceptions[i].at));
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(module_others); i++) {
        Py_VISIT(*state_slot(state, module_others[i]));
    }
    return 0;
}

static int
module_clear(PyObject *module)
{
    ModuleState *state = PyModule_GetState(module);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(module_types); i++) {
        Py_CLEAR(*state_slot(state, module_types[i].at));
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(module_sequences); i++) {
        Py_CLEAR(*state_slot(state, module_sequences[i].at));
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(module_exceptions); i++) {
        Py_CLEAR(*state_slot(state, module_exceptions[i].at));
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(module_others); i++) {
        Py_CLEAR(*state_slot(state, module_others[i]));
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(module_strings); i++) {
        Py_CLEAR(*state_slot(state, module_strings[i].at));
    }
    return 0;
}

static void
module_free(void *module)
{
    ModuleState *state = PyModule_GetState(module);
    (void)module_clear((PyObject *)module);
    PyObject_Free(state->spare_sleep);
    while (state->begun.next != NULL && ring_pop(&state->begun) != NULL) {
        /* the loops that have begun outlive it */
    }
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
