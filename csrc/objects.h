/* objects.h: the structs that more than one part needs; each field says owned or borrowed. */
#ifndef SLEEPLOOP_OBJECTS_H
#define SLEEPLOOP_OBJECTS_H

#include "clock.h"
#include "idle.h"
#include "lateness.h"
#include "readyq.h"
#include "schedule.h"
#include "shuffle.h"
#include "timeq.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct ModuleState ModuleState;
typedef struct LoopObject LoopObject;
typedef struct TaskObject TaskObject;
typedef struct ScopeObject ScopeObject;
typedef struct GroupObject GroupObject;

/* ---- Task ------------------------------------------------------------------------------------ */

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

/* What an exception had when it was handed over to be raised later: each owned, or NULL. */
struct raised {
    PyObject *traceback, *context;
};

/* Something that has failed, other than a task, and nobody has seen it: in loop->unseen_others. */
struct unseen {
    struct link link;
    void (*report)(LoopObject *loop, struct unseen *self);  /* and takes it out */
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
        struct link link;    /* in the ready ring, in the joined task's `waiters`, or at a place */
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

/* ---- CancelScope ----------------------------------------------------------------------------- */

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

/* ---- Awaitables ------------------------------------------------------------------------------ */

enum await_state { AWAIT_NEW, AWAIT_WAITING, AWAIT_ABROAD, AWAIT_DONE };

/* What everything begins with that is awaited here. How it waits is said by its kind, a row of the
 * table in kinds.h; a kind is a byte, so that a Sleep fits into 48. */
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

typedef struct {
    AWAIT_HEAD
} Awaitable;

/* sleep(), sleep_until(), sleep_forever(), checkpoint(). Holds no object but its type, which the
 * collector does not see, as that would cost a tenth of each sleep; so one that lies in the module,
 * or waits in a task of a suspended loop that does, keeps the module. As a rule it lives for one
 * await. The same holds for a NextTick. */
typedef struct {
    AWAIT_HEAD         /* phase, until a datetime: whether that had a time zone */
    int64_t time;      /* nanoseconds to sleep; until: loop time in nanoseconds; until a datetime:
                          microseconds since 1970 UTC */
} SleepObject;

/* A datetime that a coroutine has yielded, as those of the teaching example do. */
typedef struct {
    AWAIT_HEAD
    int64_t wall;        /* the same in microseconds since 1970 UTC */
    PyObject *datetime;  /* owned */
} MomentObject;

enum missed_policy { MISSED_SKIP, MISSED_BURST, MISSED_DELAY };

typedef struct EveryObject EveryObject;

/* One await of an Every. What it will give is decided when it begins; see every.h. */
typedef struct {
    AWAIT_HEAD
    EveryObject *every;    /* owned */
    uint64_t index;        /* while WAITING: of the tick to come */
    int64_t due;           /* likewise: loop time */
} NextTickObject;

/* every(). Holds no object either; what waits for it holds it. */
struct EveryObject {
    PyObject_HEAD
    struct schedule schedule;
    uint64_t next;          /* index of the first tick that has not come */
    NextTickObject *waiter; /* borrowed: the await that is under way, or NULL */
    NextTickObject *spare;  /* owned: memory for the next one, no object now; or NULL */
    uint64_t loop_number;   /* of the loop it has begun on; 0: of none yet */
    double period;          /* seconds */
    int64_t start;          /* as a deadline of this kind: */
    uint8_t start_kind;     /* enum deadline_kind */
    uint8_t missed;         /* enum missed_policy */
};

typedef struct {
    PyObject_HEAD
    uint64_t index;
    int64_t due;       /* loop time, nanoseconds */
    int64_t lateness;  /* nanoseconds */
    uint64_t missed;
} TickObject;

/* `await task` */
typedef struct {
    AWAIT_HEAD
    TaskObject *task;    /* owned */
} JoinObject;

/* The end of `async with TaskGroup()` */
typedef struct {
    AWAIT_HEAD
    uint8_t is_own;      /* at the end of the body the group's own cancellation was in force */
    uint8_t is_other;    /* or that of a scope further out */
    GroupObject *group;  /* owned */
    PyObject *exc;       /* owned: what the block raised, or NULL */
} LeaveObject;

/* `await group.start(function, *args)` */
typedef struct {
    AWAIT_HEAD
    uint8_t is_counted;  /* in the group's `starting` */
    uint8_t has_started; /* started() has been called */
    GroupObject *group;  /* owned */
    PyObject *call;      /* owned: (function, args) until it is called */
    TaskObject *task;    /* owned: the new task while it is waited for */
    TaskObject *starter; /* owned: the task that waits, while it does */
    PyObject *value;     /* owned: what started() was given */
} StartObject;

/* An awaitable that has its value already: `async with` something that need not wait. */
typedef struct {
    PyObject_HEAD
    PyObject *value;  /* owned; NULL: awaited */
    int is_shared;    /* the one of all that need not wait and come to None: awaited many times */
    void (*take_back)(PyObject *value);  /* if it cannot be handed over; NULL: nothing to do */
} InstantObject;

typedef struct {
    PyBaseExceptionObject base;
    ScopeObject *scope;  /* owned: whose cancellation it is; NULL: of no scope's */
} CancelledErrorObject;

/* ---- Waiting on each other -------------------------------------------------------------------- */

/* Where tasks wait for one and the same thing, in the order in which they get it. */
struct place {
    struct link tasks;  /* head: parked here, borrowed; the payload of each is the Wait by which
                           it is */
    size_t count;
};

/* What every object begins with that tasks wait at. The rest of its struct is with its type:
 * nothing else needs to know. */
#define SYNC_HEAD                                                                              \
    PyObject_HEAD                                                                              \
    PyObject *name;        /* owned exact str; NULL: none */                                   \
    PyObject *weakrefs;                                                                        \
    uint64_t loop_number;  /* of the loop whose tasks used it last; 0: none yet */             \
    size_t parked;         /* tasks that wait here, at whichever of its places */          \
    size_t held;           /* what tasks of that loop have of it and will give back */

typedef struct {
    SYNC_HEAD
} SyncObject;

/* And what a Lock begins with: the loop finds those that a task has when it ends. */
#define OWNED_HEAD                                                                             \
    SYNC_HEAD                                                                                  \
    struct place place;                                                                        \
    struct link link;    /* in the ring `locks` of the loop that used it last, unless that is  \
                            gone or it is broken */                                            \
    PyObject *left_by;   /* owned: name of the task that has ended with it, or Py_None; NULL: \
                            none has */                                                        \
    uint32_t owner;      /* number of the task that has it, of the loop of `loop_number`; 0:   \
                            none has; OWNER_GONE: it is broken, none ever will */              \
    uint64_t turn;       /* how often it has been had; a wait's `number` is which it was */    \
    uint64_t untold;     /* the turn that was handed over and whose task has not learned of it */

#define OWNER_GONE UINT32_MAX

typedef struct {
    OWNED_HEAD
} OwnedObject;

typedef struct WaitObject WaitObject;

enum wait_outcome {
    WAIT_OPEN,     /* nothing has come of it yet */
    WAIT_GRANTED,  /* it has what it waited for; or `value` is that */
    WAIT_FAILED,   /* it will raise `value` */
    WAIT_REFUSED,  /* its kind's result() says why, for which there may have been no memory */
};

/* `await lock.acquire()` and its like; see waitobject.h. */
struct WaitObject {
    AWAIT_HEAD
    uint8_t outcome;     /* enum wait_outcome */
    uint8_t taken;       /* GRANTED, and the task has learned of it */
    uint8_t parked;
    SyncObject *object;  /* owned; see also wait_move() */
    PyObject *value;     /* owned: what is brought, or what has been got; or NULL */
    struct place *place; /* in `object`: where it waits, or would; NULL: its kind parks it */
    TaskObject *task;    /* borrowed while WAITING, for comparison alone unless it is parked */
    double number;       /* of its kind: how much, how urgent, which */
};

/* ---- SleepingLoop ---------------------------------------------------------------------------- */

enum loop_phase {
    LOOP_NEW,        /* made, or not even initialised */
    LOOP_SUSPENDED,  /* between two calls of run_until() or step() */
    LOOP_RUNNING,
    LOOP_CANCELLING, /* everything has been cancelled and runs its cleanup */
    LOOP_FINALIZING, /* no task is left; async generators are being closed */
    LOOP_CLOSED,
};

/* What a call drives the loop to. */
enum loop_goal {
    GOAL_END,   /* the end of the run */
    GOAL_TIME,  /* the clock's limit */
    GOAL_TASK,  /* the end of a task */
    GOAL_PASS,  /* the end of one pass, without waiting */
    GOAL_PAUSE, /* _pause(), or else the clock's limit */
};

/* The thread of watchdog.h; the atomic fields are read there without the GIL. */
struct watchdog {
    pthread_t thread;
    PyInterpreterState *interpreter;  /* borrowed: of the run */
    struct idle idle;                 /* how the thread waits, and is woken */
    int running;
    _Atomic int stop;
    _Atomic int64_t end_began;        /* monotonic: when the run began to end; 0: it has not */
    int64_t reported_step;            /* step_began of the last slow step that was reported */
};

#define POOL_NOTED 32  /* as many threads as a pool has at most, unless Python changes its mind */

/* The threads that to_thread() works in; see sleeploop/_threads.py. */
struct pool {
    PyObject *executor;  /* owned; NULL: nothing yet */
    size_t calls;        /* that have not ended: no other thing can have a thread of it call in */
    size_t n_threads;
    uint64_t threads[POOL_NOTED];  /* ids of their thread states, which no other ever has */
};

enum { LOOP_HALF_MADE = 1, LOOP_MADE = 2 };  /* __init__() is under way; is over */

struct LoopObject {
    PyObject_HEAD
    ModuleState *state;     /* borrowed from the module, which the type keeps; may be gone
                               when the interpreter ends, so not for dealloc or clear */

    /* What every pass looks at. */
    enum loop_phase phase;
    enum loop_goal goal;
    uint8_t initialised;    /* 0, LOOP_HALF_MADE or LOOP_MADE */
    uint8_t main_only;      /* run(): the first root's end is the run's end */
    uint8_t main_thread;    /* the run is where Python's signal handlers run */
    uint8_t interrupted;    /* Ctrl-C came */
    uint8_t abandoned;      /* it came twice, or cleanup cannot go on: stop right away */
    uint8_t idling;         /* inside the idle wait, without the GIL */
    uint8_t stalled;        /* a task is waited for, and nothing can ever wake one */
    uint8_t hopes;          /* it waits as another thread may do something, and looks again and
                               again whether there is one */
    uint8_t paused;         /* the loop is to be suspended after this pass */
    uint8_t refuses;        /* no task was left: nobody can hand it a call any more */
    uint8_t tells;          /* `wakeup` has not been called since the last step() or the like began */
    uint8_t has_told_end;   /* its clock has come to its end, which has ended the run */
    uint8_t wall_is_system; /* now() is the system's wall clock */
    uint8_t debug;          /* each task remembers where it was made; slow steps are logged */
    uint8_t has_left_locks; /* some of `locks` may have been left by a task that has ended */
    uint8_t callbacks_due;  /* some of `calls` are of tasks that have ended: they come before time
                               passes, and before those who waited for the tasks */
    PyThreadState *tstate;  /* borrowed: the thread that runs the loop, or NULL */
    uint64_t tstate_id;     /* of tstate: after a fork another thread may have its address */
    struct link begun;      /* in the module's ring of that name */
    TaskObject *current;    /* borrowed: the task whose step is under way, or NULL */
    struct clock clock;
    struct timeq timers;
    struct link ready;      /* tasks, borrowed from `live`, first in first out */
    size_t ready_len;
    Awaitable *awaited;     /* borrowed: what has begun to wait last in the step under way, or NULL */
    struct link live;       /* every unfinished task, owned, in order of creation */
    TaskObject *found;      /* borrowed: the one of them that loop_find_task() found last, or NULL */
    size_t live_waited;     /* live tasks that the run waits for: no daemons */
    PyObject *calls;        /* owned list of what is to be called in the next pass: what
                               call_soon_threadsafe() was given, callbacks; NULL: nothing */
    struct shuffle *shuffle; /* owned; NULL: first in, first out */
    struct trace *trace;    /* owned, see trace.h; NULL: not traced */
    struct link locks;      /* the Locks that its tasks use, borrowed */
    size_t closers;         /* live tasks that close an async generator */
    size_t threads;         /* parked tasks for which a thread is at work */
    size_t wall_sleepers;   /* live tasks with TASK_WALL */
    int64_t strict;         /* how far the loop may lag; TIME_FOREVER: as it likes */
    int64_t lag;            /* how late the oldest of the timers was that fired in this pass */
    _Atomic int64_t step_began;  /* monotonic, in a debug run: of the step under way; 0: none */
    uint64_t steps;         /* so far */
    uint64_t wakeups;
    uint64_t looked;        /* the step in which a Lock last looked at the time, and that time: */
    int64_t looked_at;

    /* Time. */
    int64_t wall_origin;    /* loop time 0, in microseconds since 1970 UTC */
    int64_t wall_lead;      /* by how much the system's wall clock was ahead of loop time when
                               the first of wall_sleepers was parked; nanoseconds */
    struct link stopwatches; /* head: of the objects that count its time, borrowed */
    struct lateness late;
    int64_t real_started, real_idle, real_total; /* monotonic nanoseconds, for stats() */
    int64_t idle_began;     /* likewise, while `idling` */
    uint64_t steps_before, wakeups_before;  /* at the last reset_stats() */

    /* Tasks, and what the run is about. */
    uint64_t number;        /* no other loop of this interpreter ever has the same; from 1 */
    uint32_t next_number;   /* of a task */
    PyObject *roots;        /* owned tuple of the tasks given to the loop */
    ScopeObject *root;      /* owned: around every task but the loop's own; to cancel it is to
                               end the run */
    struct link unseen;     /* failed tasks whose failure nobody has seen, borrowed */
    struct link unseen_others;  /* of struct unseen: what else has failed so, borrowed */
    PyObject *errors;       /* owned list of what the run will raise, of tasks that failed and of
                               exceptions; NULL outside a run */
    PyObject *unlisted;     /* owned: the first error for which there was no room in it */
    PyObject *asyncgens;    /* owned WeakValueDictionary: serial number -> async generator
                               that was iterated in the run, in that order; NULL: none yet */
    uint64_t next_asyncgen;
    PyObject *interrupts;   /* owned dict: task's number -> list of the Interrupts that it gets at
                               its next awaits, if there are any; NULL: none yet */
    PyObject *callbacks;    /* owned dict: task's number -> list of calls that are to be made when
                               it has ended, if there are any; NULL: none yet */
    PyObject *created;      /* owned dict, in a debug run: task's number -> StackSummary */
    PyObject *weakrefs;

    /* Random numbers. */
    PyObject *seed;         /* owned int */
    PyObject *streams;      /* owned dict: name -> random.Random; NULL: none yet */
    uint64_t jitters;       /* how many every() with jitter have begun */

    /* Threads, and waiting. */
    struct idle idle;
    unsigned long thread_ident;  /* of the thread that runs the loop */
    pid_t process;               /* in which it was begun to be run, or in which it waited last: a
                                    child that was forked meanwhile has a loop that is its parent's */
    struct pool pool;
    PyObject *wakeup;       /* owned: what set_wakeup() was given; NULL: nothing */
    struct watchdog watchdog;
};

#define WALL_AT_START INT64_MIN  /* wall_origin: the wall clock when the run begins */

/* Whose timer it is: timer.kind. */
enum timer_kind { TIMER_OF_TASK, TIMER_OF_SCOPE };

#define LOOP_OF_BEGUN(l) LINK_OWNER(l, LoopObject, begun)
#define TASK_OF_LINK(l) LINK_OWNER(l, TaskObject, link)
#define TASK_OF_REGISTERED(l) LINK_OWNER(l, TaskObject, registered)
#define TASK_OF_SIBLING(l) LINK_OWNER(l, TaskObject, sibling)
#define TASK_OF_TIMER(t) LINK_OWNER(t, TaskObject, timer)
#define UNSEEN_OF_LINK(l) LINK_OWNER(l, struct unseen, link)
#define OWNED_OF_LINK(l) LINK_OWNER(l, OwnedObject, link)
#define SCOPE_OF_TIMER(t) LINK_OWNER(t, ScopeObject, timer)

#endif /* SLEEPLOOP_OBJECTS_H */
