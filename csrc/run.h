/* run.h: one run of a loop, from the first task's start to the last one's end.
 *
 * Decides on order and on time. loop_drive() reads like a table of contents;
 * docs/design.md numbers its steps.
 */
#ifndef SLEEPLOOP_RUN_H
#define SLEEPLOOP_RUN_H

#include "asyncgen.h"
#include "result.h"
#include "step.h"
#include "wait.h"

static int
loop_is_over(LoopObject *loop)
{
    if (loop->main_only) {
        return task_done((TaskObject *)PyTuple_GET_ITEM(loop->roots, 0));
    }
    return loop->live_waited == 0;
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
    if (!timeq_next(&loop->timers, &when)) {
        return;
    }
    int64_t now = clock_now(&loop->clock);
    while (when <= now) {
        loop_fire(loop, timeq_pop(&loop->timers));
        if (!timeq_next(&loop->timers, &when)) {
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
    struct timer *timer = timeq_glance(&loop->timers, 0);
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
        timer = timeq_glance(&loop->timers, i);
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
        TaskObject *task = TASK_OF_LINK(ring_pop(&loop->ready));
        loop->ready_len--;
        loop_run_task(loop, task);
    }
}

static void
loop_drive(LoopObject *loop)
{
    while (!ring_empty(&loop->live) && !loop->abandoned) {
        if (PyErr_CheckSignals() < 0) {
            loop_take_error(loop);
        }
        if (loop->phase == LOOP_RUNNING) {
            if (loop->interrupted) {
                loop_begin_cancel(loop, PyUnicode_FromString("interrupted by Ctrl-C"));
            }
            else if (loop_is_over(loop)) {
                loop_begin_cancel(loop, NULL);
            }
        }
        if (loop->phase == LOOP_CANCELLING && atomic_load(&loop->watchdog.end_began) == 0
            && !ring_empty(&loop->live)) {
            watchdog_watch_end(loop);
        }
        if (loop->ready_len == 0) {
            loop_idle(loop);
        }
        loop_wake_due(loop);
        loop_look_ahead(loop);
        loop_run_batch(loop);
    }
}

/* Stops right away: what is left is closed without another await. */
static void
loop_abandon(LoopObject *loop)
{
    loop->phase = LOOP_CLOSED;  /* create_task() refuses, so this comes to an end */
    while (!ring_empty(&loop->live)) {
        TaskObject *task = TASK_OF_REGISTERED(loop->live.next);
        Py_INCREF(task);
        if (task->state == TASK_READY) {
            link_remove(&task->link);
            loop->ready_len--;
        }
        else {
            loop_unpark(loop, task);
        }
        loop_finish(loop, task, TASK_CANCELLED, NULL);
        if (task_close_coro(loop->state, task) < 0) {
            PyObject *exc = PyErr_GetRaisedException();
            PyObject *name = task_name(task);
            log_exception(name != NULL ? PyUnicode_FromFormat(
                              "task %R failed while it was being closed", name)
                                       : NULL,
                          exc);
            Py_XDECREF(name);
            Py_DECREF(exc);
        }
        Py_DECREF(task);
    }
}

/* Everything from the first step to the last. Errors are in loop->errors; none is set. */
static void
loop_run_to_the_end(LoopObject *loop)
{
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
    } while (!ring_empty(&loop->live));  /* a log handler made a task, or dropped a generator */
}

/* ---- before and after ------------------------------------------------------------------------ */

/* 0 if this loop can run here and now. */
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
    if (current_loop_borrowed(loop->state) != NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s cannot be called while a loop is running in this thread; await the "
                     "coroutine, or pass it to create_task()",
                     function);
        return -1;
    }
    if (loop->phase != LOOP_NEW) {
        PyErr_Format(PyExc_RuntimeError, "%s: this loop is running in another thread", function);
        return -1;
    }
    return 0;
}

static void
running_list_add(LoopObject *loop)
{
    loop->tstate = PyThreadState_Get();
    loop->tstate_id = PyThreadState_GetID(loop->tstate);
    loop->next_running = loop->state->running;
    loop->state->running = loop;
}

static void
running_list_remove(LoopObject *loop)
{
    LoopObject **at = &loop->state->running;
    while (*at != loop) {
        at = &(*at)->next_running;
    }
    *at = loop->next_running;
    loop->next_running = NULL;
    loop->tstate = NULL;
}

/* Runs the loop; the caller holds a reference to it. A failure before the first
 * step leaves it as it was, so that the run can be tried again. */
static PyObject *
loop_run(LoopObject *loop)
{
    PyObject *sigint = NULL, *hooks = NULL;
    loop->phase = LOOP_RUNNING;  /* at once: all that follows may run Python */
    running_list_add(loop);
    int is_main = in_signal_thread();
    if (is_main < 0) {
        goto failed;
    }
    loop->main_thread = (uint8_t)is_main;
    loop->errors = errors_new();
    if (loop->errors == NULL) {
        goto failed;
    }
    if (loop->clock.mode != CLOCK_VIRTUAL) {  /* virtual time hardly ever waits */
        int error = idle_ensure_open(&loop->idle);
        if (error != 0) {
            errno = error;
            PyErr_SetFromErrno(PyExc_OSError);
            goto failed;
        }
    }
    hooks = asyncgen_install(loop);
    if (hooks == NULL || sigint_install(loop, &sigint) < 0) {
        goto failed;
    }

    if (loop->wall_origin == WALL_AT_START) {
        loop->wall_origin = wall_now();
    }
    loop->thread_ident = PyThread_get_thread_ident();
    if (loop->debug) {
        watchdog_start(loop);
    }
    loop->real_started = clock_monotonic();
    clock_start(&loop->clock);
    loop_run_to_the_end(loop);
    watchdog_stop(loop);
    clock_stop(&loop->clock);
    loop->real_total = clock_monotonic() - loop->real_started;
    running_list_remove(loop);
    loop->phase = LOOP_CLOSED;

    if (sigint_restore(sigint) < 0) {
        loop_take_error(loop);
    }
    if (asyncgen_set_hooks(hooks) < 0) {
        loop_take_error(loop);
    }
    Py_DECREF(hooks);
    idle_close(&loop->idle);
    timeq_clear(&loop->timers);
    PyObject *roots = loop->roots, *errors = loop->errors;
    loop->roots = loop->errors = NULL;
    return loop_result_steal(loop, roots, errors);

failed:
    if (hooks != NULL) {
        PyObject *exc = PyErr_GetRaisedException();
        if (asyncgen_set_hooks(hooks) < 0) {
            PyErr_WriteUnraisable((PyObject *)loop);
        }
        Py_DECREF(hooks);
        PyErr_SetRaisedException(exc);
    }
    idle_close(&loop->idle);
    Py_CLEAR(loop->errors);
    running_list_remove(loop);
    loop->phase = LOOP_NEW;
    return NULL;
}

#endif /* SLEEPLOOP_RUN_H */
