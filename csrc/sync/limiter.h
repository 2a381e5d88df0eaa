/* limiter.h: how a CapacityLimiter lends its tokens, of which each borrower may have one. The type
 * is in limitertype.h.
 */
#ifndef SLEEPLOOP_SYNC_LIMITER_H
#define SLEEPLOOP_SYNC_LIMITER_H

#include "../base/compat.h"
#include "../base/ring.h"
#include "../core/args.h"
#include "../core/loopobject.h"
#include "../core/ready.h"
#include "../core/state.h"
#include "../core/task.h"
#include "../core/taskobject.h"
#include "roster.h"
#include "../wait/waitable.h"
#include "../wait/waitlist.h"
#include "../wait/waitobject.h"

/* While somebody waits, at least `total` tokens are borrowed: one that is left over goes to the
 * first of them. `held` is how many are borrowed. The value of each Wait is its Token; without
 * one yet it is for the task that will await it.
 *
 * It has no inline methods: who is in an `async with` is among its borrowers, and what the collector
 * knows nothing of must not be part of that cycle. */
typedef struct {
    SYNC_HEAD
    struct waitlist waitlist;
    struct roster roster;
    uint64_t total;  /* COUNT_UNLIMITED: math.inf */
} LimiterObject;

/* total_tokens: 0, or -1 with an exception. Beware: may run the object's __index__(). */
static int
limiter_total_from_object(const char *function, PyObject *obj, int64_t *total)
{
    return sync_count_from_object(function, "total_tokens", obj, 0, COUNT_OR_INF, total);
}

static PyObject *
limiter_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"total_tokens", "name", NULL};
    PyObject *obj, *name = NULL;
    int64_t total;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$O:CapacityLimiter", names, &obj, &name)
        || limiter_total_from_object("CapacityLimiter()", obj, &total) < 0) {
        return NULL;
    }
    LimiterObject *limiter = (LimiterObject *)sync_new("CapacityLimiter()", type, name);
    if (limiter != NULL) {
        waitlist_init(&limiter->waitlist);
        roster_init(&limiter->roster);
        limiter->total = (uint64_t)total;
    }
    return (PyObject *)limiter;
}

static int
limiter_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    return roster_traverse(&((LimiterObject *)op)->roster, visit, arg);
}

/* Those who wait stay: they hold the limiter, and leave it one by one. */
static int
limiter_tp_clear(PyObject *op)
{
    LimiterObject *limiter = (LimiterObject *)op;
    while (!ring_empty(&limiter->roster.holders)) {
        TokenObject *token = TOKEN_OF_LINK(limiter->roster.holders.next);
        limiter->held--;
        Py_DECREF(roster_take_out(&limiter->roster, token));
    }
    return 0;
}

static void
limiter_tp_dealloc(PyObject *op)
{
    PyObject_GC_UnTrack(op);
    /* Who has a token may be another limiter, 100,000 in a row. */
    Py_TRASHCAN_BEGIN(op, limiter_tp_dealloc)
    sync_dies(op);
    (void)limiter_tp_clear(op);
    roster_free(&((LimiterObject *)op)->roster);
    sync_free(op);
    Py_TRASHCAN_END
}

/* ---- described ------------------------------------------------------------------------------- */

/* New str: "task 'reader'", or whatever it says of itself. Beware: runs Python. */
static PyObject *
borrower_describe(ModuleState *state, PyObject *borrower)
{
    if (Py_TYPE(borrower) != state->TaskType) {
        return describe(borrower);
    }
    PyObject *name = task_name((TaskObject *)borrower);
    PyObject *text = name != NULL ? PyUnicode_FromFormat("task %R", name) : NULL;
    Py_XDECREF(name);
    return text;
}

/* New str: " by task 'reader', task 'writer' and 7 more". Beware: runs Python. */
static PyObject *
limiter_describe_borrowers(LimiterObject *limiter)
{
    PyObject *borrowers[HOLDERS_SHOWN];
    size_t n = 0, n_more = limiter->held;
    for (struct link *l = limiter->roster.holders.next;
         n < HOLDERS_SHOWN && l != &limiter->roster.holders; l = l->next) {
        borrowers[n++] = Py_NewRef(TOKEN_OF_LINK(l)->borrower);
        n_more--;
    }
    PyObject *text = PyUnicode_FromString("");
    for (size_t i = 0; i < n; i++) {
        PyObject *one = text != NULL
                            ? borrower_describe(state_of_type(Py_TYPE(limiter)), borrowers[i])
                            : NULL;
        if (text != NULL) {
            Py_SETREF(text, one != NULL ? PyUnicode_FromFormat("%U%s%U", text,
                                                               i == 0 ? " by " : ", ", one)
                                        : NULL);
        }
        Py_XDECREF(one);
    }
    for (size_t i = 0; i < n; i++) {
        PyObject *saved = PyErr_GetRaisedException();
        Py_DECREF(borrowers[i]);
        PyErr_SetRaisedException(saved);
    }
    if (text != NULL && n_more > 0) {
        Py_SETREF(text, PyUnicode_FromFormat("%U and %zu more", text, n_more));
    }
    return text;
}

/* New str: "CapacityLimiter 'db' (2 of 2 tokens borrowed by task 'a', task 'b')". Beware: runs
 * Python. */
static PyObject *
limiter_describe(PyObject *op)
{
    LimiterObject *limiter = (LimiterObject *)op;
    PyObject *title = sync_title(op);
    int again = title != NULL ? Py_ReprEnter(op) : -1;  /* a borrower may know the limiter */
    if (again != 0) {
        if (again > 0) {
            Py_SETREF(title, PyUnicode_FromFormat("%U (...)", title));
        }
        else {
            Py_CLEAR(title);
        }
        return title;
    }
    size_t held = limiter->held;
    PyObject *total = count_object((int64_t)limiter->total), *text = NULL;
    PyObject *by = total != NULL ? limiter_describe_borrowers(limiter) : NULL;
    if (by != NULL) {
        text = PyUnicode_FromFormat("%U (%zu of %S tokens borrowed%U)", title, held, total, by);
        Py_DECREF(by);
    }
    Py_XDECREF(total);
    Py_DECREF(title);
    PyObject *saved = PyErr_GetRaisedException();
    Py_ReprLeave(op);
    PyErr_SetRaisedException(saved);
    return text;
}

static PyObject *
limiter_tp_repr(PyObject *op)
{
    return sync_repr_steal(op, limiter_describe(op));
}

/* ---- borrowed and given back ----------------------------------------------------------------- */

static inline void
limiter_lend(LimiterObject *limiter, TokenObject *token)
{
    limiter->held++;
    roster_put(&limiter->roster, token, TOKEN_HELD);
}

/* Tokens that are left over go to those who wait. */
static void
limiter_serve(LimiterObject *limiter)
{
    WaitObject *next;
    while (limiter->held < limiter->total && (next = waitlist_first(&limiter->waitlist)) != NULL) {
        limiter->held++;
        roster_set_held(&limiter->roster, (TokenObject *)next->value);
        wait_grant(next);
    }
}

/* A held token comes back. Beware: its borrower may die by it, and run Python. */
static void
limiter_take_back(LimiterObject *limiter, TokenObject *token)
{
    limiter->held--;
    token = roster_take_out(&limiter->roster, token);
    limiter_serve(limiter);
    Py_DECREF(token);
}

/* "task 'reader' has a token of CapacityLimiter 'db' already" */
COLD static void
raise_about_borrower(LimiterObject *limiter, const char *function, PyObject *borrower,
                     const char *has, const char *tail)
{
    PyObject *title = sync_title((PyObject *)limiter);
    PyObject *who = title != NULL
                        ? borrower_describe(state_of_type(Py_TYPE(limiter)), borrower)
                        : NULL;
    if (who != NULL) {
        PyErr_Format(PyExc_RuntimeError, "%s: %U %s of %U%s", function, who, has, title, tail);
        Py_DECREF(who);
    }
    Py_XDECREF(title);
}

/* The token may come into the roster, right now: 0, or -1 with an exception. Beware: runs
 * Python before it returns, where the same token may come into it. */
static int
limiter_check_loose(LimiterObject *limiter, TokenObject *token, const char *function)
{
    TokenObject *other;
    if (roster_find(&limiter->roster, token->borrower, token->hash, &other) < 0) {
        return -1;
    }
    if (other == NULL) {
        assert(token->state == TOKEN_LOOSE);  /* else it would have been found */
        return 0;
    }
    raise_about_borrower(limiter, function, token->borrower,
                         other->state == TOKEN_HELD ? "has a token" : "waits for a token",
                         " already, and cannot have a second one");
    return -1;
}

/* A token for the task, owned, or NULL with an exception. */
static TokenObject *
token_of_task(ModuleState *state, TaskObject *task)
{
    PyObject *owner = (PyObject *)task_owner_borrowed(task);
    Py_hash_t hash = PyObject_Hash(owner);
    return hash != -1 ? token_new(state, owner, hash) : NULL;
}

/* Beware: runs Python. The same wait may be driven from there. */
static int
limiter_take(WaitObject *wait, LoopObject *Py_UNUSED(loop), TaskObject *task)
{
    LimiterObject *limiter = (LimiterObject *)wait->object;
    if (wait->value == NULL) {
        TokenObject *token = token_of_task(state_of_type(Py_TYPE(limiter)), task);
        if (token == NULL) {
            return -1;
        }
        Py_XSETREF(wait->value, (PyObject *)token);
    }
    TokenObject *token = (TokenObject *)wait->value;
    if (limiter_check_loose(limiter, token, await_kind(wait)->function) < 0) {
        return -1;
    }
    if (limiter->held >= limiter->total) {
        return 0;
    }
    limiter_lend(limiter, token);
    return 1;
}

/* Right after take() has said that it has to wait. */
static int
limiter_park(WaitObject *wait, TaskObject *task)
{
    LimiterObject *limiter = (LimiterObject *)wait->object;
    roster_put(&limiter->roster, (TokenObject *)wait->value, TOKEN_AWAITED);
    ring_push(&limiter->waitlist.tasks, &task->link);
    limiter->waitlist.count++;
    return 0;
}

static void
limiter_unpark(WaitObject *wait, TaskObject *task)
{
    LimiterObject *limiter = (LimiterObject *)wait->object;
    link_remove(&task->link);
    limiter->waitlist.count--;
    if (wait->outcome == WAIT_OPEN) {
        (void)roster_take_out(&limiter->roster, (TokenObject *)wait->value);
    }
}

/* Meanwhile others may have released it. */
static void
limiter_give_back(WaitObject *wait)
{
    TokenObject *token = (TokenObject *)wait->value;
    if (token->state == TOKEN_HELD) {
        limiter_take_back((LimiterObject *)wait->object, token);
    }
}

static PyObject *
limiter_result(WaitObject *Py_UNUSED(wait))
{
    Py_RETURN_NONE;
}

/* A task has the only token there is. */
static uint32_t
limiter_blocker(const WaitObject *wait)
{
    const LimiterObject *limiter = (const LimiterObject *)wait->object;
    if (limiter->held != 1 || limiter->total == 0) {
        return 0;
    }
    PyObject *borrower = TOKEN_OF_LINK(limiter->roster.holders.next)->borrower;
    return Py_TYPE(borrower) == Py_TYPE(wait->task)
                   && ((TaskObject *)borrower)->loop == wait->task->loop
               ? ((TaskObject *)borrower)->number
               : 0;
}

/* New list of the numbers of the tasks that have tokens; None if somebody else has one, as a task
 * of another loop, whose token anybody may give back. */
static PyObject *
limiter_blockers(PyObject *op)
{
    LimiterObject *limiter = (LimiterObject *)op;
    ModuleState *state = state_of_type(Py_TYPE(op));
    PyObject *numbers = PyList_New(0);
    struct link *holders = &limiter->roster.holders;
    for (struct link *l = holders->next; numbers != NULL && l != holders; l = l->next) {
        PyObject *borrower = TOKEN_OF_LINK(l)->borrower;
        LoopObject *loop = Py_TYPE(borrower) == state->TaskType ? ((TaskObject *)borrower)->loop
                                                                : NULL;
        if (loop == NULL || loop->number != limiter->loop_number) {
            Py_DECREF(numbers);
            Py_RETURN_NONE;
        }
        numbers_append(&numbers, (TaskObject *)borrower);
    }
    return numbers;
}

#define LIMITER_KIND(row, what)                                                                \
    {                                                                                          \
        WAIT_KIND(row, what), .take = limiter_take, .result = limiter_result,                      \
        .give_back = limiter_give_back, .describe = limiter_describe,                          \
        .blocker = limiter_blocker, .blockers = limiter_blockers, .park = limiter_park,        \
        .unpark = limiter_unpark,                                                              \
    }

static const struct wait_kind limiter_acquire_kind =
    LIMITER_KIND(limiter_acquire_kind, "CapacityLimiter.acquire()");
static const struct wait_kind limiter_acquire_for_kind =
    LIMITER_KIND(limiter_acquire_for_kind, "CapacityLimiter.acquire_on_behalf_of()");
static const struct wait_kind limiter_enter_kind =
    LIMITER_KIND(limiter_enter_kind, "async with CapacityLimiter()");

/* ---- without waiting --------------------------------------------------------------------------- */

/* Steals token, or passes its error on. */
static PyObject *
limiter_acquire_nowait(LimiterObject *limiter, TokenObject *token_steal, const char *function)
{
    if (token_steal == NULL) {
        return NULL;
    }
    PyObject *result = NULL;
    if (limiter_check_loose(limiter, token_steal, function) == 0) {
        if (limiter->held < limiter->total) {
            limiter_lend(limiter, token_steal);
            result = Py_NewRef(Py_None);
        }
        else {
            raise_would_block_steal(state_of_type(Py_TYPE(limiter))->WouldBlock, function,
                                    limiter_describe((PyObject *)limiter));
        }
    }
    Py_DECREF(token_steal);
    return result;
}

/* 0, or -1 with an exception. */
static int
limiter_release(LimiterObject *limiter, PyObject *borrower, const char *function)
{
    Py_hash_t hash = PyObject_Hash(borrower);
    TokenObject *token;
    if (hash == -1
        || sync_touch(state_of_type(Py_TYPE(limiter)), (SyncObject *)limiter, function) < 0
        || roster_find(&limiter->roster, borrower, hash, &token) < 0) {
        return -1;
    }
    if (token == NULL || token->state != TOKEN_HELD) {
        raise_about_borrower(limiter, function, borrower,
                             token == NULL ? "has no token" : "still waits for a token", "");
        return -1;
    }
    limiter_take_back(limiter, token);
    return 0;
}

static int
limiter_release_own(LimiterObject *limiter, const char *function)
{
    ModuleState *state = state_of_type(Py_TYPE(limiter));
    LoopObject *loop = current_loop_borrowed(state);
    if ((loop == NULL || loop->current == NULL) && state->closing != NULL) {
        return limiter_release(limiter, (PyObject *)state->closing, function);
    }
    TaskObject *task = need_current_task_borrowed(state, function);
    return task != NULL ? limiter_release(limiter, (PyObject *)task_owner_borrowed(task), function)
                        : -1;
}

#endif /* SLEEPLOOP_SYNC_LIMITER_H */
