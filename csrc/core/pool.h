/* pool.h: the threads of to_thread(): those that have nothing to do can bring a loop nothing.
 *
 * sleeploop/_threads.py makes the pools, one for each loop that needs one, and notes here which
 * threads they have and how many calls are under way.
 */
#ifndef SLEEPLOOP_CORE_POOL_H
#define SLEEPLOOP_CORE_POOL_H

#include "../base/compat.h"
#include "loopobject.h"
#include "state.h"

/* The pool is nobody's any more, and its threads end; until then, they count as any other. Beware:
 * may run Python. */
static void
pool_drop(struct pool *pool)
{
    pool->n_threads = pool->calls = 0;
    Py_CLEAR(pool->executor);
}

/* The current thread is the pool's. If there is no room to note it, it counts as any other. */
static void
pool_note_thread(struct pool *pool)
{
    if (pool->n_threads < POOL_NOTED) {
        pool->threads[pool->n_threads++] = compat_tstate_id(PyThreadState_Get());
    }
}

/* Whether it is a thread of a pool for which nothing is to be done. */
static int
thread_is_idle(ModuleState *state, const PyThreadState *tstate)
{
    uint64_t id = compat_tstate_id(tstate);
    for (struct link *l = state->begun.next; l != &state->begun; l = l->next) {
        const struct pool *pool = &LOOP_OF_BEGUN(l)->pool;
        for (size_t i = 0; pool->calls == 0 && i < pool->n_threads; i++) {
            if (pool->threads[i] == id) {
                return 1;
            }
        }
    }
    return 0;
}

/* Whether there is another thread at all. */
static inline int
thread_is_alone(const PyThreadState *tstate)
{
    PyThreadState *first = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    return first == tstate && PyThreadState_Next(first) == NULL;
}

/* Whether another thread may do something. */
static int
other_threads_may_act(ModuleState *state, const PyThreadState *tstate)
{
    PyThreadState *other = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    while (other != NULL && (other == tstate || thread_is_idle(state, other))) {
        other = PyThreadState_Next(other);
    }
    return other != NULL;
}

#endif /* SLEEPLOOP_CORE_POOL_H */
