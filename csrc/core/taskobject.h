/* taskobject.h: what a task is; each field says owned or borrowed. */
#ifndef SLEEPLOOP_CORE_TASKOBJECT_H
#define SLEEPLOOP_CORE_TASKOBJECT_H

#include "../base/compat.h"
#include "../base/ring.h"
#include "../base/timerheap.h"
#include "objects.h"

/* What an exception had when it was handed over to be raised later: each owned, or NULL. */
struct raised {
    PyObject *traceback, *context;
};

/* Where a task stands. Its payload means something else in each state. */
enum task_state {
    TASK_READY,      /* in the loop's ready ring; payload: what let it go or what it is cancelled
                        from, an Awaitable; the exception to throw (TASK_THROW); or NULL */
    TASK_RUNNING,    /* its step is on the C stack; payload: NULL, or what is about to park it */
    TASK_PARKED,     /* where its payload says, an Awaitable; see struct await_kind */
    TASK_RETURNED,   /* done; payload: the result */
    TASK_FAILED,     /* done; payload: the exception */
    TASK_CANCELLED,  /* done; payload: the scope whose cancellation ended it, or NULL */
};

enum task_flags {
    TASK_STARTED = 1 << 0,
    TASK_ROOT = 1 << 1,       /* given to the loop; its failure ends the run */
    TASK_DAEMON = 1 << 2,     /* no run waits for it */
    TASK_HIDDEN = 1 << 3,     /* the loop's own: nobody sees it, and nothing cancels it */
    TASK_CANCELLING = 1 << 4, /* its scope has a cause: every await raises CancelledError */
    TASK_THROW = 1 << 5,      /* ready, and the payload is to be thrown */
    TASK_THROW_CANCEL = 1 << 6, /* ready, and a CancelledError is to be thrown */
    TASK_TIMED = 1 << 7,        /* ready because a timer fired */
    TASK_STARTING = 1 << 8,     /* TaskGroup.start() made it and still waits for started() */
    TASK_WALL = 1 << 9,         /* parked until a moment of the system's wall clock, or ready
                                   since; counted in loop->wall_sleepers */
    TASK_INTERRUPTED = 1 << 10, /* interrupt() has been called, and it has not been raised yet */
    TASK_ACTS = 1 << 11,        /* what it waits for is to be its parent's */
    TASK_TORN = 1 << 12,        /* a block that it had entered has been left by somebody else */
    TASK_LIMITED = 1 << 13,     /* its scope has SCOPE_LIMITED */
    TASK_LATE = 1 << 14,        /* it has seen at an await that such a deadline has passed */
    TASK_CLOSER = 1 << 15,      /* hidden: it closes an async generator; counted in loop->closers */
    TASK_CALLS_BACK = 1 << 15,  /* not hidden: it has some of loop->callbacks; as no flag is left */
};

struct TaskObject {
    PyObject_HEAD
    /* What a wake-up touches stands together, in one or two cache lines. */
    PyObject *coro;          /* owned */
    PyObject *context;       /* owned: this task's copy; NULL: that of whoever drives the loop */
    PyObject *payload;       /* owned; see task_state */
    union {
        struct link link;    /* in the ready ring, in the joined task's `waiters`, or in a waitlist */
        struct raised raised;  /* TASK_FAILED: of its exception, as the coroutine left it */
    };
    struct timer timer;      /* in the loop's heap, or a Resource's, while it is parked there */
    uint8_t state;           /* enum task_state */
    uint8_t locks;           /* that it has, or more; LOCKS_MANY: that nobody counts any more */
    uint16_t flags;          /* enum task_flags */
    uint32_t number;
    uint32_t parent;         /* number of the task that made it, or for which it acts, or 0 */
    LoopObject *loop;        /* owned; NULL once the collector cleared either */
    PyObject *name;          /* owned; NULL: "Task-<number>" */
    PyObject *weakrefs;
    ScopeObject *scope;      /* owned while live: the innermost scope around it; NULL: none,
                                as of the loop's own tasks, and when it is done */
    struct link *waiters;    /* chain: the tasks that join this one, borrowed */
    struct link registered;  /* live: in loop->live, which owns a reference to the task;
                                failed and not retrieved: in loop->unseen, borrowed */
    struct link sibling;     /* live: among the tasks of the scope that it was made in */
};

#define LOCKS_MANY UINT8_MAX

/* Number of the task whose a lock or the like is to be that this one is given. */
static inline uint32_t
task_owner_number(const TaskObject *task)
{
    return task->flags & TASK_ACTS ? task->parent : task->number;
}

static inline int
task_done(const TaskObject *task)
{
    return task->state >= TASK_RETURNED;
}

/* Whether a cancellation or an interrupt is to be raised at the task's next await. */
static inline int
task_is_stopped(const TaskObject *task)
{
    return (task->flags & (TASK_CANCELLING | TASK_INTERRUPTED)) != 0;
}

#define TASK_OF_LINK(l) LINK_OWNER(l, TaskObject, link)
#define TASK_OF_REGISTERED(l) LINK_OWNER(l, TaskObject, registered)
#define TASK_OF_SIBLING(l) LINK_OWNER(l, TaskObject, sibling)
#define TASK_OF_TIMER(t) LINK_OWNER(t, TaskObject, timer)

#endif /* SLEEPLOOP_CORE_TASKOBJECT_H */
