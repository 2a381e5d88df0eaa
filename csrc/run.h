/* run.h: one run of a loop, from the first task's start to the last one's end.
 *
 * The one place that acts on verdicts, and that decides on order and on time.
 * loop_drive() reads like a table of contents; docs/design.md numbers its steps.
 */
#ifndef SLEEPLOOP_RUN_H
#define SLEEPLOOP_RUN_H

#include "asyncgen.h"
#include "sigint.h"

/* ---- errors of the loop itself ------------------------------------------------------ */

/* Takes the exception that is set: of a signal handler, or of the loop's own
 * doing. It ends the run; on top of an end that is under way because of Ctrl-C, a
 * KeyboardInterrupt stops it right away. */
static void
loop_take_error(LoopObject *loop)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (loop->interrupted && PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt)) {
        loop->abandoned = 1;
    }
    else {
        PyObject *text = describe(exc);
        loop_record_error(loop, exc);
        loop_begin_cancel(loop, text != NULL ? PyUnicode_FromFormat("the run failed with %U", text)
                                             : NULL);
        Py_XDECREF(text);
    }
    Py_DECREF(exc);
}

/* Likewise, when it would come again and again. */
static void
loop_take_fatal_error(LoopObject *loop)
{
    if (loop->phase != LOOP_RUNNING) {
        loop->abandoned = 1;
    }
    loop_take_error(loop);
}

/* ---- what a coroutine yielded ------------------------------------------------------- */

/* Any trap of a cancelled task: it will raise CancelledError. Steals trap. */
static void
park_cancelled(LoopObject *loop, TaskObject *task, PyObject *trap_steal)
{
    task->payload = trap_steal;
    task->flags |= TASK_THROW_CANCEL;
    loop_make_ready(loop, task);
}

/* In the heap, unless `when` has come or never will. Steals trap. */
static void
park_until(LoopObject *loop, TaskObject *task, int64_t now, int64_t when, PyObject *trap_steal)
{
    task->payload = trap_steal;
    if (when <= now) {
        loop_make_ready(loop, task);
    }
    else if (when == TIME_FOREVER) {
        task->state = TASK_FOREVER;
        loop->live_forever++;
    }
    else if (timeq_push(&loop->timers, &task->timer, when) == 0) {
        task->state = TASK_TIMER;
    }
    else {
        PyErr_NoMemory();
        task->payload = NULL;
        loop_throw_next(loop, task, PyErr_GetRaisedException());
        Py_DECREF(trap_steal);
    }
}

/* Behind the others that wait for the same task. Steals trap. */
static void
park_join(LoopObject *loop, TaskObject *task, PyObject *trap_steal)
{
    TaskObject *target = ((JoinObject *)trap_steal)->task;
    task->payload = trap_steal;
    if (task_done(target)) {
        loop_make_ready(loop, task);
    }
    else {
        task->state = TASK_JOIN;
        ring_push(&target->waiters, &task->link);
    }
}

/* Steals trap. Beware: the conversion may run a time zone's Python. */
static void
park_datetime(LoopObject *loop, TaskObject *task, PyObject *trap_steal)
{
    int64_t wall;
    if (wall_from_datetime(loop->state, trap_steal, &wall) < 0) {
        loop_throw_next(loop, task, PyErr_GetRaisedException());
        Py_DECREF(trap_steal);
        return;
    }
    park_until(loop, task, clock_now(&loop->clock), loop_time_of_wall(loop, wall), trap_steal);
}

/* For a hint only: an attribute that fails is none. */
static int
seems_to_have(PyObject *obj, const char *name)
{
    PyObject *attr = PyObject_GetAttrString(obj, name);
    if (attr == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(attr);
    return attr != NULL;
}

/* Something the loop cannot wait for: the coroutine gets a TypeError. Steals obj. */
static void
refuse_yield(LoopObject *loop, TaskObject *task, PyObject *obj_steal)
{
    const char *hint = "; await one of sleeploop's own awaitables";
    PyTypeObject *type = Py_TYPE(obj_steal);
    if (type == loop->state->SleepType || type == loop->state->JoinType) {
        hint = "; 'await' it, once and on this loop, instead of yielding it";
    }
    else if (seems_to_have(obj_steal, "_asyncio_future_blocking")) {
        hint = ", an asyncio future: it needs asyncio's loop. Use sleeploop's sleep() and tasks "
               "here, or asyncio.run() in a thread for that part";
    }
    else if (seems_to_have(obj_steal, "add_done_callback")) {
        hint = ", a future of another library: wait for its result() in a thread, and use "
               "sleeploop's sleep() and tasks here";
    }
    raise_about(PyExc_TypeError, "%s cannot wait for %U%s", "SleepingLoop", obj_steal, hint);
    loop_throw_next(loop, task, PyErr_GetRaisedException());
    Py_DECREF(obj_steal);
}

enum trap_kind { TRAP_OF_SLEEP, TRAP_OF_JOIN, TRAP_OF_NONE, TRAP_OF_DATETIME, TRAP_UNKNOWN };

/* A Sleep or Join counts only while it waits, and here: anybody may yield one. */
static inline enum trap_kind
classify_yield(LoopObject *loop, TaskObject *task, PyObject *obj)
{
    ModuleState *state = loop->state;
    if (Py_TYPE(obj) == state->SleepType) {
        return ((SleepObject *)obj)->state == TRAP_WAITING ? TRAP_OF_SLEEP : TRAP_UNKNOWN;
    }
    if (Py_TYPE(obj) == state->JoinType) {
        JoinObject *join = (JoinObject *)obj;
        return join->state == TRAP_WAITING && join->task != NULL && join->task->loop == loop
                       && join->task != task
                   ? TRAP_OF_JOIN
                   : TRAP_UNKNOWN;
    }
    if (obj == Py_None) {
        return TRAP_OF_NONE;
    }
    return is_datetime(state, obj) ? TRAP_OF_DATETIME : TRAP_UNKNOWN;
}

/* Puts a running task where what it yielded says. Steals trap. */
static inline void
loop_park(LoopObject *loop, TaskObject *task, PyObject *trap_steal)
{
    enum trap_kind kind = classify_yield(loop, task, trap_steal);
    if ((task->flags & TASK_CANCELLING) && kind != TRAP_UNKNOWN) {
        park_cancelled(loop, task, trap_steal);
        return;
    }
    switch (kind) {
    case TRAP_OF_SLEEP: {
        SleepObject *sleep = (SleepObject *)trap_steal;
        park_until(loop, task, sleep->started, sleep_deadline(loop, sleep), trap_steal);
        break;
    }
    case TRAP_OF_JOIN:
        park_join(loop, task, trap_steal);
        break;
    case TRAP_OF_NONE:
        loop_make_ready(loop, task);
        Py_DECREF(trap_steal);
        break;
    case TRAP_OF_DATETIME:
        park_datetime(loop, task, trap_steal);
        break;
    case TRAP_UNKNOWN:
        refuse_yield(loop, task, trap_steal);
        break;
    }
}

/* ---- one step ------------------------------------------------------------------------ */

/* The end of a step that raised; the exception is set. */
static void
loop_step_raised(LoopObject *loop, TaskObject *task)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (exc == NULL) {  /* a broken extension's send() */
        PyErr_SetString(PyExc_SystemError, "a coroutine failed without setting an exception");
        exc = PyErr_GetRaisedException();
    }
    if (loop->interrupted && PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt)) {
        loop->abandoned = 1;  /* Ctrl-C for the second time, while this task ran */
    }
    else if (!(task->flags & TASK_CANCELLING)
             || !PyErr_GivenExceptionMatches(exc, loop->state->CancelledError)) {
        loop_finish(loop, task, TASK_FAILED, exc);
        return;
    }
    /* Its traceback would keep the coroutine's locals alive. */
    Py_DECREF(exc);
    loop_finish(loop, task, TASK_CANCELLED, NULL);
}

/* A task that was cancelled before its first step: its coroutine never runs. One
 * that another has started meanwhile is not ours to close. */
static void
loop_close_unstarted(LoopObject *loop, TaskObject *task)
{
    PyObject *coro = task->coro;
    int is_native = PyCoro_CheckExact(coro) || PyGen_CheckExact(coro);
    int is_ours = !is_native || compat_coro_state(coro) == CORO_NEW;
    if (is_ours && task_close_coro(loop->state, task) < 0) {
        loop_step_raised(loop, task);
    }
    else {
        loop_finish(loop, task, TASK_CANCELLED, NULL);
    }
}

static PyObject *
cancelled_error(LoopObject *loop)
{
    PyObject *exc = loop->cancel_reason != NULL
                        ? PyObject_CallOneArg(loop->state->CancelledError, loop->cancel_reason)
                        : PyObject_CallNoArgs(loop->state->CancelledError);
    return exc != NULL ? exc : PyErr_GetRaisedException();
}

enum resume { RESUME_SEND, RESUME_THROW, RESUME_NOT_YET };

/* A task that slept until a datetime. On the system's wall clock that may still be
 * ahead: the wall clock and the monotonic one do not run quite alike. *input: what
 * to send or throw, a new reference. Steals trap if the task is parked again. */
static enum resume
resume_from_wall(LoopObject *loop, TaskObject *task, PyObject *trap, PyObject **input)
{
    ModuleState *state = loop->state;
    int is_sleep = Py_TYPE(trap) == state->SleepType;
    int64_t wall = is_sleep ? ((SleepObject *)trap)->time : 0;
    int64_t now = loop_wall_now(loop);
    if (!is_sleep && wall_from_datetime(state, trap, &wall) < 0) {
        *input = PyErr_GetRaisedException();
        return RESUME_THROW;
    }
    if (loop->wall_is_system && now < wall) {
        if (task->flags & TASK_CANCELLING) {  /* since it was woken */
            *input = cancelled_error(loop);
            return RESUME_THROW;
        }
        park_until(loop, task, clock_now(&loop->clock), loop_time_of_wall(loop, wall), trap);
        return RESUME_NOT_YET;
    }
    if (loop->clock.mode != CLOCK_VIRTUAL && now - wall < TIME_FOREVER / NS_PER_US) {
        lateness_add(&loop->late, (now - wall) * NS_PER_US);
    }
    *input = is_sleep ? Py_NewRef(Py_None) : datetime_like(state, now, trap);
    if (*input == NULL) {
        *input = PyErr_GetRaisedException();
        return RESUME_THROW;
    }
    return RESUME_SEND;
}

/* Beware: runs arbitrary Python, which may call back into the loop. The task is
 * detached while it does: in no ring, not in the heap, its payload taken out. */
static void
loop_run_task(LoopObject *loop, TaskObject *task)
{
    ModuleState *state = loop->state;
    PyObject *trap = task->payload, *out;
    PyObject *value = Py_None;  /* borrowed from `input`, or None */
    PyObject *input = NULL, *exc = NULL;
    int flags = task->flags;
    task->payload = NULL;
    task->state = TASK_RUNNING;
    task->flags = (uint8_t)((flags | TASK_STARTED) & ~(TASK_THROW | TASK_THROW_CANCEL));
    loop->current = task;

    if (flags & TASK_THROW) {
        exc = trap;
        trap = NULL;
    }
    else if (flags & TASK_THROW_CANCEL) {
        exc = cancelled_error(loop);
    }
    else if (!(flags & TASK_STARTED)) {
        if (flags & TASK_CANCELLING) {
            loop_close_unstarted(loop, task);
            goto done;
        }
        if (check_coroutine(state, "a task", task->coro) < 0) {  /* started behind our back */
            loop_step_raised(loop, task);
            goto done;
        }
    }
    else if (trap != NULL && Py_TYPE(trap) != state->JoinType
             && (Py_TYPE(trap) != state->SleepType
                 || ((SleepObject *)trap)->kind == SLEEP_UNTIL_WALL)) {
        switch (resume_from_wall(loop, task, trap, &input)) {
        case RESUME_NOT_YET:
            trap = NULL;
            goto done;
        case RESUME_THROW:
            exc = input;
            input = NULL;
            break;
        case RESUME_SEND:
            value = input;
            break;
        }
    }
    Py_CLEAR(trap);

    loop->steps++;
    switch (task_step(state, task, value, exc, &out)) {
    case STEP_YIELDED:
        loop_park(loop, task, out);
        break;
    case STEP_RETURNED:
        loop_finish(loop, task, TASK_RETURNED, out);
        break;
    case STEP_RAISED:
        loop_step_raised(loop, task);
        break;
    }
done:
    loop->current = NULL;
    Py_XDECREF(trap);
    Py_XDECREF(input);
}

/* ---- waiting --------------------------------------------------------------------------- */

/* Every task waits, and nothing can ever wake one. */
static void
loop_report_deadlock(LoopObject *loop)
{
    PyObject *report = wait_report(loop);
    if (report != NULL) {
        PyErr_Format(loop->state->DeadlockError,
                     "every task waits for something that cannot happen any more:\n  %U", report);
        Py_DECREF(report);
    }
    loop_take_fatal_error(loop);
}

/* Whether anything but a timer could still make a task ready: 1, 0, or -1. */
static int
loop_may_be_woken(LoopObject *loop)
{
    if (loop->clock.mode != CLOCK_VIRTUAL && loop->live_forever > 0) {
        return 1;  /* sleep_forever() in real time means: until a signal, if nothing else */
    }
    return loop->main_thread ? other_signal_handlers() : 0;
}

/* Gives the GIL up until `deadline` (monotonic), a signal or a wake-up.
 *
 * Python's C signal handler writes to its wake-up descriptor in whichever thread
 * the signal arrives. For the length of the wait that is ours, set before the last
 * look at the pending signals: one that comes after that look finds the pipe, and
 * the wait ends at once. */
static void
loop_wait(LoopObject *loop, int64_t deadline)
{
    int error = idle_ensure_open(&loop->idle);
    if (error != 0) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        loop_take_fatal_error(loop);
        return;
    }
    int old_fd = loop->main_thread ? compat_set_wakeup_fd(loop->idle.wake_w) : -1;
    if (PyErr_CheckSignals() < 0) {
        loop_take_error(loop);
    }
    if (loop->ready_len == 0 && !loop->abandoned
        && !(loop->interrupted && loop->phase == LOOP_RUNNING)) {
        int64_t began = clock_monotonic();
        loop->idling = 1;
        PyThreadState *tstate = PyEval_SaveThread();
        error = idle_wait(&loop->idle, deadline);
        PyEval_RestoreThread(tstate);
        loop->idling = 0;
        loop->real_idle += clock_monotonic() - began;
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

/* Nothing is ready: time must pass. */
static inline void
loop_idle(LoopObject *loop)
{
    int64_t when;
    if (!timeq_next(&loop->timers, &when)) {
        switch (loop_may_be_woken(loop)) {
        case 0:
            if (loop->ready_len == 0) {  /* still: that was Python code */
                loop_report_deadlock(loop);
            }
            break;
        case 1:
            loop_wait(loop, TIME_FOREVER);
            break;
        default:
            loop_take_fatal_error(loop);
        }
    }
    else if (loop->clock.mode == CLOCK_VIRTUAL) {
        clock_jump(&loop->clock, when);
    }
    else if (when > clock_now(&loop->clock)) {
        loop_wait(loop, clock_real_deadline(&loop->clock, when));
    }
}

/* ---- the run ------------------------------------------------------------------------------ */

static int
loop_is_over(LoopObject *loop)
{
    if (loop->main_only) {
        return task_done((TaskObject *)PyTuple_GET_ITEM(loop->roots, 0));
    }
    return loop->live_waited == 0;
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
        loop_make_ready(loop, TASK_OF_TIMER(timeq_pop(&loop->timers)));
        loop->wakeups++;
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
    if (timer == NULL) {
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
                loop_begin_cancel(loop, PyUnicode_FromString("the run is over"));
            }
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

/* Everything from the first step to the last. No error is set on return; they are in loop->errors. */
static void
loop_run_to_the_end(LoopObject *loop)
{
    do {
        loop_drive(loop);
        while (!loop->abandoned) {
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

/* ---- the result ------------------------------------------------------------------------------ */

/* Raises exc; every other error of the run is logged, as only one can be raised. */
static void
loop_raise_one(PyObject *errors, PyObject *exc)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(errors); i++) {
        PyObject *other = Py_NewRef(PyList_GET_ITEM(errors, i));
        if (other != exc) {
            log_exception(PyUnicode_FromFormat("an error of the run that ended with %s",
                                               Py_TYPE(exc)->tp_name),
                          other);
        }
        Py_DECREF(other);
    }
    PyErr_SetRaisedException(Py_NewRef(exc));
}

/* Raises what the run collected; a single error as it is. */
static void
loop_raise_errors(PyObject *errors)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(errors); i++) {
        PyObject *exc = PyList_GET_ITEM(errors, i);
        if (PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt)
            || PyErr_GivenExceptionMatches(exc, PyExc_SystemExit)) {
            loop_raise_one(errors, exc);
            return;
        }
    }
    if (PyList_GET_SIZE(errors) == 1) {
        PyErr_SetRaisedException(Py_NewRef(PyList_GET_ITEM(errors, 0)));
        return;
    }
    PyObject *message = PyUnicode_FromFormat("%zd tasks failed", PyList_GET_SIZE(errors));
    PyObject *group =
        message != NULL
            ? PyObject_CallFunctionObjArgs(PyExc_BaseExceptionGroup, message, errors, NULL)
            : NULL;
    Py_XDECREF(message);
    if (group != NULL) {
        PyErr_SetRaisedException(group);
    }
}

/* The results of the roots in the order given, or what went wrong. Steals both lists. */
static PyObject *
loop_result_steal(LoopObject *loop, PyObject *roots, PyObject *errors)
{
    PyObject *results = NULL;
    if (loop->interrupted) {
        PyObject *exc = PyObject_CallNoArgs(PyExc_KeyboardInterrupt);
        if (exc != NULL) {
            loop_raise_one(errors, exc);
            Py_DECREF(exc);
        }
    }
    else if (PyList_GET_SIZE(errors) > 0) {
        loop_raise_errors(errors);
    }
    else {
        results = PyList_New(PyTuple_GET_SIZE(roots));
        for (Py_ssize_t i = 0; results != NULL && i < PyTuple_GET_SIZE(roots); i++) {
            TaskObject *task = (TaskObject *)PyTuple_GET_ITEM(roots, i);
            PyObject *result = task_outcome(loop->state, task);
            if (result == NULL) {
                Py_CLEAR(results);
                break;
            }
            PyList_SET_ITEM(results, i, result);
        }
    }
    Py_DECREF(roots);
    Py_DECREF(errors);
    return results;
}

/* ---- before and after -------------------------------------------------------------------------- */

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
    loop->errors = PyList_New(0);
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
    loop->real_started = clock_monotonic();
    clock_start(&loop->clock);
    loop_run_to_the_end(loop);
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
