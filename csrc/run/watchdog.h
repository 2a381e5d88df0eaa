/* watchdog.h: a thread that looks at a run from outside, to tell what holds it up.
 *
 * In a debug run from the beginning, else from the moment at which a run is being ended and
 * tasks are left: no coroutine has to come back for it to notice. It needs the GIL only to
 * report, which is done in Python (sleeploop/_watchdog.py).
 */
#ifndef SLEEPLOOP_RUN_WATCHDOG_H
#define SLEEPLOOP_RUN_WATCHDOG_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../core/loopobject.h"
#include "../poll/idle.h"

#include <signal.h>
#include <stdatomic.h>

#define SLOW_STEP (NS_PER_SEC / 10)  /* a step that holds the loop for longer is reported */
#define SLOW_END NS_PER_SEC          /* and an end of a run that takes longer */
#define LOOK_EVERY (NS_PER_SEC / 50)

/* sleeploop._watchdog.<function>(loop, seconds, thread); a failure goes to
 * sys.unraisablehook. */
static void
watchdog_report(LoopObject *loop, const char *function, int64_t ns)
{
    PyObject *module = import_module("sleeploop._watchdog");
    PyObject *done = module != NULL ? PyObject_CallMethod(module, function, "Odk", (PyObject *)loop,
                                                          (double)ns / 1e9, loop->thread_ident)
                                    : NULL;
    if (done == NULL) {
        PyErr_WriteUnraisable((PyObject *)loop);
    }
    Py_XDECREF(done);
    Py_XDECREF(module);
}

/* Likewise from the watchdog's own thread, which has no GIL; unless what there is to be
 * seen has passed when it gets it. */
static void
watchdog_report_from_outside(LoopObject *loop, const char *function, int64_t ns, int64_t step)
{
    PyThreadState *tstate = PyThreadState_New(loop->watchdog.interpreter);
    if (tstate == NULL) {
        return;
    }
    PyEval_AcquireThread(tstate);
    if (!atomic_load(&loop->watchdog.stop)
        && (step == 0 || step == atomic_load(&loop->step_began))) {
        loop->watchdog.reported_step = step;
        watchdog_report(loop, function, ns);
    }
    PyThreadState_Clear(tstate);
    PyThreadState_DeleteCurrent();
}

static void *
watchdog_main(void *arg)
{
    LoopObject *loop = arg;
    struct watchdog *dog = &loop->watchdog;
    int64_t seen_step = 0;
    int end_reported = 0;
    while (!atomic_load(&dog->stop)) {
        int64_t now = clock_monotonic();
        int64_t end_began = atomic_load(&dog->end_began);
        int64_t step = atomic_load(&loop->step_began);
        int64_t next = TIME_FOREVER;
        if (loop->debug && step != 0 && step != seen_step && now - step >= SLOW_STEP) {
            seen_step = step;
            watchdog_report_from_outside(loop, "report_step", now - step, step);
        }
        if (end_began != 0 && !end_reported) {
            if (now - end_began >= SLOW_END) {
                end_reported = 1;
                watchdog_report_from_outside(loop, "report_end", now - end_began, 0);
            }
            next = end_began + SLOW_END;
        }
        if (loop->debug) {
            next = now + LOOK_EVERY;
        }
        else if (end_reported) {
            next = TIME_FOREVER;
        }
        if (idle_wait(&dog->idle, next) != 0) {
            break;  /* it cannot wait, and must not spin */
        }
        if (dog->idle.woken) {
            idle_drain(&dog->idle, -1);
        }
    }
    return NULL;
}

/* Starts watching, if the system has what that takes. */
static void
watchdog_start(LoopObject *loop)
{
    struct watchdog *dog = &loop->watchdog;
    if (dog->running || idle_open(&dog->idle) != 0) {
        return;
    }
    dog->interpreter = PyInterpreterState_Get();
    atomic_store(&dog->stop, 0);
    sigset_t all, old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);  /* signals are for Python's threads */
    dog->running = pthread_create(&dog->thread, NULL, watchdog_main, loop) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!dog->running) {
        idle_close(&dog->idle);
    }
}

/* The run is being ended, and tasks are left. */
static void
watchdog_watch_end(LoopObject *loop)
{
    atomic_store(&loop->watchdog.end_began, clock_monotonic());
    if (loop->watchdog.running) {
        idle_wake(&loop->watchdog.idle);  /* it has one more thing to wait for */
    }
    else {
        watchdog_start(loop);
    }
}

static void
watchdog_stop(LoopObject *loop)
{
    struct watchdog *dog = &loop->watchdog;
    if (!dog->running) {
        return;
    }
    dog->running = 0;
    if (dog->idle.owner == getpid()) {  /* the thread is not there after a fork */
        atomic_store(&dog->stop, 1);
        idle_wake(&dog->idle);
        Py_BEGIN_ALLOW_THREADS  /* it may be waiting for the GIL */
        (void)pthread_join(dog->thread, NULL);
        Py_END_ALLOW_THREADS
    }
    idle_close(&dog->idle);
}

/* ---- each step of a debug run ---------------------------------------------------------------- */

static inline void
watchdog_step_begins(LoopObject *loop)
{
    if (loop->debug) {
        atomic_store(&loop->step_began, clock_monotonic());
    }
}

/* A slow step that the watchdog could not see, as it did not let go of the GIL, is told
 * now. Beware: runs Python; whatever is set stays set. */
COLD static void
watchdog_step_was_slow(LoopObject *loop, int64_t ns)
{
    PyObject *exc = PyErr_GetRaisedException();
    watchdog_report(loop, "report_step_late", ns);
    PyErr_SetRaisedException(exc);
}

static inline void
watchdog_step_ends(LoopObject *loop)
{
    if (loop->debug) {
        int64_t step = atomic_load(&loop->step_began);
        int64_t ns = clock_monotonic() - step;
        atomic_store(&loop->step_began, 0);
        if (ns >= SLOW_STEP && loop->watchdog.reported_step != step) {
            watchdog_step_was_slow(loop, ns);
        }
    }
}

#endif /* SLEEPLOOP_RUN_WATCHDOG_H */
