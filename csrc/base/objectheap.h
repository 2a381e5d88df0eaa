/* objectheap.h: a heap of objects, the lowest first by their own `<`, first in first out among
 * equals.
 *
 * A comparison is Python: it may raise, it may drop whatever refers to the objects, and it may
 * come back here. So each operation first finds the path that it will move along and only then
 * moves, which cannot fail; both objects are held while they are compared; and whoever calls
 * refuses everything but objectheap_put_back() while `comparing` is set. Knows nothing of tasks.
 */
#ifndef SLEEPLOOP_BASE_OBJECTHEAP_H
#define SLEEPLOOP_BASE_OBJECTHEAP_H

#include "compat.h"

struct priority_entry {
    PyObject *object;  /* owned by the heap while it is in there */
    uint64_t number;   /* of its arrival, from 1: decides among equals */
};

struct objectheap {
    struct priority_entry *entries;  /* `room` of them; first `len` in the order of a heap, then
                                        `loose` ones that nobody has compared yet */
    size_t room, len, loose;
    uint64_t arrivals;
    int comparing;
};

static inline size_t
objectheap_len(const struct objectheap *heap)
{
    return heap->len + heap->loose;
}

/* Also in the middle of a comparison, as what is put back may need it: entries are found by their
 * index each time, and compared as copies. */
COLD static int
objectheap_grow(struct objectheap *heap, size_t more)
{
    size_t room = heap->room > 0 ? 2 * heap->room : 8;
    while (room - objectheap_len(heap) < more) {
        room *= 2;
    }
    struct priority_entry *entries = heap->entries;
    PyMem_Resize(entries, struct priority_entry, room);
    if (entries == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    heap->entries = entries;
    heap->room = room;
    return 0;
}

/* Room for `more` of them: 0, or -1 with MemoryError. */
static inline int
objectheap_reserve(struct objectheap *heap, size_t more)
{
    return heap->room - objectheap_len(heap) >= more ? 0 : objectheap_grow(heap, more);
}

/* ---- comparing ------------------------------------------------------------------------------- */

/* Whether a comes before b: one comparison tells, as the one that arrived later must be less.
 * -1 with an exception. Beware: runs Python. */
static int
priority_before(struct priority_entry a, struct priority_entry b)
{
    int a_is_older = a.number < b.number;
    PyObject *later = Py_NewRef(a_is_older ? b.object : a.object);
    PyObject *older = Py_NewRef(a_is_older ? a.object : b.object);
    int less = PyObject_RichCompareBool(later, older, Py_LT);
    Py_DECREF(later);
    Py_DECREF(older);
    return less >= 0 && a_is_older ? !less : less;
}

/* *at: where the entry would come to stand if it were added. 0, or -1 with an exception. */
static int
objectheap_find_place(struct objectheap *heap, struct priority_entry entry, size_t *at)
{
    int before = 1;
    *at = heap->len;
    heap->comparing = 1;
    while (*at > 0) {
        size_t parent = (*at - 1) / 2;
        before = priority_before(entry, heap->entries[parent]);
        if (before <= 0) {
            break;
        }
        *at = parent;
    }
    heap->comparing = 0;
    return before < 0 ? -1 : 0;
}

enum { OBJECTHEAP_DEPTH = 64 };

/* The way down by which the first entry is to be replaced: path[0] moves to the top, path[1] to
 * where that was and so on, and the last entry to the end of it. Its length, or -1 with an
 * exception. */
static int
objectheap_find_path(struct objectheap *heap, size_t *path)
{
    size_t last = heap->len - 1;
    int depth = 0, before = 0;
    heap->comparing = 1;
    for (size_t child = 1; child < last; child = 2 * child + 1) {
        if (child + 1 < last) {
            before = priority_before(heap->entries[child + 1], heap->entries[child]);
            if (before < 0) {
                break;
            }
            child += (size_t)before;
        }
        path[depth++] = child;
    }
    while (before >= 0 && depth > 0) {
        before = priority_before(heap->entries[last], heap->entries[path[depth - 1]]);
        if (before <= 0) {
            break;
        }
        depth--;
    }
    heap->comparing = 0;
    return before < 0 ? -1 : depth;
}

/* ---- in and out ------------------------------------------------------------------------------ */

/* At the place that has been found for it; entries[len] is free. */
static void
objectheap_move_in(struct objectheap *heap, struct priority_entry entry, size_t at)
{
    size_t hole = heap->len++;
    while (hole > at) {
        size_t parent = (hole - 1) / 2;
        heap->entries[hole] = heap->entries[parent];
        hole = parent;
    }
    heap->entries[at] = entry;
}

/* Adds the entry, whose number is that of the next arrival, at the place that has been found for
 * it; there is room. Its object is the heap's from now on. */
static void
objectheap_insert(struct objectheap *heap, struct priority_entry entry, size_t at)
{
    assert(objectheap_len(heap) < heap->room);
    heap->arrivals = entry.number;
    if (heap->loose > 0) {  /* makes room for it */
        heap->entries[objectheap_len(heap)] = heap->entries[heap->len];
    }
    objectheap_move_in(heap, entry, at);
}

/* Adds the object, for which there is room: 0, and its reference is the heap's; or -1 with the
 * exception of a comparison, and nothing has changed. Beware: runs Python. */
static int
objectheap_push(struct objectheap *heap, PyObject *object)
{
    struct priority_entry entry = {object, heap->arrivals + 1};
    size_t at;
    if (objectheap_find_place(heap, entry, &at) < 0) {
        return -1;
    }
    objectheap_insert(heap, entry, at);
    return 0;
}

/* An object that was in there comes back with its number; there is room. Compares nothing, and is
 * the one thing that may be done while something is compared. Steals object. */
static inline void
objectheap_put_back(struct objectheap *heap, PyObject *object_steal, uint64_t number)
{
    assert(objectheap_len(heap) < heap->room);
    heap->entries[objectheap_len(heap)] = (struct priority_entry){object_steal, number};
    heap->loose++;
}

/* Takes the first one out, which is the caller's now; there is one. NULL with the exception of a
 * comparison, and nothing has been lost. Beware: runs Python. */
static PyObject *
objectheap_pop(struct objectheap *heap, uint64_t *number)
{
    size_t path[OBJECTHEAP_DEPTH];
    int depth;
    do {
        while (heap->loose > 0) {
            struct priority_entry entry = heap->entries[heap->len];
            size_t at;
            if (objectheap_find_place(heap, entry, &at) < 0) {
                return NULL;
            }
            heap->loose--;
            objectheap_move_in(heap, entry, at);
        }
        depth = objectheap_find_path(heap, path);
        if (depth < 0) {
            return NULL;
        }
    } while (heap->loose > 0);  /* came back meanwhile, and may be the lowest */

    struct priority_entry first = heap->entries[0], last = heap->entries[--heap->len];
    size_t hole = 0;
    for (int i = 0; i < depth; i++) {
        heap->entries[hole] = heap->entries[path[i]];
        hole = path[i];
    }
    heap->entries[hole] = last;
    *number = first.number;
    return first.object;
}

/* ---- for the collector ----------------------------------------------------------------------- */

static inline int
objectheap_traverse(const struct objectheap *heap, visitproc visit, void *arg)
{
    for (size_t i = 0; i < objectheap_len(heap); i++) {
        Py_VISIT(heap->entries[i].object);
    }
    return 0;
}

/* Drops all that is in it now. Beware: what dies may run Python, which may fill it anew. */
static inline void
objectheap_clear(struct objectheap *heap)
{
    struct objectheap old = *heap;
    *heap = (struct objectheap){.arrivals = old.arrivals};
    for (size_t i = 0; i < objectheap_len(&old); i++) {
        Py_DECREF(old.entries[i].object);
    }
    PyMem_Free(old.entries);
}

#endif /* SLEEPLOOP_BASE_OBJECTHEAP_H */
