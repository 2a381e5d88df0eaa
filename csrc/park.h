/* park.h: where a task waits, by what its coroutine yielded.
 *
 * Knows what may be yielded and which ring or heap that means; whether the clock
 * then moves is the run's business.
 */
#ifndef SLEEPLOOP_PARK_H
#define SLEEPLOOP_PARK_H

#include "interrupt.h"

/* Any trap of a cancelled task: it will raise CancelledError. Steals trap. */
static void
park_cancelled(LoopObject *loop, TaskObject *task, PyObject *trap_steal)
{
    task->payload = trap_steal;
    task->flags |= TASK_THROW_CANCEL;
    loop_make_ready(loop, task);
}

/* Likewise when it has been interrupted. */
COLD static void
park_interrupted(LoopObject *loop, TaskObject *task, PyObject *trap_steal)
{
    PyObject *exc = interrupts_take(loop, task);
    loop_throw_next(loop, task, exc != NULL ? exc : PyErr_GetRaisedException());
    Py_DECREF(trap_steal);
}

/* Whichever of the two it is. */
static inline void
park_refused(LoopObject *loop, TaskObject *task, PyObject *trap_steal)
{
    if (task->flags & TASK_CANCELLING) {
        park_cancelled(loop, task, trap_steal);
    }
    else {
        park_interrupted(loop, task, trap_steal);
    }
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
        loop->live_forever += (size_t)sleep_may_be_signalled(loop->state, trap_steal);
        loop->threads += (size_t)sleep_is_for_thread(loop->state, trap_steal);
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

/* Likewise until a moment of the loop's wall clock, which may be the system's. Steals trap. */
static void
park_until_wall(LoopObject *loop, TaskObject *task, int64_t wall, PyObject *trap_steal)
{
    if (loop->wall_is_system) {
        if (loop->wall_sleepers == 0) {
            loop->wall_lead = loop_wall_lead(loop);
        }
        loop->wall_sleepers++;
        task->flags |= TASK_WALL;
    }
    park_until(loop, task, clock_now(&loop->clock), loop_time_of_wall(loop, wall), trap_steal);
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
        chain_push(&target->waiters, &task->link);
    }
}

/* Until the new task says that it has started, or ends. Steals trap. */
static void
park_start(LoopObject *loop, TaskObject *task, PyObject *trap_steal)
{
    StartObject *start = (StartObject *)trap_steal;
    task->payload = trap_steal;
    if (start->task == NULL || start->value != NULL || task_done(start->task)) {
        loop_make_ready(loop, task);
    }
    else {
        task->state = TASK_START;
        chain_push(&start->task->waiters, &task->link);
    }
}

/* At its place, unless what it waits for can be had meanwhile. Steals trap. Beware: the second
 * question may run Python, which may cancel the task, or end the wait. */
static void
park_wait(LoopObject *loop, TaskObject *task, PyObject *trap_steal)
{
    WaitObject *wait = (WaitObject *)trap_steal;
    int taken = wait->outcome == WAIT_OPEN ? wait->kind->take(wait, loop, task) : 1;
    if (taken == 0 && wait->outcome != WAIT_OPEN) {
        taken = 1;
    }
    if (taken == 0 && task_is_stopped(task) && !wait->firm) {  /* by Python that it ran */
        park_refused(loop, task, trap_steal);
        return;
    }
    if (taken == 0) {
        task->payload = trap_steal;
        task->state = wait->firm ? TASK_REGAIN : TASK_WAIT;
        if (wait_park(wait, task) == 0) {
            return;
        }
        task->state = TASK_RUNNING;
        task->payload = NULL;
        taken = -1;
    }
    if (taken < 0) {
        trap_error_is_no_end(wait->kind->function, PyExc_StopIteration);
        loop_throw_next(loop, task, PyErr_GetRaisedException());
        Py_DECREF(trap_steal);
        return;
    }
    if (wait->outcome == WAIT_OPEN) {
        wait->outcome = WAIT_GRANTED;
    }
    task->payload = trap_steal;
    loop_make_ready(loop, task);
}

/* Until the group is empty. Steals trap. */
static void
park_leave(LoopObject *loop, TaskObject *task, PyObject *trap_steal)
{
    GroupObject *group = ((LeaveObject *)trap_steal)->group;
    task->payload = trap_steal;
    if (group->count == 0 && group->starting == 0) {
        loop_make_ready(loop, task);
    }
    else {
        task->state = TASK_LEAVE;
        group->leaving = task;
        if (task->flags & TASK_INTERRUPTED) {
            leave_interrupted(loop, task);
        }
    }
}

/* Steals trap. Beware: the conversion may run a time zone's Python. */
static void
park_datetime(LoopObject *loop, TaskObject *task, PyObject *trap_steal)
{
    int64_t wall;
    if (wall_from_deadline(loop->state, trap_steal, &wall) < 0) {
        loop_throw_next(loop, task, PyErr_GetRaisedException());
        Py_DECREF(trap_steal);
        return;
    }
    if (task_is_stopped(task)) {  /* by that Python */
        park_refused(loop, task, trap_steal);
        return;
    }
    park_until_wall(loop, task, wall, trap_steal);
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
    const char *hint = "; await one of sleeploop's own awaitables, or yield a datetime or None";
    PyTypeObject *type = Py_TYPE(obj_steal);
    if (type == loop->state->SleepType || type == loop->state->NextTickType
        || type == loop->state->JoinType || is_wait(loop->state, obj_steal)
        || type == loop->state->StartType || type == loop->state->LeaveType) {
        hint = "; 'await' it, once and on this loop, instead of yielding it";
        awaitable_excuse(loop->state, obj_steal);  /* the TypeError says more */
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

enum trap_kind {  /* those before TRAP_OF_NONE are ours */
    TRAP_OF_SLEEP,
    TRAP_OF_TICK,
    TRAP_OF_JOIN,
    TRAP_OF_WAIT,
    TRAP_OF_START,
    TRAP_OF_LEAVE,
    TRAP_OF_NONE,
    TRAP_OF_DATETIME,
    TRAP_UNKNOWN,
};

/* A trap of ours counts only while it waits, here, and for this task: anybody may yield one. */
static inline enum trap_kind
classify_yield(LoopObject *loop, TaskObject *task, PyObject *obj)
{
    ModuleState *state = loop->state;
    if (Py_TYPE(obj) == state->SleepType) {
        SleepObject *sleep = (SleepObject *)obj;
        return sleep->state == TRAP_WAITING
                       && (sleep->step == loop->steps || sleep_is_of(sleep, loop, task))
                   ? TRAP_OF_SLEEP
                   : TRAP_UNKNOWN;
    }
    if (Py_TYPE(obj) == state->NextTickType) {
        NextTickObject *next = (NextTickObject *)obj;
        return next->state == TRAP_WAITING && next->every->loop_number == loop->number
                       && next->task_number == task->number
                   ? TRAP_OF_TICK
                   : TRAP_UNKNOWN;
    }
    if (Py_TYPE(obj) == state->JoinType) {
        JoinObject *join = (JoinObject *)obj;
        return join->state == TRAP_WAITING && join->task != task
                       && join->loop_number == loop->number && join->task_number == task->number
                   ? TRAP_OF_JOIN
                   : TRAP_UNKNOWN;
    }
    if (is_wait(state, obj)) {
        WaitObject *wait = (WaitObject *)obj;
        return wait->state == TRAP_WAITING && wait->task == task && !wait->parked
                       && wait->object->loop_number == loop->number
                   ? TRAP_OF_WAIT
                   : TRAP_UNKNOWN;
    }
    if (obj == Py_None) {
        return TRAP_OF_NONE;
    }
    if (Py_TYPE(obj) == state->LeaveType) {
        LeaveObject *leave = (LeaveObject *)obj;
        return leave->state == TRAP_WAITING && leave->group->scope->task == task ? TRAP_OF_LEAVE
                                                                                 : TRAP_UNKNOWN;
    }
    if (Py_TYPE(obj) == state->StartType) {
        StartObject *start = (StartObject *)obj;
        return start->state == TRAP_WAITING && start->starter == task ? TRAP_OF_START
                                                                      : TRAP_UNKNOWN;
    }
    return is_datetime(state, obj) ? TRAP_OF_DATETIME : TRAP_UNKNOWN;
}

/* Whether a trap of a cancelled or interrupted task raises that. Waiting for tasks of its own
 * goes on: they are cancelled as well, and nothing is to outlive their block. */
static inline int
trap_is_cancelled(enum trap_kind kind, PyObject *trap)
{
    return kind != TRAP_UNKNOWN && kind != TRAP_OF_LEAVE
           && (kind != TRAP_OF_WAIT || !((WaitObject *)trap)->firm)
           && (kind != TRAP_OF_START || ((StartObject *)trap)->task == NULL);
}

/* What time it is, for a wait that has begun in this step. One that was begun by hand in an earlier
 * step may be over by now: a timer for it would seem to be late. */
static inline int64_t
wait_began(const LoopObject *loop, uint64_t step, int64_t started)
{
    return step == loop->steps ? started : clock_now(&loop->clock);
}

/* Of a task to which something is to be raised: 1, and that will come instead of what it has
 * yielded, whose reference is stolen; 0: it is put where that says all the same. */
COLD static int
park_stopped(LoopObject *loop, TaskObject *task, enum trap_kind kind, PyObject *trap)
{
    if (task->flags & TASK_LATE) {
        loop_cancel_late(loop, task);
    }
    if (!task_is_stopped(task) || !trap_is_cancelled(kind, trap)) {
        return 0;
    }
    park_refused(loop, task, trap);
    trace_park(loop, task, kind < TRAP_OF_NONE);
    return 1;
}

/* Puts a running task where what it yielded says. Steals trap. */
static inline void
loop_park(LoopObject *loop, TaskObject *task, PyObject *trap_steal)
{
    enum trap_kind kind = classify_yield(loop, task, trap_steal);
    if ((task->flags & (TASK_CANCELLING | TASK_INTERRUPTED | TASK_LATE))
        && park_stopped(loop, task, kind, trap_steal)) {
        return;
    }
    switch (kind) {
    case TRAP_OF_SLEEP: {
        SleepObject *sleep = (SleepObject *)trap_steal;
        if (sleep->kind == SLEEP_UNTIL_WALL) {
            park_until_wall(loop, task, sleep->time, trap_steal);
            break;
        }
        park_until(loop, task, wait_began(loop, sleep->step, sleep->started),
                   sleep_deadline(loop, sleep), trap_steal);
        break;
    }
    case TRAP_OF_TICK: {
        NextTickObject *next = (NextTickObject *)trap_steal;
        park_until(loop, task, wait_began(loop, next->step, next->started), next->due, trap_steal);
        break;
    }
    case TRAP_OF_JOIN:
        park_join(loop, task, trap_steal);
        break;
    case TRAP_OF_WAIT:
        park_wait(loop, task, trap_steal);
        break;
    case TRAP_OF_START:
        park_start(loop, task, trap_steal);
        break;
    case TRAP_OF_LEAVE:
        park_leave(loop, task, trap_steal);
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
    trace_park(loop, task, kind < TRAP_OF_NONE);
}

#endif /* SLEEPLOOP_PARK_H */
