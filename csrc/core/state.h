/* state.h: the module's state, one for each interpreter. */
#ifndef SLEEPLOOP_CORE_STATE_H
#define SLEEPLOOP_CORE_STATE_H

#include "../base/compat.h"
#include "../base/ring.h"
#include "loopobject.h"
#include "objects.h"

#include <datetime.h>

/* In _sleeploop.c. */
static struct PyModuleDef sleeploop_module;

struct ModuleState {
    PyTypeObject *LoopType, *TaskType, *SleepType, *JoinType, *StatsType;
    PyTypeObject *ScopeType, *GroupType, *GroupExitType, *StartType, *ReadyAwaitableType;
    PyTypeObject *MomentType, *FutureType;
    PyTypeObject *EveryType, *NextTickType, *TickType;
    PyTypeObject *WaitType, *InlineMethodType, *InlineDescrType, *EventType, *LockType;
    PyTypeObject *ConditionType, *BarrierType;
    PyTypeObject *SemaphoreType, *BoundedSemaphoreType, *LimiterType, *TokenType;
    PyTypeObject *QueueType, *PriorityQueueType, *LifoQueueType;
    PyTypeObject *ChannelType, *SendChannelType, *ReceiveChannelType;
    PyTypeObject *ResourceType, *RequestType, *PreemptedType, *ResourceStatsType;
    PyTypeObject *ContainerType, *StoreType, *ContainerStatsType, *StoreStatsType;
    PyTypeObject *LevelStatsType, *WaitStatsType, *QueueStatsType;
    PyObject *CancelledError, *DeadlockError, *LagError, *LoopClosedError;
    PyObject *WouldBlock, *Interrupt, *BrokenBarrierError, *QueueEmpty, *QueueFull, *QueueShutDown;
    PyObject *EndOfChannel, *ClosedResourceError, *BrokenResourceError;
    PyObject *RequestCancelled;
    PyObject *str_send, *str_throw, *str_close, *str_aclose;
    /* datetime: its C API where there is one. Before 3.13 a subinterpreter with a
     * GIL of its own gets datetime in pure Python, and then this is NULL. */
    PyDateTime_CAPI *datetime_api;
    PyObject *datetime_type, *timedelta_type;
    PyObject *utc, *epoch;     /* timezone.utc; 1970-01-01 in it */
    PyObject *stop_iteration;  /* see stop_iteration_reused_steal() */
    PyObject *done;            /* see ready_awaitable_done() */
    PyObject *origins;         /* dict: address -> where that awaitable was made; NULL unless a
                                  debug run is under way; see forgotten.h */
    SleepObject *spare_sleep;  /* owned: memory for the next one, no object now; or NULL */
    uint64_t loops_made;
    size_t trace_capacity;     /* of the loops that do not say; see traceread.h */
    PyObject *trace_callback;  /* owned, or NULL */
    TaskObject *closing;       /* borrowed: whose coroutine loop_abandon() is closing, or NULL */
    struct link begun;         /* borrowed: the loops that run, in whichever thread, and behind
                                  them those that are suspended; last comes the one that was
                                  driven last */
    uint8_t driven;            /* somebody has called set_wakeup() of a loop */
    LoopObject *found;         /* borrowed: the one that begun_loop_borrowed() found last, or NULL */
};

/* For the module's own types, but not their subclasses. */
static inline ModuleState *
state_of_type(PyTypeObject *type)
{
    return (ModuleState *)PyType_GetModuleState(type);
}

/* Likewise where the type may have been cleared already, by the collector: NULL, and no exception. */
static inline ModuleState *
state_if_there(PyTypeObject *type)
{
    PyObject *module = ((PyHeapTypeObject *)type)->ht_module;
    return module != NULL ? (ModuleState *)PyModule_GetState(module) : NULL;
}

/* For those as well: in the line of the types by whose structs an object is laid out, which no
 * Python code can change, the one above `object` is ours. */
static inline ModuleState *
state_of_base(PyTypeObject *type)
{
    while (type->tp_base->tp_flags & Py_TPFLAGS_HEAPTYPE) {
        type = type->tp_base;
    }
    return state_of_type(type);
}

static inline int
loop_is_of_thread(const LoopObject *loop, PyThreadState *tstate)
{
    return loop->tstate == tstate && loop->tstate_id == compat_tstate_id(tstate);
}

/* The loop whose step or callback this thread is in, borrowed; NULL without an
 * exception set if there is none. */
static inline LoopObject *
current_loop_borrowed(ModuleState *state)
{
    PyThreadState *tstate = PyThreadState_Get();
    for (struct link *l = state->begun.next; l != &state->begun; l = l->next) {
        LoopObject *loop = LOOP_OF_BEGUN(l);
        if (loop->tstate == tstate && loop->tstate_id == compat_tstate_id(tstate)) {
            return loop;
        }
        if (loop->tstate == NULL) {
            break;  /* from here on none runs */
        }
    }
    return NULL;
}

/* Likewise, with a RuntimeError that names the caller. */
static LoopObject *
need_current_loop_borrowed(ModuleState *state, const char *caller)
{
    LoopObject *loop = current_loop_borrowed(state);
    if (loop == NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s needs a running loop: call it from a coroutine that sleeploop.run() or "
                     "SleepingLoop.run_until_complete() is running in this thread",
                     caller);
    }
    return loop;
}

COLD static TaskObject *
raise_no_current_task(ModuleState *state, const char *caller)
{
    if (need_current_loop_borrowed(state, caller) != NULL) {
        PyErr_Format(PyExc_RuntimeError, "%s: the loop is running, but no task is right now",
                     caller);
    }
    return NULL;
}

/* Likewise the task whose step it is in. */
static inline TaskObject *
need_current_task_borrowed(ModuleState *state, const char *caller)
{
    LoopObject *loop = current_loop_borrowed(state);
    return loop != NULL && loop->current != NULL ? loop->current
                                                 : raise_no_current_task(state, caller);
}

/* The loop that keeps another one from being run in this thread, borrowed, or NULL. In the child of
 * a fork its parent's loop does not: that one goes on when control is given back to it, as the
 * forking task waits, and until then others can run. */
static LoopObject *
running_loop_here_borrowed(ModuleState *state)
{
    LoopObject *loop = current_loop_borrowed(state);
    return loop != NULL && loop->process == getpid() ? loop : NULL;
}

/* Whether the thread that runs the loop was left behind by a fork: here nobody ever will. */
COLD static int
loop_is_left_behind(const LoopObject *loop)
{
    if (loop->tstate == NULL || loop->process == getpid()) {
        return 0;
    }
    PyThreadState *tstate = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    while (tstate != NULL && !loop_is_of_thread(loop, tstate)) {
        tstate = PyThreadState_Next(tstate);
    }
    return tstate == NULL;
}

/* It runs in another thread, and what was asked for can be done in that one only. */
COLD static void
raise_runs_elsewhere(LoopObject *loop, const char *function, const char *hint)
{
    if (loop_is_left_behind(loop)) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s: this loop runs in the process that this one was forked from; make a new "
                     "SleepingLoop here",
                     function);
        return;
    }
    PyErr_Format(PyExc_RuntimeError, "%s: this loop is running in another thread%s", function, hint);
}

/* 0 if the loop does not run, or runs in this thread; else -1 with a RuntimeError. */
static int
loop_need_thread(LoopObject *loop, const char *function)
{
    if (loop->tstate != NULL && !loop_is_of_thread(loop, PyThreadState_Get())) {
        raise_runs_elsewhere(loop, function,
                             "; have it called there, by loop.call_soon_threadsafe()");
        return -1;
    }
    return 0;
}

/* 0 if the loop has not come to its end. */
static int
loop_check_usable(LoopObject *loop, const char *function)
{
    if (loop->initialised != LOOP_MADE) {
        PyErr_SetString(PyExc_RuntimeError, "SleepingLoop.__init__() was not called");
        return -1;
    }
    if (loop->phase == LOOP_CLOSED) {
        PyErr_Format(loop->state->LoopClosedError,
                     "%s: this loop has run already; make a new SleepingLoop", function);
        return -1;
    }
    return 0;
}

#endif /* SLEEPLOOP_CORE_STATE_H */
