/* idlepass.h: what the run does when nothing is ready: jump, wait, or report a deadlock. */
#ifndef SLEEPLOOP_RUN_IDLEPASS_H
#define SLEEPLOOP_RUN_IDLEPASS_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/timerheap.h"
#include "../core/cancel.h"
#include "../core/kinds.h"
#include "../core/loopobject.h"
#include "../core/pool.h"
#include "../core/ready.h"
#include "../core/report.h"
#include "../core/taskobject.h"
#include "../core/walltime.h"
#include "../poll/idle.h"
#include "sigint.h"
#include "../wait/finish.h"

/* Raises DeadlockError: every task waits, and nothing can ever wake one. It is set in the end,
 * or whatever has kept it from being made. */
static void
raise_deadlock(LoopObject *loop)
{
    PyObject *module = import_module("sleeploop._deadlocks");
    PyObject *error =
        module != NULL ? PyObject_CallMethod(module, "ending", "O", (PyObject *)loop) : NULL;
    Py_XDECREF(module);
    if (error != NULL) {
        PyErr_SetRaisedException(error);
    }
}

/* A deadlock ends the run. */
static void
loop_report_deadlock(LoopObject *loop)
{
    if (loop->has_told_end) {  /* the cleanup of such a run: that error tells it all */
        loop->abandoned = 1;
        return;
    }
    raise_deadlock(loop);
    if (PyErr_ExceptionMatches(loop->state->DeadlockError) && loop->phase == LOOP_RUNNING) {
        PyObject *exc = PyErr_GetRaisedException();
        loop_record_error(loop, exc);
        Py_DECREF(exc);
        loop_begin_cancel(loop, PyUnicode_FromString("every task waits: a deadlock"));
        return;
    }
    loop_take_fatal_error(loop);
}

/* Whether anything but a timer could still make a task ready: 1, 0, or -1. What other threads may
 * bring counts at a finite speed only: in virtual time nothing may depend on when a thread gets to
 * it. */
static int
loop_may_be_woken(LoopObject *loop)
{
    int is_real = loop->clock.mode != CLOCK_VIRTUAL;
    int threads = is_real && !loop->refuses && other_threads_may_act(loop->state, loop->tstate);
    /* Of the pool's calls nobody may wait for the outcome, but their tokens come back. */
    int will_be = loop->pool.calls > 0 && !thread_is_alone(loop->tstate);
    loop->hopes = 0;
    for (struct link *l = loop->live.next; l != &loop->live; l = l->next) {
        enum outside outside = task_outside(TASK_OF_REGISTERED(l));
        if (outside == OUTSIDE_THREAD && threads) {
            loop->hopes = 1;
            return 1;
        }
        will_be = will_be || outside == OUTSIDE_WORK || (outside == OUTSIDE_SIGNAL && is_real);
        if (will_be && !threads) {
            return 1;
        }
    }
    if (will_be) {
        return 1;
    }
    if (!is_real && loop->phase != LOOP_RUNNING) {
        return 0;  /* whatever a handler is there for, it is not for the cleanup of such a run */
    }
    return loop->main_thread ? other_signal_handlers() : 0;
}

/* When the next thing is due: a timer, what whoever drives the loop waits for, or the end of the
 * clock, if there is a timer beyond it. */
static inline int64_t
loop_next_time(LoopObject *loop)
{
    int64_t when;
    if (!timerheap_next(&loop->timers, &when)) {
        when = TIME_FOREVER;
    }
    if (when > loop->clock.limit && (when != TIME_FOREVER || loop->goal == GOAL_TIME)) {
        /* without a timer, a pause that is waited for never comes */
        when = loop->has_told_end ? TIME_FOREVER : loop->clock.limit;
    }
    return when;
}

/* Whether time passes at once. */
static inline int
loop_can_jump(const LoopObject *loop, int64_t when)
{
    return loop->clock.mode == CLOCK_VIRTUAL && loop->threads == 0 && when != TIME_FOREVER;
}

/* When a real wait for the loop time `when` has to end, at the latest. */
static int64_t
loop_wait_deadline(LoopObject *loop, int64_t when)
{
    int64_t deadline = clock_real_deadline(&loop->clock, when);
    if ((loop->wall_sleepers > 0 && loop->wall_is_system) || loop->hopes) {
        int64_t look = clock_monotonic() + WALL_LOOK_EVERY;
        return look < deadline ? look : deadline;
    }
    return deadline;
}

/* Gives the GIL up until something is due, a signal or a wake-up comes.
 *
 * Python's C signal handler writes to its wake-up descriptor in whichever thread
 * the signal arrives. For the length of the wait that is ours, set before the last
 * look at the pending signals: one that comes after that look finds the pipe, and
 * the wait ends at once. What is due is asked after it, too: a handler may have set a timer
 * or another speed. */
static void
loop_wait(LoopObject *loop)
{
    int error = idle_ensure_open(&loop->idle);
    if (error != 0) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        loop_take_fatal_error(loop);
        return;
    }
    loop->process = loop->idle.owner;
    int old_fd = loop->main_thread ? compat_set_wakeup_fd(loop->idle.wake_w) : -1;
    if (PyErr_CheckSignals() < 0) {
        loop_take_error(loop);
    }
    int64_t when = loop_next_time(loop);
    if (loop->ready_len == 0 && loop->calls == NULL && !loop->abandoned
        && !loop_can_jump(loop, when) && !(loop->interrupted && loop->phase == LOOP_RUNNING)) {
        int64_t limit = loop->clock.limit;
        int64_t deadline =
            loop_wait_deadline(loop, when < limit || limit == TIME_END ? when : limit);
        loop->idle_began = clock_monotonic();
        loop->idling = 1;
        PyThreadState *tstate = PyEval_SaveThread();
        error = idle_wait(&loop->idle, deadline);
        PyEval_RestoreThread(tstate);
        loop->idling = 0;
        loop->real_idle += clock_monotonic() - loop->idle_began;
    }
    if (loop->main_thread) {
        (void)compat_set_wakeup_fd(old_fd);
    }
    if (loop->idle.woken) {
        loop->idle.woken = 0;
        idle_drain(&loop->idle, old_fd);
    }
    if (error != 0) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        loop_take_fatal_error(loop);
    }
}

/* A task waits for a thread, and there is none: the loop is a child's, after a fork. The task goes on
 * and sees that. */
COLD static void
loop_wake_for_lost_threads(LoopObject *loop)
{
    for (struct link *l = loop->live.next; l != &loop->live; l = l->next) {
        TaskObject *task = TASK_OF_REGISTERED(l);
        if (task_outside(task) == OUTSIDE_WORK) {
            loop_wake(loop, task);
        }
    }
}

/* No timer will ever fire. */
static void
loop_stall(LoopObject *loop)
{
    switch (loop_may_be_woken(loop)) {
    case 0:
        if (loop->ready_len == 0 && loop->calls == NULL
            && loop_next_time(loop) == TIME_FOREVER) {  /* still: that was Python code */
            if ((loop->goal == GOAL_TASK || loop->goal == GOAL_PAUSE)
                && loop->phase == LOOP_RUNNING) {
                loop->stalled = 1;
            }
            else {
                loop_report_deadlock(loop);
            }
        }
        break;
    case 1:
        loop_wait(loop);
        loop->hopes = 0;
        break;
    default:
        loop_take_fatal_error(loop);
    }
}

/* Nothing is ready: time must pass. */
static inline void
loop_idle(LoopObject *loop)
{
    int64_t when = loop_next_time(loop);
    if (loop_can_jump(loop, when)) {
        clock_jump(&loop->clock, when);
    }
    else if (loop->threads > 0 && loop->calls == NULL && thread_is_alone(loop->tstate)) {
        loop_wake_for_lost_threads(loop);
    }
    else if (loop->goal == GOAL_PASS) {
        return;  /* whoever makes single passes does not want to wait */
    }
    else if (when == TIME_FOREVER) {
        loop_stall(loop);
    }
    else if (when > clock_now(&loop->clock)) {
        loop_wait(loop);
    }
}

#endif /* SLEEPLOOP_RUN_IDLEPASS_H */
