/* loopobject.h: what a loop is; each field says owned or borrowed. */
#ifndef SLEEPLOOP_CORE_LOOPOBJECT_H
#define SLEEPLOOP_CORE_LOOPOBJECT_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/lateness.h"
#include "../base/ring.h"
#include "../base/timerheap.h"
#include "../poll/idle.h"
#include "objects.h"

#include <pthread.h>
#include <stdatomic.h>

/* Something that has failed, other than a task, and nobody has seen it: in loop->unseen_others. */
struct unseen {
    struct link link;
    PyObject *owner;  /* borrowed: what has failed; its exception() is that it has been seen */
    void (*report)(LoopObject *loop, PyObject *owner);  /* and takes it out */
};

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
    struct timerheap timers;
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

#define LOOP_OF_BEGUN(l) LINK_OWNER(l, LoopObject, begun)
#define UNSEEN_OF_LINK(l) LINK_OWNER(l, struct unseen, link)

#endif /* SLEEPLOOP_CORE_LOOPOBJECT_H */
