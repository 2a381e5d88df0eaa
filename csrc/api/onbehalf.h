/* onbehalf.h: waiting at several waitlists at once, for `sleeploop/_first_of.py`.
 *
 * A task waits at one waitlist. So there is another task for each of them, which acts for the one
 * that awaits them all: what it is given is that one's. All of them get in line in one step, so
 * that nobody gets in between.
 */
#ifndef SLEEPLOOP_API_ONBEHALF_H
#define SLEEPLOOP_API_ONBEHALF_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/ring.h"
#include "../core/args.h"
#include "../core/awaitable.h"
#include "../core/cancel.h"
#include "../core/kinds.h"
#include "../core/loopobject.h"
#include "../core/ready.h"
#include "../core/scopeobject.h"
#include "../core/scopetree.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "../core/trace.h"
#include "../scope/group.h"
#include "../wait/waitlist.h"
#include "../wait/waitobject.h"

PyDoc_STRVAR(begins_wait_doc,
"_begins_wait($module, aw, /)\n--\n\n"
"Whether aw is a Wait of ours: None if it is not, True if it has not been awaited, or False.\n");

static PyObject *
module_py_begins_wait(PyObject *module, PyObject *op)
{
    const WaitObject *wait = await_as_wait(awaitable_borrowed(PyModule_GetState(module), op));
    return wait != NULL ? PyBool_FromLong(wait->state == AWAIT_NEW) : Py_NewRef(Py_None);
}

/* What the task waits for is the other one's, or that one's for which the other one acts itself. */
static inline void
task_act_for(TaskObject *task, const TaskObject *other)
{
    task->parent = task_owner_number(other);
    task->flags |= TASK_ACTS;
}

PyDoc_STRVAR(is_cancelled_doc,
"_is_cancelled($module, /)\n--\n\n"
"Whether the next await of the current task raises CancelledError, be it that a deadline has\n"
"passed and the loop has not got to it.\n");

static PyObject *
module_py_is_cancelled(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    ModuleState *state = PyModule_GetState(module);
    TaskObject *me = need_current_task_borrowed(state, "_is_cancelled()");
    return me != NULL ? PyBool_FromLong(loop_looks_cancelled(me->loop, me)) : NULL;
}

PyDoc_STRVAR(act_for_doc,
"_act_for($module, task, /)\n--\n\n"
"Have a task, until it ends, get locks and the like for the current one.\n");

static PyObject *
module_py_act_for(PyObject *module, PyObject *op)
{
    ModuleState *state = PyModule_GetState(module);
    TaskObject *me = need_current_task_borrowed(state, "_act_for()");
    if (me == NULL || need_type("_act_for()", state->TaskType, op) < 0) {
        return NULL;
    }
    task_act_for((TaskObject *)op, me);
    Py_RETURN_NONE;
}

static GroupObject *
need_group_borrowed(PyObject *module, const char *function, PyObject *op)
{
    ModuleState *state = PyModule_GetState(module);
    return need_type(function, state->GroupType, op) == 0 ? (GroupObject *)op : NULL;
}

PyDoc_STRVAR(give_way_doc,
"_give_way($module, group, /)\n--\n\n"
"Say of a TaskGroup that an interrupt of the task that waits at its end cancels its tasks.\n");

static PyObject *
module_py_give_way(PyObject *module, PyObject *op)
{
    GroupObject *group = need_group_borrowed(module, "_give_way()", op);
    if (group == NULL) {
        return NULL;
    }
    group->gives_way = 1;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(race_doc,
"_race($module, group, /)\n--\n\n"
"Say of a TaskGroup that its block ends with the first of its tasks.\n");

static PyObject *
module_py_race(PyObject *module, PyObject *op)
{
    GroupObject *group = need_group_borrowed(module, "_race()", op);
    if (group == NULL) {
        return NULL;
    }
    group->is_race = 1;
    Py_RETURN_NONE;
}

/* The task, which this step has made and which will await the wait first, waits from now on: 1: it
 * has got at once what it waits for, 0: it has not, -1 with an exception. */
static int
take_place(ModuleState *state, TaskObject *task, WaitObject *wait)
{
    LoopObject *loop = task->loop;
    if (sync_enter(state, wait->object, loop, await_kind((Awaitable *)wait)->function) < 0) {
        return -1;
    }
    if (loop_looks_cancelled(loop, task)) {
        return 0;  /* it will never run, and has done nothing */
    }
    wait->task = task;
    wait->since = clock_about_now(&loop->clock);
    wait->loop_number = (uint32_t)loop->number;
    wait->task_number = task->number;
    wait->state = AWAIT_DONE;  /* as in wait_begin() */
    int taken = wait_kind(wait)->take(wait, loop, task);
    if (taken < 0) {
        return -1;
    }
    if (taken == 0 && !task_may_go_on(task)) {  /* by Python code in take() */
        wait->state = AWAIT_NEW;  /* to be awaited in the task's own step, which raises that */
        return 0;
    }
    wait->state = AWAIT_WAITING;
    if (taken > 0) {
        wait->outcome = WAIT_GRANTED;
        task->flags |= TASK_STARTED;  /* it runs now, even if it is cancelled */
        return 1;
    }
    /* Behind all that run in this pass, so it is not missed there. */
    link_remove(&task->link);
    loop->ready_len--;
    task->state = TASK_PARKED;
    task->payload = Py_NewRef(wait);
    if (wait_park(wait, task) < 0) {
        task->payload = NULL;
        wait->state = AWAIT_DONE;
        loop_make_ready(loop, task);
        Py_DECREF(wait);
        return -1;
    }
    task->flags |= TASK_STARTED;
    trace_park(loop, task, 0);
    return 0;
}

PyDoc_STRVAR(take_place_doc,
"_take_place($module, group, coro, wait, /)\n--\n\n"
"Run a coroutine as a task of a group. What it will await first is a Wait, which begins right\n"
"now if it can, and for the current task. Returns the task, and whether that has been granted\n"
"already.\n");

static PyObject *
module_py_take_place(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    ModuleState *state = PyModule_GetState(module);
    TaskObject *me = need_current_task_borrowed(state, "_take_place()");
    if (me == NULL) {
        return NULL;
    }
    WaitObject *wait = n_args == 3 ? await_as_wait(awaitable_borrowed(state, args[2])) : NULL;
    if (wait == NULL || wait->state != AWAIT_NEW || Py_TYPE(args[0]) != state->GroupType) {
        PyErr_SetString(PyExc_TypeError, "_take_place() takes a group, a coroutine and a new Wait");
        return NULL;
    }
    TaskObject *task = (TaskObject *)group_py_create_task(args[0], args + 1, 1, NULL);
    if (task == NULL) {
        return NULL;
    }
    task_act_for(task, me);
    /* A wait that has something to do when it is cancelled, as a Condition's, begins in the task's
     * own first step: what is thrown into a coroutine that has not begun never gets to its await. */
    int is_first = wait->state == AWAIT_NEW && wait_kind(wait)->resume == NULL;
    int taken = is_first ? take_place(state, task, wait) : 0;
    PyObject *pair = taken >= 0 ? Py_BuildValue("(OO)", (PyObject *)task,
                                                taken ? Py_True : Py_False)
                                : NULL;
    Py_DECREF(task);
    return pair;
}

PyDoc_STRVAR(give_back_doc,
"_give_back($module, wait, value, /)\n--\n\n"
"Undo what a Wait that has been awaited came to. Returns whether there was anything to undo.\n");

static PyObject *
module_py_give_back(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    ModuleState *state = PyModule_GetState(module);
    WaitObject *wait = n_args == 2 ? await_as_wait(awaitable_borrowed(state, args[0])) : NULL;
    if (wait == NULL) {
        PyErr_SetString(PyExc_TypeError, "_give_back() takes a Wait and a value");
        return NULL;
    }
    if (wait->state != AWAIT_DONE || wait->outcome != WAIT_GRANTED || !wait->taken
        || wait_kind(wait)->give_back == NULL
        || sync_touch(state, wait->object, await_kind((Awaitable *)wait)->function) < 0) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_False);
    }
    if (wait->value == NULL && args[1] != args[0]) {  /* a Request comes to itself */
        wait->value = Py_NewRef(args[1]);
    }
    wait->taken = 0;
    wait_not_taken(wait);
    Py_RETURN_TRUE;
}

#endif /* SLEEPLOOP_API_ONBEHALF_H */
