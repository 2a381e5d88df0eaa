/* limitertype.h: the CapacityLimiter type: arguments, attributes and docstrings. */
#ifndef SLEEPLOOP_SYNC_LIMITERTYPE_H
#define SLEEPLOOP_SYNC_LIMITERTYPE_H

#include "../base/compat.h"
#include "../core/loopobject.h"
#include "../core/scopetree.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../wait/readyawaitable.h"
#include "../wait/waitable.h"
#include "../wait/waitlist.h"
#include "../wait/waitobject.h"
#include "limiter.h"
#include "roster.h"

PyDoc_STRVAR(limiter_acquire_doc,
"acquire($self, /)\n--\n\n"
"Await it to borrow a token for the task that awaits, behind those who wait for one.\n"
"\n"
"A token that is free is had without switching tasks; a cancellation is raised even then.\n"
"\n"
"Raises RuntimeError if the task has a token or waits for one already, or if tasks of\n"
"another loop do.\n");

static PyObject *
limiter_py_acquire(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return (PyObject *)wait_new(state_of_type(Py_TYPE(op)), &limiter_acquire_kind, op, NULL, NULL);
}

PyDoc_STRVAR(limiter_acquire_on_behalf_of_doc,
"acquire_on_behalf_of($self, borrower, /)\n--\n\n"
"Await it to borrow a token for somebody else.\n"
"\n"
"borrower: anything hashable.\n"
"\n"
"Raises RuntimeError if the borrower has a token or waits for one already, or if tasks\n"
"of another loop do; TypeError if it is not hashable.\n");

static PyObject *
limiter_py_acquire_on_behalf_of(PyObject *op, PyObject *borrower)
{
    ModuleState *state = state_of_type(Py_TYPE(op));
    Py_hash_t hash = PyObject_Hash(borrower);
    TokenObject *token = hash != -1 ? token_new(state, borrower, hash) : NULL;
    if (token == NULL) {
        return NULL;
    }
    return (PyObject *)wait_new(state, &limiter_acquire_for_kind, op, NULL, (PyObject *)token);
}

PyDoc_STRVAR(limiter_acquire_nowait_doc,
"acquire_nowait($self, /)\n--\n\n"
"Borrow a token for the current task at once.\n"
"\n"
"Raises WouldBlock if none is free, RuntimeError if the task has a token or waits for\n"
"one already, or if tasks of another loop do.\n");

static PyObject *
limiter_py_acquire_nowait(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    const char *function = "CapacityLimiter.acquire_nowait()";
    ModuleState *state = state_of_type(Py_TYPE(op));
    TaskObject *task = need_current_task_borrowed(state, function);
    if (task == NULL || sync_enter(state, (SyncObject *)op, task->loop, function) < 0) {
        return NULL;
    }
    return limiter_acquire_nowait((LimiterObject *)op, token_of_task(state, task), function);
}

PyDoc_STRVAR(limiter_acquire_on_behalf_of_nowait_doc,
"acquire_on_behalf_of_nowait($self, borrower, /)\n--\n\n"
"Borrow a token for somebody else at once.\n"
"\n"
"borrower: anything hashable.\n"
"\n"
"Raises WouldBlock if none is free; RuntimeError if the borrower has a token or waits\n"
"for one already, if tasks of another loop do, or if no loop runs; TypeError if the\n"
"borrower is not hashable.\n");

static PyObject *
limiter_py_acquire_on_behalf_of_nowait(PyObject *op, PyObject *borrower)
{
    const char *function = "CapacityLimiter.acquire_on_behalf_of_nowait()";
    ModuleState *state = state_of_type(Py_TYPE(op));
    Py_hash_t hash = PyObject_Hash(borrower);
    LoopObject *loop = hash != -1 ? need_current_loop_borrowed(state, function) : NULL;
    if (loop == NULL || sync_enter(state, (SyncObject *)op, loop, function) < 0) {
        return NULL;
    }
    return limiter_acquire_nowait((LimiterObject *)op, token_new(state, borrower, hash), function);
}

PyDoc_STRVAR(limiter_release_doc,
"release($self, /)\n--\n\n"
"Give the current task's token to the borrower that has waited longest, if there is\n"
"one. It has it from now on.\n"
"\n"
"Raises RuntimeError if the task has none.\n");

static PyObject *
limiter_py_release(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return limiter_release_own((LimiterObject *)op, "CapacityLimiter.release()") == 0
               ? Py_NewRef(Py_None)
               : NULL;
}

PyDoc_STRVAR(limiter_release_on_behalf_of_doc,
"release_on_behalf_of($self, borrower, /)\n--\n\n"
"Give that borrower's token to the one that has waited longest, if there is one. Any\n"
"task may do so, and a callback.\n"
"\n"
"Raises RuntimeError if the borrower has none, or if the tasks that use the limiter run\n"
"in another thread; TypeError if it is not hashable.\n");

static PyObject *
limiter_py_release_on_behalf_of(PyObject *op, PyObject *borrower)
{
    return limiter_release((LimiterObject *)op, borrower,
                           "CapacityLimiter.release_on_behalf_of()") == 0
               ? Py_NewRef(Py_None)
               : NULL;
}

/* As of a Lock: a token that is free is had when the block is entered. */
static PyObject *
limiter_py_aenter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    LimiterObject *limiter = (LimiterObject *)op;
    ModuleState *state = state_of_type(Py_TYPE(op));
    const char *function = limiter_enter_kind.await.function;
    TaskObject *task = need_current_task_borrowed(state, function);
    if (task == NULL || sync_enter(state, (SyncObject *)op, task->loop, function) < 0) {
        return NULL;
    }
    TokenObject *token = NULL;
    if (task_may_go_on(task)) {
        token = token_of_task(state, task);
        if (token == NULL || limiter_check_loose(limiter, token, function) < 0) {
            Py_XDECREF(token);
            return NULL;
        }
        if (limiter->held < limiter->total) {
            limiter_lend(limiter, token);
            Py_DECREF(token);
            return ready_awaitable_done(state);
        }
    }
    return (PyObject *)wait_new(state, &limiter_enter_kind, op, NULL, (PyObject *)token);
}

static PyObject *
limiter_py_aexit(PyObject *op, PyObject *const *args, Py_ssize_t n_args)
{
    PyObject *exc;
    if (exit_args("CapacityLimiter.__aexit__()", args, n_args, &exc) < 0
        || limiter_release_own((LimiterObject *)op, limiter_enter_kind.await.function) < 0) {
        return NULL;
    }
    return ready_awaitable_done(state_of_type(Py_TYPE(op)));
}

static PyObject *
limiter_get_total_tokens(PyObject *op, void *Py_UNUSED(closure))
{
    return count_object((int64_t)((LimiterObject *)op)->total);
}

static int
limiter_set_total_tokens(PyObject *op, PyObject *obj, void *Py_UNUSED(closure))
{
    LimiterObject *limiter = (LimiterObject *)op;
    const char *function = "CapacityLimiter.total_tokens";
    int64_t total;
    if (obj == NULL) {
        PyErr_Format(PyExc_AttributeError, "%s cannot be deleted", function);
        return -1;
    }
    if (limiter_total_from_object(function, obj, &total) < 0
        || sync_touch(state_of_type(Py_TYPE(op)), (SyncObject *)op, function) < 0) {
        return -1;
    }
    limiter->total = (uint64_t)total;
    limiter_serve(limiter);
    return 0;
}

static PyObject *
limiter_get_borrowed_tokens(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(((LimiterObject *)op)->held);
}

static PyObject *
limiter_get_available_tokens(PyObject *op, void *Py_UNUSED(closure))
{
    LimiterObject *limiter = (LimiterObject *)op;
    return (int64_t)limiter->total == COUNT_UNLIMITED
               ? PyFloat_FromDouble(Py_HUGE_VAL)
               : PyLong_FromLongLong((long long)limiter->total - (long long)limiter->held);
}

static PyObject *
limiter_get_borrowers(PyObject *op, void *Py_UNUSED(closure))
{
    LimiterObject *limiter = (LimiterObject *)op;
    for (;;) {
        size_t n = limiter->held, i = 0;
        PyObject *borrowers = PyTuple_New((Py_ssize_t)n);
        if (borrowers == NULL) {
            return NULL;
        }
        if (limiter->held == n) {  /* the collector has not changed it */
            struct link *head = &limiter->roster.holders;
            for (struct link *l = head->next; l != head; l = l->next) {
                PyTuple_SET_ITEM(borrowers, (Py_ssize_t)i++,
                                 Py_NewRef(TOKEN_OF_LINK(l)->borrower));
            }
            assert(i == n);
            return borrowers;
        }
        Py_DECREF(borrowers);
    }
}

PyDoc_STRVAR(limiter_type_doc,
"CapacityLimiter(total_tokens, *, name=None)\n--\n\n"
"So many tokens, of which each borrower has one at most: `async with limiter`.\n"
"\n"
"First come, first served. Unlike a Semaphore it knows who has them: a task, unless\n"
"one is borrowed on somebody else's behalf; and total_tokens can be set at any time.\n"
"\n"
"total_tokens: an int of 0 or more, or math.inf. With 0 everybody waits.\n"
"name: a str, for the repr and for reports.\n"
"\n"
"Raises TypeError or ValueError for another number of tokens.\n"
"\n"
">>> import math, sleeploop\n"
">>> async def query(limiter):\n"
"...     async with limiter:\n"
"...         await sleeploop.sleep(2)\n"
">>> async def main():\n"
"...     limiter = sleeploop.CapacityLimiter(1, name='db')\n"
"...     async with sleeploop.TaskGroup() as group:\n"
"...         for name in 'abc':\n"
"...             group.create_task(query(limiter), name=name)\n"
"...         await sleeploop.sleep(1)\n"
"...         print(limiter)\n"
"...         limiter.total_tokens = 2\n"
"...         print(limiter)\n"
">>> sleeploop.run(main(), speed=math.inf)\n"
"<CapacityLimiter 'db' (1 of 1 tokens borrowed by task 'a'), 2 waiting>\n"
"<CapacityLimiter 'db' (2 of 2 tokens borrowed by task 'a', task 'b'), 1 waiting>\n");

static PyMethodDef limiter_methods[] = {
    {"acquire", limiter_py_acquire, METH_NOARGS, limiter_acquire_doc},
    {"acquire_nowait", limiter_py_acquire_nowait, METH_NOARGS, limiter_acquire_nowait_doc},
    {"acquire_on_behalf_of", limiter_py_acquire_on_behalf_of, METH_O,
     limiter_acquire_on_behalf_of_doc},
    {"acquire_on_behalf_of_nowait", limiter_py_acquire_on_behalf_of_nowait, METH_O,
     limiter_acquire_on_behalf_of_nowait_doc},
    {"release", limiter_py_release, METH_NOARGS, limiter_release_doc},
    {"release_on_behalf_of", limiter_py_release_on_behalf_of, METH_O,
     limiter_release_on_behalf_of_doc},
    {"__aenter__", limiter_py_aenter, METH_NOARGS,
     PyDoc_STR("__aenter__($self, /)\n--\n\nAs acquire().")},
    {"__aexit__", (PyCFunction)(void (*)(void))limiter_py_aexit, METH_FASTCALL,
     PyDoc_STR("As release().")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef limiter_getset[] = {
    SYNC_GETTERS,
    {"total_tokens", limiter_get_total_tokens, limiter_set_total_tokens,
     PyDoc_STR("How many tokens there are; may be set. More go to those who wait at once; with\n"
               "fewer, those who have one too many keep it until they release it."), NULL},
    {"borrowed_tokens", limiter_get_borrowed_tokens, NULL,
     PyDoc_STR("How many tokens are borrowed."), NULL},
    {"available_tokens", limiter_get_available_tokens, NULL,
     PyDoc_STR("How many are left: less than 0 if total_tokens has become less than is borrowed."),
     NULL},
    {"borrowers", limiter_get_borrowers, NULL,
     PyDoc_STR("Who has a token, in the order in which they got it: a tuple."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef limiter_members[] = {
    SYNC_WEAKLIST,
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot limiter_slots[] = {
    {Py_tp_doc, (void *)limiter_type_doc},
    {Py_tp_new, limiter_tp_new},
    {Py_tp_dealloc, limiter_tp_dealloc},
    {Py_tp_traverse, limiter_tp_traverse},
    {Py_tp_clear, limiter_tp_clear},
    {Py_tp_repr, limiter_tp_repr},
    {Py_tp_methods, limiter_methods},
    {Py_tp_getset, limiter_getset},
    {Py_tp_members, limiter_members},
    {0, NULL},
};

static PyType_Spec limiter_spec = {
    .name = "sleeploop.CapacityLimiter",
    .basicsize = sizeof(LimiterObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = limiter_slots,
};

#endif /* SLEEPLOOP_SYNC_LIMITERTYPE_H */
