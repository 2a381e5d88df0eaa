/* roster.h: the borrowers of a CapacityLimiter: who has a token or waits for one.
 *
 * A set of borrowers, each of which is in it by its Token. Whoever holds a Token can take it out
 * without asking the borrower for its hash or whether it equals another: a wait is cancelled, and
 * a grant undone, where no Python code may run. A dict cannot do that. Knows no loop and no task.
 */
#ifndef SLEEPLOOP_SYNC_ROSTER_H
#define SLEEPLOOP_SYNC_ROSTER_H

#include "../base/compat.h"
#include "../base/ring.h"
#include "../core/state.h"

enum token_state {
    TOKEN_LOOSE,   /* in no roster: not yet, or not any more */
    TOKEN_AWAITED, /* its borrower waits for it */
    TOKEN_HELD,    /* its borrower has it */
};

typedef struct TokenObject TokenObject;

struct TokenObject {
    PyObject_HEAD
    PyObject *borrower;  /* owned */
    Py_hash_t hash;      /* the borrower's, when it asked */
    TokenObject *next;   /* in its bucket, borrowed */
    struct link link;    /* HELD: in the roster's `holders` */
    uint8_t state;       /* enum token_state */
};

#define TOKEN_OF_LINK(l) LINK_OWNER(l, TokenObject, link)
#define ROSTER_FEW 8

struct roster {
    TokenObject **buckets;  /* `mask` + 1 of them: `few`, or memory of their own; of the tokens in
                               them the held ones are owned, the others are the waits' */
    TokenObject *few[ROSTER_FEW];
    size_t mask;
    size_t count;           /* of all tokens */
    uint64_t changes;
    struct link holders;    /* in the order in which they got theirs */
};

static void
roster_init(struct roster *r)
{
    r->buckets = r->few;
    memset(r->few, 0, sizeof r->few);
    r->mask = ROSTER_FEW - 1;
    r->count = 0;
    r->changes = 0;
    ring_init(&r->holders);
}

static inline TokenObject **
roster_bucket(const struct roster *r, Py_hash_t hash)
{
    return &r->buckets[((uint64_t)hash * UINT64_C(0x9E3779B97F4A7C15) >> 32) & r->mask];
}

/* As many buckets as the tokens want. Without memory for them it just gets slower. */
static void
roster_fit(struct roster *r)
{
    size_t room = r->mask + 1;
    if (r->count < room && (room == ROSTER_FEW || r->count >= room / 8)) {
        return;
    }
    while (room > ROSTER_FEW && r->count < room / 4) {
        room /= 2;
    }
    while (r->count >= room) {
        room *= 2;
    }
    TokenObject **old = r->buckets;
    size_t n_old = r->mask + 1;
    TokenObject **buckets = PyMem_Calloc(room, sizeof *buckets);
    if (buckets == NULL) {
        return;
    }
    r->buckets = buckets;
    r->mask = room - 1;
    for (size_t i = 0; i < n_old; i++) {
        TokenObject *token = old[i];
        while (token != NULL) {
            TokenObject *next = token->next;
            TokenObject **bucket = roster_bucket(r, token->hash);
            token->next = *bucket;
            *bucket = token;
            token = next;
        }
    }
    if (old != r->few) {
        PyMem_Free(old);
    }
}

/* The token of a borrower that equals this one, borrowed, or NULL: that is so in the moment in
 * which it returns. 0, or -1 with an exception. Beware: runs the borrowers' __eq__(). */
static int
roster_find(const struct roster *r, PyObject *borrower, Py_hash_t hash, TokenObject **found)
{
    TokenObject *token = *roster_bucket(r, hash);
    while (token != NULL && token->borrower != borrower) {
        if (token->hash == hash) {
            uint64_t changes = r->changes;
            PyObject *other = Py_NewRef(token->borrower);
            int is_equal = PyObject_RichCompareBool(other, borrower, Py_EQ);
            Py_DECREF(other);
            if (is_equal < 0) {
                return -1;
            }
            if (changes != r->changes) {
                token = *roster_bucket(r, hash);
                continue;
            }
            if (is_equal) {
                break;
            }
        }
        token = token->next;
    }
    *found = token;
    return 0;
}

static inline void
roster_set_held(struct roster *r, TokenObject *token)
{
    Py_INCREF(token);
    token->state = TOKEN_HELD;
    ring_push(&r->holders, &token->link);
}

/* A loose token comes in. One that is awaited stays the caller's, who takes it out before he lets
 * go of it: or the roster would keep the task, and its loop, of whoever waits. Cannot fail. */
static void
roster_put(struct roster *r, TokenObject *token, enum token_state state)
{
    assert(token->state == TOKEN_LOOSE);
    r->changes++;
    r->count++;
    roster_fit(r);
    TokenObject **bucket = roster_bucket(r, token->hash);
    token->next = *bucket;
    *bucket = token;
    if (state == TOKEN_HELD) {
        roster_set_held(r, token);
    }
    else {
        token->state = (uint8_t)state;
    }
}

/* The token goes out; if it was held, the roster's reference is the caller's now. Cannot fail. */
static TokenObject *
roster_take_out(struct roster *r, TokenObject *token)
{
    assert(token->state != TOKEN_LOOSE);
    TokenObject **at = roster_bucket(r, token->hash);
    while (*at != token) {
        at = &(*at)->next;
    }
    *at = token->next;
    token->next = NULL;
    if (token->state == TOKEN_HELD) {
        link_remove(&token->link);
    }
    token->state = TOKEN_LOOSE;
    r->changes++;
    r->count--;
    return token;
}

static int
roster_traverse(const struct roster *r, visitproc visit, void *arg)
{
    for (struct link *l = r->holders.next; l != NULL && l != &r->holders; l = l->next) {
        Py_VISIT(TOKEN_OF_LINK(l));
    }
    return 0;
}

/* Of an empty roster, at its end. */
static void
roster_free(struct roster *r)
{
    assert(r->count == 0);
    if (r->buckets != r->few) {
        PyMem_Free(r->buckets);
    }
}

/* ---- Token ----------------------------------------------------------------------------------- */

/* hash: of the borrower. */
static TokenObject *
token_new(ModuleState *state, PyObject *borrower, Py_hash_t hash)
{
    TokenObject *token = PyObject_GC_New(TokenObject, state->TokenType);
    if (token != NULL) {
        token->borrower = Py_NewRef(borrower);
        token->hash = hash;
        token->next = NULL;
        token->link.next = token->link.prev = NULL;
        token->state = TOKEN_LOOSE;
        PyObject_GC_Track(token);
    }
    return token;
}

/* Without a tp_clear: a cycle through one leads through a limiter, which lets go of those that
 * are held, or through a task that waits. */
static int
token_tp_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((TokenObject *)op)->borrower);
    return 0;
}

static void
token_tp_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    assert(((TokenObject *)op)->state == TOKEN_LOOSE);
    Py_DECREF(((TokenObject *)op)->borrower);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyType_Slot token_slots[] = {
    {Py_tp_doc, (void *)"What somebody borrows of a CapacityLimiter."},
    {Py_tp_dealloc, token_tp_dealloc},
    {Py_tp_traverse, token_tp_traverse},
    {0, NULL},
};

static PyType_Spec token_spec = {
    .name = "sleeploop.Token",
    .basicsize = sizeof(TokenObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = token_slots,
};

#endif /* SLEEPLOOP_SYNC_ROSTER_H */
