/* pass.h: one turn of the loop.
 *
 * Decides on order and on time. loop_pass() reads like a table of contents; docs/design.md numbers
 * its parts, and has a drawing of them.
 */
#ifndef SLEEPLOOP_RUN_PASS_H
#define SLEEPLOOP_RUN_PASS_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/ring.h"
#include "../base/shuffle.h"
#include "../base/timerheap.h"
#include "../core/args.h"
#include "../core/cancel.h"
#include "../core/loopobject.h"
#include "../core/objects.h"
#include "../core/ready.h"
#include "../core/scopeobject.h"
#include "../core/taskobject.h"
#include "../core/trace.h"
#include "../core/walltime.h"
#include "idlepass.h"
#include "step.h"
#include "watchdog.h"
#include "../wait/calls.h"
#include "../wait/finish.h"

static int
loop_is_over(LoopObject *loop)
{
    if (loop->main_only) {
        return task_done((TaskObject *)PyTuple_GET_ITEM(loop->roots, 0));
    }
    return loop->live_waited == 0;
}

/* The loop has fallen behind by more than strict= allows. */
COLD static void
loop_raise_lag(LoopObject *loop, int64_t when, int64_t now)
{
    if (loop->phase != LOOP_RUNNING) {
        return;
    }
    PyObject *due = seconds_object(when), *late = seconds_object(now - when);
    PyObject *most = seconds_object(loop->strict);
    PyObject *speed = PyFloat_FromDouble(loop->clock.speed);
    if (due != NULL && late != NULL && most != NULL && speed != NULL) {
        PyErr_Format(loop->state->LagError,
                     "the loop is %S s behind: a timer of %S s has not fired, and strict=%S; a "
                     "step took too long, or there is more to do than speed %S leaves time for",
                     late, due, most, speed);
    }
    Py_XDECREF(speed);
    Py_XDECREF(most);
    Py_XDECREF(late);
    Py_XDECREF(due);
    loop_take_error(loop);
}

/* The clock stands for good, and somebody waits for a later moment. That ends the run; whoever waits
 * for one in its cleanup is as good as asleep for ever: see loop_next_time(). */
COLD static void
loop_reach_end(LoopObject *loop)
{
    loop->has_told_end = 1;
    PyObject *end = seconds_object(TIME_END);
    if (end != NULL) {
        PyErr_Format(PyExc_OverflowError,
                     "loop time has come to its end, at %S s (292 years), and what waits for a "
                     "later moment would wait for ever", end);
        Py_DECREF(end);
    }
    loop_take_error(loop);
}

/* The system's wall clock has been set, or the machine has slept: all who wait for a moment
 * of it look whether it has come; step.h parks them again if it has not. */
COLD static void
loop_wake_wall_sleepers(LoopObject *loop)
{
    for (struct link *l = loop->live.next; l != &loop->live; l = l->next) {
        TaskObject *task = TASK_OF_REGISTERED(l);
        if ((task->flags & TASK_WALL) && task->state == TASK_PARKED) {
            loop_wake(loop, task);
        }
    }
}

/* Has the system's wall clock gone another way than the loop's? Their timers are loop time. */
COLD static void
loop_look_at_wall(LoopObject *loop)
{
    int64_t lead = loop_wall_lead(loop);
    int64_t moved = lead - loop->wall_lead;
    if (loop->wall_is_system && (moved > WALL_STEP || moved < -WALL_STEP)) {
        loop->wall_lead = lead;
        loop_wake_wall_sleepers(loop);
    }
}

COLD static void
loop_deadline_passed(LoopObject *loop, ScopeObject *scope)
{
    loop_cancel_scope(loop, scope, SOURCE_DEADLINE);
}

/* What a timer does. */
static inline void
loop_fire(LoopObject *loop, struct timer *timer)
{
    loop->wakeups++;
    if (timer->kind == TIMER_OF_TASK) {
        TaskObject *task = TASK_OF_TIMER(timer);
        task->flags |= TASK_TIMED;
        loop_make_ready(loop, task);
        if (loop->trace != NULL) {
            trace_wake(loop, task);
        }
    }
    else {
        loop_deadline_passed(loop, SCOPE_OF_TIMER(timer));
    }
}

/* Behind what is ready already, those first that are due first. */
static inline void
loop_wake_due(LoopObject *loop)
{
    int64_t when;
    loop->lag = 0;
    if (!timerheap_next(&loop->timers, &when)) {
        return;
    }
    int64_t now = clock_now(&loop->clock);
    if (when > now) {
        if (when == TIME_BEYOND && now == TIME_END && !loop->has_told_end) {
            loop_reach_end(loop);
        }
        return;
    }
    if (when < now) {
        loop->lag = now - when;
        if (loop->lag > loop->strict) {
            loop_raise_lag(loop, when, now);
            if (!timerheap_next(&loop->timers, &when)) {  /* all were cancelled */
                return;
            }
        }
    }
    while (when <= now) {
        loop_fire(loop, timerheap_pop(&loop->timers));
        if (!timerheap_next(&loop->timers, &when)) {
            break;
        }
    }
}

/* Reads a byte for nothing but to have it in the caches. Unlike a prefetch it also
 * waits for the page's address, without which prefetches are dropped. */
static inline void
touch(const void *address)
{
    (void)*(const volatile char *)address;
}

/* Brings in what the next wake-up will use while this pass runs: with 100,000 tasks
 * nothing of it is in the caches. One of four tasks comes after that. */
static inline void
loop_look_ahead(LoopObject *loop)
{
    struct timer *timer = timerheap_glance(&loop->timers, 0);
    if (timer == NULL || timer->kind != TIMER_OF_TASK) {
        return;
    }
    TaskObject *next = TASK_OF_TIMER(timer);
    const char *coro = (const char *)next->coro;
    touch(coro);
    touch(next->payload);
    __builtin_prefetch(coro + 64);
    __builtin_prefetch(coro + 128);
    __builtin_prefetch(coro + 192);
    __builtin_prefetch(next->context);
    for (size_t i = 1; i <= 4; i++) {
        timer = timerheap_glance(&loop->timers, i);
        if (timer != NULL) {
            __builtin_prefetch(TASK_OF_TIMER(timer));
            __builtin_prefetch(timer);
        }
    }
}

/* What was ready when the pass began, so that no sleep(0) loop starves a timer. */
static inline void
loop_run_batch(LoopObject *loop)
{
    for (size_t n = loop->ready_len; n > 0 && !loop->abandoned; n--) {
        struct link *next;
        if (loop->shuffle == NULL) {
            next = ring_pop(&loop->ready);
        }
        else if (loop->callbacks_due) {
            break;  /* first, or one who has waited for the task could be drawn */
        }
        else {
            next = shuffle_pop(loop->shuffle, &loop->ready, loop->ready_len);
        }
        TaskObject *task = TASK_OF_LINK(next);
        loop->ready_len--;
        loop_run_task(loop, task);
    }
}

static inline void
loop_pass(LoopObject *loop)
{
    if (PyErr_CheckSignals() < 0) {
        loop_take_error(loop);
    }
    if (loop->calls != NULL) {
        loop_run_calls(loop);
    }
    if (loop->phase == LOOP_RUNNING) {
        if (loop->interrupted) {
            loop_begin_cancel(loop, PyUnicode_FromString("interrupted by Ctrl-C"));
        }
        else if (loop->goal == GOAL_END && loop_is_over(loop)) {
            loop_begin_cancel(loop, NULL);
        }
    }
    if (loop->phase > LOOP_RUNNING && atomic_load(&loop->watchdog.end_began) == 0
        && !ring_empty(&loop->live)) {
        watchdog_watch_end(loop);
    }
    if (loop->wall_sleepers > 0) {
        loop_look_at_wall(loop);
    }
    if (loop->ready_len == 0 && !loop->callbacks_due) {
        loop_idle(loop);
    }
    loop_wake_due(loop);
    loop_look_ahead(loop);
    loop_run_batch(loop);
}

#endif /* SLEEPLOOP_RUN_PASS_H */
