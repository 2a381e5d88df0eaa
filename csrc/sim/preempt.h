/* preempt.h: how an urgent request takes the slot of one that is less urgent.
 *
 * It is decided once, in the moment in which the request would begin to wait, and only if nobody
 * comes before it in the queue: who did not ask to preempt is not overtaken by who did.
 */
#ifndef SLEEPLOOP_SIM_PREEMPT_H
#define SLEEPLOOP_SIM_PREEMPT_H

#include "../base/compat.h"
#include "../core/args.h"
#include "../core/interrupt.h"
#include "../core/ready.h"
#include "../core/sequence.h"
#include "../core/state.h"
#include "../core/taskobject.h"
#include "slots.h"

PyDoc_STRVAR(preempted_doc,
"The cause of an Interrupt: a more urgent request has taken the slot that the task had.");

static PyStructSequence_Field preempted_fields[] = {
    {"by", "the Task that has the slot now"},
    {"resource", "the Resource"},
    {"since", "loop time in seconds: since when the interrupted task had it"},
    {"number", "the number of the slot"},
    {NULL, NULL},
};

static PyStructSequence_Desc preempted_desc = {
    .name = "sleeploop.Preempted",
    .doc = preempted_doc,
    .fields = preempted_fields,
    .n_in_sequence = 4,
};

static PyObject *
preempted_new(ModuleState *state, const RequestObject *victim, TaskObject *by)
{
    PyObject *values[] = {
        Py_NewRef(by),
        Py_NewRef(victim->wait.object),
        seconds_object(victim->since),
        PyLong_FromUnsignedLong(victim->slot),
    };
    return struct_sequence_steal(state->PreemptedType, values, 4);
}

/* Nobody misses the slot: who has it has ended, or is of a loop that is gone. */
static inline int
preempt_is_unseen(const RequestObject *victim, const TaskObject *task)
{
    return task_done(victim->user) || victim->user->loop != task->loop;
}

/* No slot is free. 1: the request has the slot of another one, whose task has been interrupted;
 * 0: it has to wait, or look again whether a slot is free; -1 with an exception, and nothing has
 * changed. Beware: may run Python, first where memory is allocated, and in the end, when all is
 * settled, where the other task dies. */
static int
slot_preempt(ResourceObject *resource, RequestObject *request, TaskObject *task)
{
    ModuleState *state = task->loop->state;
    RequestObject *first = queue_first(resource);
    if (first != NULL && request_key(first) <= request_key(request)) {
        return 0;
    }
    TaskObject *owner = task_owner_borrowed(task);
    if (resource->ranks == NULL && ranks_begin(resource) < 0) {
        return -1;
    }
    RequestObject *victim = ranks_find(resource, 0, request->wait.number, owner);
    if (victim == NULL) {
        return 0;  /* a task does not preempt itself */
    }
    TaskObject *user = (TaskObject *)Py_NewRef(victim->user);
    PyObject *exc = NULL;
    int outcome = 1;
    Py_INCREF(victim);
    Py_INCREF(owner);
    if (!preempt_is_unseen(victim, task)) {
        PyObject *cause = preempted_new(state, victim, owner);
        exc = cause != NULL ? interrupt_prepare(user, cause) : NULL;
        outcome = exc != NULL ? 1 : -1;
        Py_XDECREF(cause);
    }
    if (outcome > 0 && (victim->slot == NO_SLOT || victim->user != user
                        || request->fate != REQUEST_OPEN || request->slot != NO_SLOT)) {
        outcome = 0;  /* given back by that Python, or the request was withdrawn */
        if (exc != NULL) {
            interrupt_take_back(user, exc);
        }
    }
    if (outcome > 0) {
        request->user = (TaskObject *)Py_NewRef(owner);
        slot_fill(resource, request_strip(victim, REQUEST_PREEMPTED), request, task->loop);
        if (exc != NULL) {
            interrupt_deliver(user, exc);
        }
        request_dismiss(victim);
    }
    Py_DECREF(owner);
    Py_DECREF(victim);
    Py_DECREF(user);
    return outcome;
}

#endif /* SLEEPLOOP_SIM_PREEMPT_H */
