/* objectring.h: a ring of owned objects: in and out at both ends, and from the middle.
 *
 * Room is made before anything changes, so that whoever has made it can put an object in without a
 * failure. Knows nothing of tasks.
 */
#ifndef SLEEPLOOP_BASE_OBJECTRING_H
#define SLEEPLOOP_BASE_OBJECTRING_H

#include "compat.h"

struct objectring {
    PyObject **slots;  /* `room` of them, a power of two; NULL: none */
    size_t room, first, len;
};

static inline PyObject **
objectring_slot(const struct objectring *b, size_t i)
{
    assert(i < b->room);
    return &b->slots[(b->first + i) & (b->room - 1)];
}

/* The object at i, borrowed; 0 is the one that came first. */
static inline PyObject *
objectring_get(const struct objectring *b, size_t i)
{
    assert(i < b->len);
    return *objectring_slot(b, i);
}

COLD static int
objectring_grow(struct objectring *b, size_t more)
{
    size_t room = b->room > 0 ? 2 * b->room : 8;
    while (room - b->len < more) {
        room *= 2;
    }
    PyObject **slots = PyMem_New(PyObject *, room);
    if (slots == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < b->len; i++) {
        slots[i] = objectring_get(b, i);
    }
    PyMem_Free(b->slots);
    b->slots = slots;
    b->room = room;
    b->first = 0;
    return 0;
}

/* Room for `more` of them: 0, or -1 with MemoryError. */
static inline int
objectring_reserve_more(struct objectring *b, size_t more)
{
    return b->room - b->len >= more ? 0 : objectring_grow(b, more);
}

/* Room for one more: 0, or -1 with MemoryError. */
static inline int
objectring_reserve(struct objectring *b)
{
    return objectring_reserve_more(b, 1);
}

/* Behind the others; there is room. Steals obj. */
static inline void
objectring_push(struct objectring *b, PyObject *obj_steal)
{
    b->len++;
    *objectring_slot(b, b->len - 1) = obj_steal;
}

/* Before the others; there is room. Steals obj. */
static inline void
objectring_push_front(struct objectring *b, PyObject *obj_steal)
{
    b->first = (b->first - 1) & (b->room - 1);
    b->len++;
    *objectring_slot(b, 0) = obj_steal;
}

/* Takes the first one out, which is the caller's now; there is one. */
static inline PyObject *
objectring_pop_front(struct objectring *b)
{
    PyObject *obj = objectring_get(b, 0);
    b->first = (b->first + 1) & (b->room - 1);
    b->len--;
    return obj;
}

/* Takes the last one out, which is the caller's now; there is one. */
static inline PyObject *
objectring_pop(struct objectring *b)
{
    PyObject *obj = objectring_get(b, b->len - 1);
    b->len--;
    return obj;
}

/* Takes the one at i out, which is the caller's now. The order of the others stays. */
static inline PyObject *
objectring_take(struct objectring *b, size_t i)
{
    PyObject *obj = objectring_get(b, i);
    if (i < b->len / 2) {
        for (size_t j = i; j > 0; j--) {
            *objectring_slot(b, j) = objectring_get(b, j - 1);
        }
        b->first = (b->first + 1) & (b->room - 1);
    }
    else {
        for (size_t j = i; j + 1 < b->len; j++) {
            *objectring_slot(b, j) = objectring_get(b, j + 1);
        }
    }
    b->len--;
    return obj;
}

/* For tp_traverse. */
static inline int
objectring_traverse(const struct objectring *b, visitproc visit, void *arg)
{
    for (size_t i = 0; i < b->len; i++) {
        Py_VISIT(objectring_get(b, i));
    }
    return 0;
}

/* Drops all that is in it now, the first one first. Beware: what dies may run Python, which may
 * fill it anew. */
static inline void
objectring_clear(struct objectring *b)
{
    struct objectring old = *b;
    *b = (struct objectring){0};
    while (old.len > 0) {
        Py_DECREF(objectring_pop_front(&old));
    }
    PyMem_Free(old.slots);
}

#endif /* SLEEPLOOP_BASE_OBJECTRING_H */
