/* kinds.h: the table of what can be awaited: one row for each, which says how one waits there.
 *
 * Nobody else asks which awaitable it is that a task waits with: who needs to know something of it
 * asks its row. So a new thing to wait for is a file of its own, and a line in AWAIT_KINDS.
 */
#ifndef SLEEPLOOP_KINDS_H
#define SLEEPLOOP_KINDS_H

#include "state.h"

/* What park() comes to. */
enum parked {
    PARKED,        /* its task is in a ring or in the heap now, from which unpark() takes it */
    PARK_READY,    /* there is nothing to wait for any more: its task steps aside once */
    PARK_STOPPED,  /* its task has been cancelled or interrupted meanwhile, by Python that ran */
    PARK_FAILED,   /* an exception is set */
    PARK_REFUSED,  /* it has been misused: nobody can wait with it now */
};

/* What can wake a parked task besides the tasks of its loop and time. */
enum outside {
    OUTSIDE_NOTHING,
    OUTSIDE_SIGNAL,  /* a signal handler, for which it waits at a finite speed */
    OUTSIDE_THREAD,  /* any other thread, at a finite speed: by set(), put_nowait() and the like */
    OUTSIDE_WORK,    /* a thread is at work for it: virtual time stands still until it is done */
};

/* What a task is resumed with, see input() */
enum input { INPUT_SEND, INPUT_THROW, INPUT_NOT_YET };

/* A row. Of a function that is not there, "NULL:" says what holds instead. What may run Python says
 * so. */
struct await_kind {
    const char *function;    /* what makes it, for errors and reports: "sleep()" */
    uint8_t number;          /* enum await_kind_number */
    uint8_t is_sleep;        /* for traces: its task sleeps; else it is blocked by something */
    uint8_t reuses_end;      /* what it comes to may be kept until the next such end */
    uint8_t is_signal;       /* its task waits for a cancellation, which tells nothing else */

    /* The first send(): as am_send has it, by await_yield() if it has to wait. Beware: Python. */
    PySendResult (*begin)(ModuleState *state, Awaitable *self, PyObject **result);

    /* The next one, by the task that waits with it, in its loop. Beware: may run Python. */
    PySendResult (*resume)(Awaitable *self, LoopObject *loop, PyObject **result);

    /* Likewise after it has begun on a loop of others: `sent` is what that has sent. NULL: it cannot. */
    PySendResult (*resume_abroad)(Awaitable *self, PyObject *sent, PyObject **result);

    /* Something is thrown into it, or it is closed (exc: NULL), waiting or not. 1: so it has ended,
     * with exc; 0: it waits again; -1: with the exception that is set. None is when it is called.
     * Beware: may run Python. NULL: it ends. */
    int (*give_up)(Awaitable *self, PyObject *exc);

    /* It has ended, but there was no memory to hand over what it came to: that goes back. Steals
     * result, which is NULL if it did not get so far. NULL: it is dropped. Beware: may run Python. */
    void (*not_told)(Awaitable *self, PyObject *result_steal);

    /* Its task, whose payload it is already, is put where it waits. Beware: may run Python. */
    enum parked (*park)(Awaitable *self, LoopObject *loop, TaskObject *task);

    /* And is taken from there. NULL: there is nothing to do. */
    void (*unpark)(Awaitable *self, LoopObject *loop, TaskObject *task);

    /* Of a parked one that is `firm`: the task has got an interrupt, and has to wait all the same.
     * NULL: it gets it afterwards. */
    void (*interrupted)(Awaitable *self, LoopObject *loop, TaskObject *task);

    /* Of what others have made: what the coroutine is sent or thrown when its task goes on, a new
     * reference; or its task is parked anew. timed: a timer has fired. NULL: None. Beware: Python. */
    enum input (*input)(Awaitable *self, LoopObject *loop, TaskObject *task, int timed,
                        PyObject **input);

    /* ---- of a parked one, for whoever wants to know */

    /* What can wake its task from outside. NULL: nothing. */
    enum outside (*outside)(const Awaitable *self, const TaskObject *task);

    /* New str: "sleeping until 3.0 s". Beware: may run Python. */
    PyObject *(*describe)(Awaitable *self, LoopObject *loop);

    /* What it waits for, a new reference. NULL: itself. */
    PyObject *(*waits_on)(Awaitable *self);

    /* Loop time at which it is over, at the latest. NULL: it has none. 0, or -1 with an exception.
     * Beware: may run Python. */
    int (*wake_time)(Awaitable *self, LoopObject *loop, int64_t *when);

    /* Number of the one task that is waited for; 0: nobody knows. NULL: likewise. */
    uint32_t (*blocker)(const Awaitable *self);

    /* Its row of the graph of who waits for whom, (word, what), a new tuple; see waitgraph.h. NULL:
     * it waits for nothing that a certain task does. */
    PyObject *(*graph_row)(Awaitable *self);

    /* Name of what it waits at, borrowed, or NULL. NULL: it has none. */
    PyObject *(*name)(const Awaitable *self);

    /* The task that is the waiting one's own until it has started, borrowed, or NULL. NULL: none. */
    TaskObject *(*child)(const Awaitable *self);
};

/* ---- what is waited for by a Wait ------------------------------------------------------------ */

/* The rows of Locks, Queues and the like: all begin with WAIT_KIND(), and say more. Each type has
 * one for each of its methods that wait. Only `take`, `result`, `give_back`, `describe_object`,
 * `blockers` and `go_on` may run Python. */
struct wait_kind {
    struct await_kind await;

    /* Takes what is wanted if it can be had at once: 1; 0: it cannot, and nothing has changed;
     * -1 with an exception. Asked when the await begins, and once more when its task is about to
     * be parked: Python code may have run in between. Never called while others wait that come
     * first, unless it looks at them itself. */
    int (*take)(WaitObject *wait, LoopObject *loop, TaskObject *task);

    /* What the await comes to, once granted: a new reference, or NULL with an exception. If
     * there is no such function: the value, or None. */
    PyObject *(*result)(WaitObject *wait);

    /* Granted, but nobody will ever learn of it: its coroutine was closed, or did not pass the
     * wake-up on. Must not fail. NULL: nothing to do. */
    void (*give_back)(WaitObject *wait);

    /* A parked wait has been taken away: others may have waited for it only. Must not fail.
     * NULL: nothing to do. */
    void (*left)(WaitObject *wait);

    /* New str for reports: "Lock 'db' held by task 'writer' since 3.2 s". */
    PyObject *(*describe)(PyObject *object);

    /* Number of the one task that is waited for; 0: nobody knows. NULL: likewise. */
    uint32_t (*blocker)(const WaitObject *wait);

    /* Of a parked wait that has such a blocker: what that task has, borrowed, and since when, for
     * reports. NULL: describe() tells it all. */
    PyObject *(*held)(const WaitObject *wait, int64_t *since);

    /* What a parked wait will need besides what it waits for, borrowed. NULL: nothing. */
    SyncObject *(*needs)(const WaitObject *wait);

    /* Numbers of the tasks any of which may give back what is waited for, a new list of int; the
     * same for all that wait at the object with this kind. None, or an empty list: anybody may.
     * NULL with an exception. If there is no such function: likewise, or see `blocker`. */
    PyObject *(*blockers)(PyObject *object);

    /* Parks in an order of its own: 0, or -1 with an exception. NULL: at the end of `place`. */
    int (*park)(WaitObject *wait, TaskObject *task);
    void (*unpark)(WaitObject *wait, TaskObject *task);

    /* The await goes on after it has been granted, or after `exc` was thrown into it, which is
     * borrowed: 1: it has ended (with exc, if there was one), 0: it waits again, -1 with an
     * exception. NULL: it ends. */
    int (*resume)(WaitObject *wait, LoopObject *loop, TaskObject *task, PyObject *exc);
};

/* ---- the table ------------------------------------------------------------------------------- */

#define AWAIT_KINDS(ROW)                                                                       \
    ROW(sleep_kind)                                                                            \
    ROW(sleep_until_kind)                                                                      \
    ROW(sleep_until_wall_kind)                                                                 \
    ROW(sleep_forever_kind)                                                                    \
    ROW(checkpoint_kind)                                                                       \
    ROW(until_cancelled_kind)                                                                  \
    ROW(thread_kind)                                                                           \
    ROW(moment_kind)                                                                           \
    ROW(tick_kind)                                                                             \
    ROW(join_kind)                                                                             \
    ROW(wait_done_kind)                                                                        \
    ROW(group_end_kind)                                                                        \
    ROW(group_start_kind)                                                                      \
    ROW(event_wait_kind)                                                                       \
    ROW(future_kind)                                                                           \
    ROW(lock_acquire_kind)                                                                     \
    ROW(lock_enter_kind)                                                                       \
    ROW(condition_acquire_kind)                                                                \
    ROW(condition_enter_kind)                                                                  \
    ROW(condition_wait_kind)                                                                   \
    ROW(condition_wait_for_kind)                                                               \
    ROW(barrier_wait_kind)                                                                     \
    ROW(barrier_enter_kind)                                                                    \
    ROW(semaphore_acquire_kind)                                                                \
    ROW(semaphore_enter_kind)                                                                  \
    ROW(limiter_acquire_kind)                                                                  \
    ROW(limiter_acquire_for_kind)                                                              \
    ROW(limiter_enter_kind)                                                                    \
    ROW(queue_put_kind)                                                                        \
    ROW(queue_get_kind)                                                                        \
    ROW(queue_next_kind)                                                                       \
    ROW(queue_join_kind)                                                                       \
    ROW(send_kind)                                                                             \
    ROW(receive_kind)                                                                          \
    ROW(receive_next_kind)                                                                     \
    ROW(request_kind)                                                                          \
    ROW(container_put_kind)                                                                    \
    ROW(container_get_kind)                                                                    \
    ROW(store_put_kind)                                                                        \
    ROW(store_get_kind)

#define ROW_NUMBER(row) row##_number
#define ROW_NUMBER_LISTED(row) ROW_NUMBER(row),
#define ROW_LISTED(row) [ROW_NUMBER(row)] = (const struct await_kind *)&row,

enum await_kind_number { AWAIT_KINDS(ROW_NUMBER_LISTED) N_AWAIT_KINDS };

/* What each row begins with, and that of a Wait. */
#define AWAIT_KIND(row, made_by) .function = (made_by), .number = ROW_NUMBER(row)

/* Filled at the end of the translation unit, when all rows are known. */
static const struct await_kind *const await_kinds[N_AWAIT_KINDS];

static inline const struct await_kind *
await_kind(const Awaitable *self)
{
    return await_kinds[self->kind];
}

/* The awaitable that a parked task waits with, borrowed; NULL: it is not parked, or the collector
 * has been here. */
static inline Awaitable *
task_await_borrowed(const TaskObject *task)
{
    return task->state == TASK_PARKED ? (Awaitable *)task->payload : NULL;
}

static inline enum outside
task_outside(const TaskObject *task)
{
    const Awaitable *await = task_await_borrowed(task);
    return await != NULL && await_kind(await)->outside != NULL
               ? await_kind(await)->outside(await, task)
               : OUTSIDE_NOTHING;
}

/* Parked where a cancellation takes it away. */
static inline int
task_interruptible(const TaskObject *task)
{
    return task->state == TASK_PARKED && !((const Awaitable *)task->payload)->firm;
}

#endif /* SLEEPLOOP_KINDS_H */
