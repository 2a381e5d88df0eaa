/* group.h: the TaskGroup type. */
#ifndef SLEEPLOOP_SCOPE_GROUP_H
#define SLEEPLOOP_SCOPE_GROUP_H

#include "../base/compat.h"
#include "../core/args.h"
#include "../core/loopobject.h"
#include "../core/ready.h"
#include "../core/scopeobject.h"
#include "../core/scopetree.h"
#include "../core/state.h"
#include "../core/task.h"
#include "../core/taskobject.h"
#include "block.h"
#include "groupexit.h"
#include "groupstart.h"
#include "../wait/finish.h"
#include "../wait/readyawaitable.h"

PyDoc_STRVAR(group_create_task_doc,
"create_task($self, coro, *, name=None, context=None)\n--\n\n"
"Run a coroutine as a task of the group and return the Task.\n"
"\n"
"It can be called by any task of the loop until the block has been left, also while\n"
"the block waits for the others. In a group that is being cancelled, the task is\n"
"cancelled before it starts.\n"
"\n"
"Raises TypeError for what is no coroutine, name or context, and RuntimeError before\n"
"and after the block; the coroutine is the caller's then.\n");

static PyObject *
group_py_create_task(PyObject *op, PyObject *const *args, Py_ssize_t n_args, PyObject *kwnames)
{
    static const char *const names[] = {"coro", "name", "context", NULL};
    ModuleState *state = state_of_type(Py_TYPE(op));
    GroupObject *group = (GroupObject *)op;
    PyObject *given[3], *name, *context;
    if (args_parse("create_task()", names, 1, 1, args, n_args, kwnames, given) < 0
        || check_coroutine(state, "create_task()", given[0]) < 0
        || context_from_object(given[2], &context) < 0) {
        return NULL;
    }
    LoopObject *loop = group_need_open(state, group, "create_task()");
    if (loop == NULL || task_name_from_object(given[1], &name) < 0) {
        return NULL;
    }
    TaskObject *task = loop_spawn(loop, given[0], name, context, group->scope, 0);
    if (task != NULL) {
        group->count++;
    }
    Py_XDECREF(name);
    return (PyObject *)task;
}

static PyObject *
group_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_GET_SIZE(args) > 0 || (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0)) {
        PyErr_SetString(PyExc_TypeError, "TaskGroup() takes no arguments");
        return NULL;
    }
    ScopeObject *scope = scope_new(state_of_type(type));
    GroupObject *group = scope != NULL ? PyObject_GC_New(GroupObject, type) : NULL;
    if (group == NULL) {
        Py_XDECREF(scope);
        return NULL;
    }
    group->scope = scope;
    group->errors = NULL;
    group->leaving = NULL;
    group->count = group->starting = 0;
    group->state = GROUP_NEW;
    group->is_race = group->gives_way = 0;
    scope->group = group;
    PyObject_GC_Track(group);
    return (PyObject *)group;
}

COLD static void
group_take_back(PyObject *op)
{
    scope_take_back((PyObject *)((GroupObject *)op)->scope);
}

static PyObject *
group_py_aenter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    GroupObject *group = (GroupObject *)op;
    ModuleState *state = state_of_type(Py_TYPE(op));
    PyObject *instant = ready_awaitable_new_steal(state, Py_NewRef(op), group_take_back);
    if (instant != NULL && scope_begin(state, group->scope) < 0) {
        Py_CLEAR(instant);
    }
    if (instant != NULL) {
        group->state = GROUP_OPEN;
    }
    return instant;
}

static PyObject *
group_py_aexit(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    PyObject *exc;
    if (exit_args("__aexit__()", args, n_args, &exc) < 0) {
        return NULL;
    }
    return (PyObject *)groupexit_new(state_of_type(Py_TYPE(op)), (GroupObject *)op, exc);
}

static PyObject *
group_get_cancel_scope(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(((GroupObject *)op)->scope);
}

static PyObject *
group_tp_repr(PyObject *op)
{
    GroupObject *group = (GroupObject *)op;
    static const char *const states[] = {"not entered", "open", "finished"};
    size_t n = group->count + group->starting;
    return PyUnicode_FromFormat("<TaskGroup %s, %zu task%s%s>", states[group->state], n,
                                n == 1 ? "" : "s",
                                group->scope->flags & SCOPE_CANCELLED ? ", cancelled" : "");
}

static int
group_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((GroupObject *)op)->scope);
    Py_VISIT(((GroupObject *)op)->errors);
    return 0;
}

/* It may die in the middle of its block, as when its host's coroutine is closed. What has
 * failed is saved here: when the collector clears things, it may have been cleared itself. */
static void
group_tp_finalize(PyObject *op)
{
    GroupObject *group = (GroupObject *)op;
    LoopObject *loop = scope_loop_borrowed(group->scope);
    if (group->errors != NULL && loop != NULL) {
        PyObject *saved = PyErr_GetRaisedException();
        group_hand_errors_on(loop, group);
        PyErr_SetRaisedException(saved);
    }
}

/* Leaves the scope, which its task finds the group by. */
static int
group_tp_clear(PyObject *op)
{
    Py_CLEAR(((GroupObject *)op)->errors);
    return 0;
}

static void
group_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    GroupObject *group = (GroupObject *)op;
    PyObject_GC_UnTrack(op);
    group->scope->group = NULL;
    if (!PyObject_GC_IsFinalized(op)) {
        group_tp_finalize(op);
    }
    (void)group_tp_clear(op);
    Py_DECREF(group->scope);
    type->tp_free(op);
    Py_DECREF(type);
}

PyDoc_STRVAR(group_type_doc,
"TaskGroup()\n--\n\n"
"Tasks that belong to a block: `async with TaskGroup() as group`. The block ends\n"
"when all of them have.\n"
"\n"
"When the block or a task of it fails, the others are cancelled; when all have\n"
"ended, the failures are raised, always in an ExceptionGroup (BaseExceptionGroup if\n"
"one of them is no Exception). KeyboardInterrupt and SystemExit are raised as they\n"
"are. A group is used once.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def child(n):\n"
"...     await sleeploop.sleep(n)\n"
"...     return n * n\n"
">>> async def main():\n"
"...     async with sleeploop.TaskGroup() as group:\n"
"...         tasks = [group.create_task(child(n)) for n in (3, 1, 2)]\n"
"...     return [task.result() for task in tasks], sleeploop.current_loop().time()\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"([9, 1, 4], 3.0)\n");

static PyMethodDef group_methods[] = {
    {"__aenter__", group_py_aenter, METH_NOARGS, NULL},
    {"__aexit__", (PyCFunction)(void (*)(void))group_py_aexit, METH_FASTCALL, NULL},
    {"create_task", (PyCFunction)(void (*)(void))group_py_create_task,
     METH_FASTCALL | METH_KEYWORDS, group_create_task_doc},
    {"start", (PyCFunction)(void (*)(void))group_py_start, METH_FASTCALL, group_start_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef group_getset[] = {
    {"cancel_scope", group_get_cancel_scope, NULL,
     PyDoc_STR("The CancelScope around the block and all tasks of the group."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot group_slots[] = {
    {Py_tp_doc, (void *)group_type_doc},
    {Py_tp_new, group_tp_new},
    {Py_tp_dealloc, group_tp_dealloc},
    {Py_tp_finalize, group_tp_finalize},
    {Py_tp_traverse, group_tp_traverse},
    {Py_tp_clear, group_tp_clear},
    {Py_tp_repr, group_tp_repr},
    {Py_tp_methods, group_methods},
    {Py_tp_getset, group_getset},
    {0, NULL},
};

static PyType_Spec group_spec = {
    .name = "sleeploop.TaskGroup",
    .basicsize = sizeof(GroupObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = group_slots,
};

#endif /* SLEEPLOOP_SCOPE_GROUP_H */
