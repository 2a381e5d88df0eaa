/* scopeobject.h: what a cancel scope and a task group are; each field says owned or borrowed. */
#ifndef SLEEPLOOP_CORE_SCOPEOBJECT_H
#define SLEEPLOOP_CORE_SCOPEOBJECT_H

#include "../base/compat.h"
#include "../base/ring.h"
#include "../base/timerheap.h"
#include "objects.h"

enum scope_state { SCOPE_NEW, SCOPE_ENTERED, SCOPE_LEFT };

enum scope_flags {
    SCOPE_CANCELLED = 1 << 0,
    SCOPE_CAUGHT = 1 << 1,   /* a CancelledError of its own ended its block, or a task in it */
    SCOPE_SHIELD = 1 << 2,
    SCOPE_TIMEOUT = 1 << 3,  /* raises TimeoutError if its deadline ended its block */
    SCOPE_OF_TASK = 1 << 4,  /* what Task.cancel() cancels: around all that the task does, or
                                around a piece of it: see _piece_scope() */
    SCOPE_QUIET = 1 << 5,    /* it was taken off, as when its task ended; leaving it means nothing */
    SCOPE_LIMITED = 1 << 6,  /* it has, or had, a deadline, or one that reaches it from outside */
};

/* By what it was made, for messages; a TaskGroup's has its group. */
enum scope_maker { BY_CANCEL_SCOPE, BY_TIMEOUT, BY_TIMEOUT_AT, BY_MOVE_ON_AFTER, BY_MOVE_ON_AT };

/* What a deadline counts from. Anything but loop time becomes that on entering. */
enum deadline_kind { DEADLINE_AT, DEADLINE_AFTER, DEADLINE_WALL };

enum cancel_source {
    SOURCE_EXPLICIT,  /* cancel() */
    SOURCE_DEADLINE,
    SOURCE_FAILURE,   /* another task of the group failed */
    SOURCE_SHUTDOWN,  /* the run ends */
};

/* A node of the tree of scopes. Outwards, each holds the next; inwards, `inner` leads to
 * the innermost scope of the same task, and `tasks` to the tasks that were made in it,
 * whose own scopes lie further in. */
struct ScopeObject {
    PyObject_HEAD
    ScopeObject *parent;  /* owned while entered: the next outer scope, perhaps another task's */
    ScopeObject *inner;   /* borrowed: the next inner scope of the same task, or NULL */
    ScopeObject *cause;   /* borrowed: a cancelled scope, this or an outer one, that is in force
                             here, from which scope_cause() comes to the outermost; NULL: none is */
    TaskObject *task;     /* borrowed while entered; NULL in the loop's root */
    struct link tasks;    /* head: the tasks that were made in it, borrowed */
    int64_t passed;       /* the deadline that cancelled it */
    int64_t deadline;     /* nanoseconds; or microseconds since 1970 UTC (DEADLINE_WALL) */
    struct timer timer;   /* in the loop's heap while it has a deadline to wait for */
    uint8_t state;        /* enum scope_state */
    uint8_t flags;        /* enum scope_flags */
    uint8_t kind;         /* enum deadline_kind */
    uint8_t maker;        /* enum scope_maker */
    uint8_t source;       /* enum cancel_source, once it is cancelled; as are these: */
    PyObject *reason;     /* owned: what cancel() was given; or a str that says what happened; or,
                             until the block or the run is over, the exception of what failed */
    PyObject *by_name;    /* owned: the name of the task that did it, if it has one */
    uint32_t by_number;   /* and its number; 0: it was no task */
    int line;
    PyObject *code;       /* owned: the code object that cancel() was called from, or a str that
                             says it all, see scope_from_told(); or NULL */
    GroupObject *group;   /* borrowed: the TaskGroup whose scope it is, or NULL */
    ScopeObject *queued;  /* borrowed: the next whose tasks a change has yet to reach */
};

/* ---- TaskGroup ------------------------------------------------------------------------------- */

enum group_state { GROUP_NEW, GROUP_OPEN, GROUP_CLOSED };

struct GroupObject {
    PyObject_HEAD
    ScopeObject *scope;   /* owned */
    PyObject *errors;     /* owned: what has failed, a task or an exception, or a list of several;
                             NULL: nothing yet */
    TaskObject *leaving;  /* borrowed: the task that is parked at the end of its block, or NULL */
    size_t count;         /* tasks that have not finished */
    size_t starting;      /* calls of start() that are under way */
    uint8_t state;        /* enum group_state */
    uint8_t is_race;      /* its block ends with the first of its tasks: the others are cancelled */
    uint8_t gives_way;    /* an interrupt of the task that waits at its end cancels the others */
};

#define SCOPE_OF_TIMER(t) LINK_OWNER(t, ScopeObject, timer)

#endif /* SLEEPLOOP_CORE_SCOPEOBJECT_H */
