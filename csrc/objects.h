/* objects.h: the struct of every object; each field says owned or borrowed. */
#ifndef SLEEPLOOP_OBJECTS_H
#define SLEEPLOOP_OBJECTS_H

#include "clock.h"
#include "idle.h"
#include "lateness.h"
#include "readyq.h"
#include "timeq.h"

typedef struct ModuleState ModuleState;
typedef struct LoopObject LoopObject;
typedef struct TaskObject TaskObject;

/* ---- Task ------------------------------------------------------------------------------------ */

/* Where a task stands. Its payload means something else in each state. */
enum task_state {
    TASK_READY,      /* in the loop's ready ring; payload: the trap that let it go or that
                        it is cancelled from, the exception to throw (TASK_THROW), or NULL */
    TASK_RUNNING,    /* its step is on the C stack; payload: NULL */
    TASK_TIMER,      /* parked in the heap; payload: the Sleep or the datetime it yielded */
    TASK_JOIN,       /* parked at another task; payload: its Join */
    TASK_FOREVER,    /* parked without a wake-up time; payload: its Sleep */
    TASK_RETURNED,   /* done; payload: the result */
    TASK_FAILED,     /* done; payload: the exception */
    TASK_CANCELLED,  /* done; payload: NULL */
};

enum task_flags {
    TASK_STARTED = 1 << 0,
    TASK_ROOT = 1 << 1,       /* given to the loop; its failure ends the run */
    TASK_DAEMON = 1 << 2,     /* no run waits for it */
    TASK_FINALIZER = 1 << 3,  /* the loop's own: closes an async generator; never cancelled */
    TASK_CANCELLING = 1 << 4, /* every await raises CancelledError from now on */
    TASK_THROW = 1 << 5,      /* ready, and the payload is to be thrown */
    TASK_THROW_CANCEL = 1 << 6, /* ready, and a CancelledError is to be thrown */
    TASK_TIMED = 1 << 7,        /* ready because a timer fired */
};

struct TaskObject {
    PyObject_HEAD
    /* What a wake-up touches stands together, in one or two cache lines. */
    PyObject *coro;          /* owned */
    PyObject *context;       /* owned: this task's copy */
    PyObject *payload;       /* owned; see task_state */
    struct link link;        /* in the ready ring, or in the joined task's `waiters` */
    struct timer timer;      /* in the loop's heap while TASK_TIMER */
    uint8_t state;           /* enum task_state */
    uint8_t flags;           /* enum task_flags */
    uint32_t number;
    LoopObject *loop;        /* owned; NULL once the collector cleared either */
    PyObject *name;          /* owned; NULL: "Task-<number>" */
    PyObject *weakrefs;
    struct link registered;  /* live: in loop->live, which owns a reference to the task;
                                failed and not retrieved: in loop->unseen, borrowed */
    struct link waiters;     /* head: the tasks that join this one, borrowed */
};

static inline int
task_done(const TaskObject *task)
{
    return task->state >= TASK_RETURNED;
}

static inline int
task_parked(const TaskObject *task)
{
    return task->state >= TASK_TIMER && task->state <= TASK_FOREVER;
}

/* ---- Awaitables ------------------------------------------------------------------------------ */

enum sleep_kind { SLEEP_FOR, SLEEP_UNTIL, SLEEP_UNTIL_WALL, SLEEP_FOREVER, SLEEP_CHECKPOINT };

enum trap_state { TRAP_NEW, TRAP_WAITING, TRAP_WAITING_ABROAD, TRAP_DONE };

/* sleep(), sleep_until(), sleep_forever(), checkpoint(). Holds no object, so it
 * cannot be part of a cycle and needs no collector. */
typedef struct {
    PyObject_HEAD
    int64_t time;     /* FOR: nanoseconds to sleep; UNTIL: loop time in nanoseconds;
                         UNTIL_WALL: microseconds since 1970 UTC */
    int64_t started;  /* while WAITING: loop time when it began; ABROAD: see sleep.h */
    uint32_t task_number;  /* while WAITING: the task that does */
    uint8_t kind;     /* enum sleep_kind */
    uint8_t state;    /* enum trap_state */
    uint8_t aware;    /* UNTIL_WALL: the datetime had a time zone */
} SleepObject;

/* `await task` */
typedef struct {
    PyObject_HEAD
    TaskObject *task;  /* owned */
    uint8_t state;     /* enum trap_state */
} JoinObject;

/* ---- SleepingLoop ---------------------------------------------------------------------------- */

enum loop_phase {
    LOOP_NEW,        /* made, or not even initialised */
    LOOP_RUNNING,
    LOOP_CANCELLING, /* everything has been cancelled and runs its cleanup */
    LOOP_FINALIZING, /* no task is left; async generators are being closed */
    LOOP_CLOSED,
};

enum { LOOP_HALF_MADE = 1, LOOP_MADE = 2 };  /* __init__() is under way; is over */

struct LoopObject {
    PyObject_HEAD
    ModuleState *state;     /* borrowed from the module, which the type keeps; may be gone
                               when the interpreter ends, so not for dealloc or clear */
    PyObject *weakrefs;
    enum loop_phase phase;
    uint8_t initialised;    /* 0, LOOP_HALF_MADE or LOOP_MADE */
    uint8_t main_only;      /* run(): the first root's end is the run's end */
    uint8_t main_thread;    /* the run is where Python's signal handlers run */
    uint8_t interrupted;    /* Ctrl-C came */
    uint8_t abandoned;      /* it came twice, or cleanup cannot go on: stop right away */
    uint8_t idling;         /* inside the idle wait, without the GIL */
    uint8_t wall_is_system; /* now() is the system's wall clock */
    struct clock clock;
    int64_t wall_origin;    /* loop time 0, in microseconds since 1970 UTC */
    struct timeq timers;
    struct link ready;      /* tasks, borrowed from `live`, first in first out */
    struct link live;       /* every unfinished task, owned, in order of creation */
    struct link unseen;     /* failed tasks whose failure nobody has seen, borrowed */
    size_t ready_len;
    size_t live_waited;     /* live tasks that the run waits for (neither daemon nor finalizer) */
    size_t live_forever;    /* live tasks in TASK_FOREVER */
    uint32_t next_number;
    TaskObject *current;    /* borrowed: the task whose step is under way, or NULL */
    PyObject *roots;        /* owned tuple of the tasks given to the loop */
    PyObject *errors;       /* owned list of what the run will raise; NULL outside a run */
    PyObject *unlisted;     /* owned: the first error for which there was no room in it */
    PyObject *cancel_reason; /* owned str: what CancelledError says; NULL: nothing yet */
    PyObject *asyncgens;    /* owned WeakValueDictionary: serial number -> async generator
                               that was iterated in the run, in that order; NULL: none yet */
    uint64_t next_asyncgen;
    uint64_t tstate_id;     /* of tstate: after a fork another thread may have its address */
    PyThreadState *tstate;  /* borrowed: the thread that runs the loop, or NULL */
    LoopObject *next_running; /* borrowed: the next loop in the module's list */
    struct idle idle;
    uint64_t steps, wakeups;
    struct lateness late;
    int64_t real_started, real_idle, real_total; /* monotonic nanoseconds, for stats() */
};

#define WALL_AT_START INT64_MIN  /* wall_origin: the wall clock when the run begins */

#define TASK_OF_LINK(l) LINK_OWNER(l, TaskObject, link)
#define TASK_OF_REGISTERED(l) LINK_OWNER(l, TaskObject, registered)
#define TASK_OF_TIMER(t) LINK_OWNER(t, TaskObject, timer)

#endif /* SLEEPLOOP_OBJECTS_H */
