/* run.h: a run, from the first task's start to the last one's end, in one call or in several.
 *
 * A call enters (the thread gets the loop's signal handler and hooks), makes passes until
 * its goal is reached, and leaves. If the run is to end, it ends in that same call.
 */
#ifndef SLEEPLOOP_RUN_RUN_H
#define SLEEPLOOP_RUN_RUN_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/ring.h"
#include "../base/timerheap.h"
#include "../core/cancel.h"
#include "../core/cancelled.h"
#include "../core/driver.h"
#include "../core/forgotten.h"
#include "../core/loopobject.h"
#include "../core/pool.h"
#include "../core/report.h"
#include "../core/state.h"
#include "../core/task.h"
#include "../core/taskobject.h"
#include "../core/walltime.h"
#include "../poll/idle.h"
#include "abandon.h"
#include "asyncgen.h"
#include "pass.h"
#include "result.h"
#include "sigint.h"
#include "watchdog.h"
#include "../wait/calls.h"
#include "../wait/finish.h"

/* ---- the end of a run ------------------------------------------------------------------------ */

/* Passes until no task is left. */
static void
loop_drive(LoopObject *loop)
{
    while (!ring_empty(&loop->live) && !loop->abandoned) {
        loop_pass(loop);
    }
}

/* All the passes that are left, and the cleanup of what has no task. Errors are in
 * loop->errors; none is set. */
static void
loop_run_to_the_end(LoopObject *loop)
{
    loop->goal = GOAL_END;
    loop->clock.limit = TIME_END;
    do {
        loop_drive(loop);
        while (!loop->abandoned) {
            loop_begin_cancel(loop, NULL);  /* what is made from now on never starts */
            loop->phase = LOOP_FINALIZING;
            if (asyncgen_close_all(loop) < 0) {
                loop_take_error(loop);
            }
            if (ring_empty(&loop->live)) {
                break;
            }
            loop_drive(loop);
        }
        if (loop->abandoned) {
            loop_abandon(loop);
        }
        while (!ring_empty(&loop->unseen)) {
            TaskObject *task = TASK_OF_REGISTERED(loop->unseen.next);
            Py_INCREF(task);
            task_report_unseen(task);
            Py_DECREF(task);
        }
        while (!ring_empty(&loop->unseen_others)) {
            struct unseen *unseen = UNSEEN_OF_LINK(loop->unseen_others.next);
            unseen->report(loop, unseen->owner);
        }
        /* Once, or a call that hands over the next one would never let the run end. */
        if (ring_empty(&loop->live)) {
            loop->refuses = 1;
        }
        if (loop->calls != NULL) {
            loop_run_calls(loop);
        }
        /* A log handler may have made a task, or dropped a generator. */
    } while (!ring_empty(&loop->live) || loop->calls != NULL);
}

/* ---- entering and leaving -------------------------------------------------------------------- */

/* 0 if this loop can be driven here and now. */
static int
loop_check_runnable(LoopObject *loop, const char *function)
{
    if (loop->initialised != LOOP_MADE) {
        PyErr_SetString(PyExc_RuntimeError, "SleepingLoop.__init__() was not called");
        return -1;
    }
    if (loop->phase == LOOP_CLOSED) {
        PyErr_Format(loop->state->LoopClosedError,
                     "%s: this loop has run already; make a new SleepingLoop for another run",
                     function);
        return -1;
    }
    if (running_loop_here_borrowed(loop->state) != NULL
        || current_loop_borrowed(loop->state) == loop) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s cannot be called while a loop is running in this thread; await the "
                     "coroutine, or pass it to create_task()",
                     function);
        return -1;
    }
    if (loop->phase > LOOP_SUSPENDED) {
        raise_runs_elsewhere(loop, function, "");
        return -1;
    }
    return 0;
}

/* If it is in the module's ring, the loop leaves it. */
static void
loop_forget(LoopObject *loop)
{
    if (link_in_ring(&loop->begun)) {
        link_remove(&loop->begun);
        if (loop->state->found == loop) {
            loop->state->found = NULL;
        }
        if (loop->debug) {
            origins_end(loop->state);
        }
    }
}

/* The loop is this thread's from now on, and comes first in the ring. */
static void
loop_claim(LoopObject *loop)
{
    loop->process = getpid();
    loop->tstate = PyThreadState_Get();
    loop->tstate_id = compat_tstate_id(loop->tstate);
    loop->real_started = clock_monotonic();
    if (link_in_ring(&loop->begun)) {
        link_remove(&loop->begun);
    }
    ring_push(loop->state->begun.next, &loop->begun);
}

/* It is nobody's, and comes last; unless it can go on, it is forgotten. */
static void
loop_release(LoopObject *loop, int can_go_on)
{
    loop->tstate = NULL;
    if (can_go_on) {
        link_remove(&loop->begun);
        ring_push(&loop->state->begun, &loop->begun);
    }
    else {
        loop_forget(loop);
    }
}

/* What the thread had before, to be put back. */
struct had_before {
    PyObject *sigint, *before;  /* owned; see sigint_install() */
    PyObject *hooks;   /* owned */
    enum loop_phase phase;
};

/* What a run needs, and takes from the system. 0, or -1 with an exception set. */
static int
loop_prepare(LoopObject *loop)
{
    int is_main = in_signal_thread();
    if (is_main < 0) {
        return -1;
    }
    loop->main_thread = (uint8_t)is_main;
    if (loop->errors == NULL) {
        loop->errors = errors_new();
        if (loop->errors == NULL) {
            return -1;
        }
    }
    if (loop->clock.mode != CLOCK_VIRTUAL) {  /* virtual time hardly ever waits */
        int error = idle_ensure_open(&loop->idle);
        if (error != 0) {
            errno = error;
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
    }
    return 0;
}

/* The loop begins to run in this thread, or goes on; the caller holds a reference to it.
 * 0, or -1 with an exception set: then it is as it was, and can be tried again. */
static int
loop_enter(LoopObject *loop, struct had_before *outside)
{
    *outside = (struct had_before){.phase = loop->phase};
    loop->phase = LOOP_RUNNING;  /* at once: all that follows may run Python */
    loop_claim(loop);
    if (loop_prepare(loop) == 0) {
        outside->hooks = asyncgen_install(loop);
    }
    if (outside->hooks == NULL || sigint_install(loop, &outside->sigint, &outside->before) < 0) {
        PyObject *exc = PyErr_GetRaisedException();
        if (outside->hooks != NULL && asyncgen_set_hooks(outside->hooks) < 0) {
            PyErr_WriteUnraisable((PyObject *)loop);
        }
        Py_XDECREF(outside->hooks);
        if (outside->phase == LOOP_NEW) {
            idle_close(&loop->idle);
        }
        loop_release(loop, outside->phase == LOOP_SUSPENDED);
        loop->phase = outside->phase;
        PyErr_SetRaisedException(exc);
        return -1;
    }
    if (loop->wall_origin == WALL_AT_START) {
        loop->wall_origin = wall_now();
    }
    loop->thread_ident = PyThread_get_thread_ident();
    if (loop->debug) {
        origins_begin(loop->state);
        watchdog_start(loop);
    }
    clock_start(&loop->clock);
    return 0;
}

/* The loop is not run by this thread any more. 0, or -1 with an exception set if the thread
 * could not get back what it had. */
static int
loop_leave(LoopObject *loop, struct had_before *outside)
{
    watchdog_stop(loop);
    Py_CLEAR(loop->state->stop_iteration);  /* it may have a Tick, which keeps the module */
    loop->real_total += clock_monotonic() - loop->real_started;
    loop_release(loop, loop->phase == LOOP_RUNNING);
    int rc = sigint_restore(outside->sigint, outside->before);
    PyObject *exc = PyErr_GetRaisedException();
    if (asyncgen_set_hooks(outside->hooks) < 0) {
        rc = -1;
        Py_XSETREF(exc, PyErr_GetRaisedException());
    }
    Py_DECREF(outside->hooks);
    PyErr_SetRaisedException(exc);
    if (loop->phase == LOOP_RUNNING) {
        loop->phase = LOOP_SUSPENDED;  /* last: from now on any thread may drive it */
    }
    return rc;
}

/* ---- the calls that drive it ----------------------------------------------------------------- */

/* To the end of the run, whatever it takes. The result of the roots if `wanted`, else None;
 * or what went wrong. */
static PyObject *
loop_end(LoopObject *loop, struct had_before *outside, int wanted)
{
    loop->tells = 0;
    loop_run_to_the_end(loop);
    loop->phase = LOOP_CLOSED;  /* first: from now on nobody can hand it work */
    loop->lag = 0;
    clock_stop(&loop->clock);
    if (loop_leave(loop, outside) < 0) {
        loop_take_error(loop);
    }
    idle_close(&loop->idle);
    timerheap_clear(&loop->timers);
    pool_drop(&loop->pool);
    Py_XDECREF(loop_set_driver(loop, NULL));
    if (loop->trace != NULL && loop_hand_trace_on(loop) < 0) {
        loop_take_error(loop);
    }
    scope_forget_failure(loop->root);
    PyObject *roots = loop->roots, *errors = loop->errors;
    loop->roots = loop->errors = NULL;
    if (!wanted) {
        Py_SETREF(roots, NULL);
    }
    return loop_result_steal(loop, roots, errors);
}

/* The whole run, or what is left of it. The caller holds a reference. */
static PyObject *
loop_run(LoopObject *loop)
{
    struct had_before outside;
    return loop_enter(loop, &outside) == 0 ? loop_end(loop, &outside, 1) : NULL;
}

/* Cancels what there is, and lets it end. */
static PyObject *
loop_close(LoopObject *loop)
{
    struct had_before outside;
    if (loop_enter(loop, &outside) < 0) {
        return NULL;
    }
    loop_begin_cancel(loop, PyUnicode_FromString("the loop is being closed"));
    return loop_end(loop, &outside, 0);
}

/* The clock stands at its limit, what is due has run, and the next thing is another time's.
 * At a finite speed time does not wait for that: see loop_drive_to(). */
static int
loop_limit_reached(LoopObject *loop)
{
    int64_t when;
    return loop->ready_len == 0 && loop->calls == NULL
           && clock_now(&loop->clock) >= loop->clock.limit
           && (!timerheap_next(&loop->timers, &when) || when > loop->clock.limit);
}

/* Closes what there is, without another await. */
static PyObject *
loop_stop(LoopObject *loop)
{
    struct had_before outside;
    if (loop_enter(loop, &outside) < 0) {
        return NULL;
    }
    loop->abandoned = 1;
    return loop_end(loop, &outside, 0);
}

/* Whether a call is to return before the next pass. */
static int
loop_goal_reached(LoopObject *loop, const TaskObject *task)
{
    if (loop->phase != LOOP_RUNNING || loop->abandoned || loop->stalled) {
        return 1;
    }
    switch (loop->goal) {
    case GOAL_TASK:
        return task_done(task);
    case GOAL_TIME:
        return loop_limit_reached(loop);
    case GOAL_PAUSE:
        return loop->paused || loop_limit_reached(loop);
    default:
        return 0;
    }
}

/* Passes until the goal is reached, the run has to end, or there have been that many. task:
 * for GOAL_TASK. */
static void
loop_drive_to(LoopObject *loop, enum loop_goal goal, const TaskObject *task, uint64_t passes)
{
    loop->goal = goal;
    loop->tells = 1;
    loop->stalled = loop->paused = 0;
    for (; passes > 0 && !loop_goal_reached(loop, task); passes--) {
        if (loop->clock.limit != TIME_END && loop->clock.mode != CLOCK_VIRTUAL
            && clock_now(&loop->clock) >= loop->clock.limit) {
            passes = 1;
        }
        loop_pass(loop);
    }
    if (goal == GOAL_TASK && loop->callbacks_due) {
        loop_run_calls(loop);  /* whoever waits for a task finds its callbacks made */
    }
}

/* Whether the run has to end in the call that is under way. A Ctrl-C that came in the last pass,
 * or since, must not lie around until somebody drives the loop on. */
static int
loop_has_to_end(LoopObject *loop)
{
    if (PyErr_CheckSignals() < 0) {
        loop_take_error(loop);
    }
    return loop->phase != LOOP_RUNNING || loop->abandoned || loop->interrupted;
}

/* Drives the loop to the goal, but not beyond the time `when`, and for at most so many passes.
 * Then it is suspended: returns 1. If the run had to end meanwhile it has done so: -1 with its
 * error set, or 0 if there was none. */
static int
loop_run_to(LoopObject *loop, enum loop_goal goal, int64_t when, const TaskObject *task,
            uint64_t passes)
{
    struct had_before outside;
    if (loop_enter(loop, &outside) < 0) {
        return -1;
    }
    loop->clock.limit = when;
    loop_drive_to(loop, goal, task, passes);
    if (loop_has_to_end(loop)) {
        PyObject *none = loop_end(loop, &outside, 0);
        Py_XDECREF(none);
        return none != NULL ? 0 : -1;
    }
    clock_stop(&loop->clock);  /* while the limit holds */
    loop->clock.limit = TIME_END;
    return loop_leave(loop, &outside) == 0 ? 1 : -1;
}

/* One pass, without waiting: 1 if anything has happened in it, 0 if not, -1 as above. */
static int
loop_step(LoopObject *loop)
{
    struct had_before outside;
    if (loop_enter(loop, &outside) < 0) {
        return -1;
    }
    uint64_t before = loop->wakeups + loop->steps;
    int active = loop->ready_len > 0 || loop->calls != NULL;
    loop_drive_to(loop, GOAL_PASS, NULL, 1);
    active = active || loop->wakeups + loop->steps != before || loop->ready_len > 0
             || loop->calls != NULL;  /* by another thread, meanwhile: there is something to do */
    if (loop_has_to_end(loop)) {
        PyObject *none = loop_end(loop, &outside, 0);
        Py_XDECREF(none);
        return none != NULL ? active : -1;
    }
    return loop_leave(loop, &outside) == 0 ? active : -1;
}

#endif /* SLEEPLOOP_RUN_RUN_H */
