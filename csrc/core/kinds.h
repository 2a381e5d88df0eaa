/* kinds.h: the table of what can be awaited: one row for each, which says how one waits there.
 *
 * Nobody else asks which awaitable it is that a task waits with: who needs to know something of it
 * asks its row. So a new thing to wait for is a file of its own, and a line in AWAIT_KINDS.
 */
#ifndef SLEEPLOOP_CORE_KINDS_H
#define SLEEPLOOP_CORE_KINDS_H

#include "../base/compat.h"
#include "objects.h"
#include "taskobject.h"

/* ---- Awaitables ------------------------------------------------------------------------------ */

enum await_state { AWAIT_NEW, AWAIT_WAITING, AWAIT_ABROAD, AWAIT_DONE };

/* What everything begins with that is awaited here. How it waits is said by its kind, a row of the
 * table below; a kind is a byte, so that a Sleep fits into 48. */
#define AWAIT_HEAD                                                                             \
    PyObject_HEAD                                                                              \
    int64_t since;         /* while WAITING: loop time when it began, as are these: */         \
    uint32_t loop_number;  /* the loop (its last 32 bits) */                                   \
    uint32_t task_number;  /* the task that waits; 0: none, as in a callback */                \
    uint8_t kind;          /* enum await_kind_number */                                        \
    uint8_t state;         /* enum await_state; ABROAD: on a loop that is not ours */          \
    uint8_t excused;       /* see await_excuse() */                                            \
    uint8_t firm;          /* no cancellation takes a task that is parked by it away */        \
    uint8_t phase;         /* of its kind */

struct Awaitable {
    AWAIT_HEAD
};

/* ---- how one waits ---------------------------------------------------------------------------- */

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

/* The row of an awaitable, or of what begins with one. */
#define await_kind(self) (await_kinds[(self)->kind])

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

#endif /* SLEEPLOOP_CORE_KINDS_H */
