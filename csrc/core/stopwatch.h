/* stopwatch.h: the time by which an object counts for its statistics, from one loop to the next.
 *
 * It is the time of the loop whose tasks use the object, whoever asks. When those of another loop
 * come to use it, or the loop is gone, it goes on from where it stands. Neither holds the other:
 * the loop knows its stopwatches, and stops them when it dies.
 */
#ifndef SLEEPLOOP_CORE_STOPWATCH_H
#define SLEEPLOOP_CORE_STOPWATCH_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/ring.h"
#include "loopobject.h"

struct stopwatch {
    struct link link;   /* in loop->stopwatches, while there is a loop */
    LoopObject *loop;   /* borrowed; NULL: none yet, or it is gone */
    int64_t ahead;      /* of the loop's time; while there is no loop, the time itself */
    uint64_t newest;    /* the highest number of a loop that it has counted on */
};

static inline int64_t
stopwatch_time(const struct stopwatch *watch)
{
    return watch->loop != NULL ? time_add(watch->ahead, clock_now(&watch->loop->clock))
                               : watch->ahead;
}

static void
stopwatch_stop(struct stopwatch *watch)
{
    if (watch->loop != NULL) {
        watch->ahead = stopwatch_time(watch);
        watch->loop = NULL;
        link_remove(&watch->link);
    }
}

/* It goes on with that loop, of whose time `skipped` does not count. */
static void
stopwatch_go_on(struct stopwatch *watch, LoopObject *loop, int64_t skipped)
{
    stopwatch_stop(watch);
    watch->ahead -= skipped;
    watch->loop = loop;
    watch->newest = loop->number > watch->newest ? loop->number : watch->newest;
    ring_push(&loop->stopwatches, &watch->link);
}

/* From now on. loop: NULL: from the beginning of the first loop that comes. */
static void
stopwatch_start(struct stopwatch *watch, LoopObject *loop)
{
    *watch = (struct stopwatch){0};
    if (loop != NULL) {
        stopwatch_go_on(watch, loop, clock_now(&loop->clock));
    }
}

/* The time of a loop that is newer than all before counts from its beginning: it is another run.
 * Of another one it may have counted already, so it does from now on. */
COLD static void
stopwatch_change_loop(struct stopwatch *watch, LoopObject *loop)
{
    stopwatch_go_on(watch, loop, loop->number > watch->newest ? 0 : clock_now(&loop->clock));
}

/* A task of that loop uses the object. */
static inline void
stopwatch_follow(struct stopwatch *watch, LoopObject *loop)
{
    if (watch->loop != loop) {
        stopwatch_change_loop(watch, loop);
    }
}

/* Somebody uses it without a task's await, where that loop runs (NULL: none does): that is its
 * loop's business, if it has one that is not over. */
static inline void
stopwatch_touch(struct stopwatch *watch, LoopObject *loop)
{
    if (loop != NULL && (watch->loop == NULL || watch->loop->phase == LOOP_CLOSED)) {
        stopwatch_follow(watch, loop);
    }
}

/* The loop dies. */
static void
loop_stop_watches(LoopObject *loop)
{
    while (!ring_empty(&loop->stopwatches)) {
        stopwatch_stop(LINK_OWNER(loop->stopwatches.next, struct stopwatch, link));
    }
}

#endif /* SLEEPLOOP_CORE_STOPWATCH_H */
