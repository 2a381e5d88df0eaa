/* offer.h: what a Store does with its items: offers them to those who wait, and asks their filters.
 *
 * Filters are Python, and may do anything. While one is being asked the store is `busy`: a put is
 * accepted, and what is given back as well, but neither goes further; who is at it will see to
 * that. Nothing is taken out meanwhile, so that the item that the filter is asked about stays
 * where it is: at the cursor.
 */
#ifndef SLEEPLOOP_SIM_OFFER_H
#define SLEEPLOOP_SIM_OFFER_H

#include "../base/compat.h"
#include "../base/objectring.h"
#include "../core/args.h"
#include "../core/taskobject.h"
#include "../wait/handoff.h"
#include "../wait/meter.h"
#include "../wait/waitable.h"
#include "../wait/waitlist.h"

/* A get under way: it is behind those who wait. */
struct seeker {
    PyObject *filter;  /* borrowed, or NULL */
    PyObject *item;    /* owned: what it has found */
    PyObject *error;   /* owned: what its filter has raised */
};

/* At rest each getter has been asked about each item, and nobody waits to put something unless the
 * store is full. A getter's value is its filter, or NULL; then its item. A getter's number tells
 * when it was asked last, and they stand in that order. Begins as a HandoffObject does. */
typedef struct {
    SYNC_HEAD
    struct handoff hand;
    size_t new_front, new_back; /* items at either end that have not been offered to the getters */
    size_t cursor;             /* while busy: index of the item that is asked about */
    struct seeker *seeker;     /* while busy, or NULL: is to be asked about what is new as well */
    uint64_t moment;           /* a count of things that happened; it orders them */
    uint64_t added;            /* moment at which an item came last */
    int busy;
} StoreObject;

/* ---- filters --------------------------------------------------------------------------------- */

/* Whether a filter, which is borrowed, lets the item at the cursor through: 1 or 0, or -1 with an
 * exception. Beware: runs arbitrary Python, while the store is busy. */
static int
store_ask(StoreObject *self, PyObject *filter)
{
    assert(self->busy);
    if (filter == NULL) {
        return 1;
    }
    PyObject *item = Py_NewRef(objectring_get(&self->hand.items, self->cursor));
    Py_INCREF(filter);
    PyObject *answer = PyObject_CallOneArg(filter, item);
    int yes = answer != NULL ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    Py_DECREF(filter);
    Py_DECREF(item);
    return yes;
}

/* ---- brought and taken ----------------------------------------------------------------------- */

/* The item at the cursor goes to the parked getter. Beware: drops its filter. */
static void
store_hand_over(StoreObject *self, WaitObject *wait)
{
    PyObject *filter = wait->value;
    handoff_give(&self->hand, wait, objectring_take(&self->hand.items, self->cursor));
    Py_XDECREF(filter);
}

/* What a filter of the wait has raised is set. */
static void
store_filter_failed(WaitObject *wait)
{
    if (wait->parked) {
        wait_fail_steal(wait, PyErr_GetRaisedException());
    }
    else {  /* it was cancelled meanwhile, so the error has nowhere to go */
        PyErr_WriteUnraisable(wait->value);
    }
}

/* Asks the one who seeks about the item at the cursor. 1: he needs no further one. Beware: runs
 * Python. */
static int
store_show(StoreObject *self, struct seeker *seeker)
{
    int yes = store_ask(self, seeker->filter);
    if (yes > 0) {
        seeker->item = objectring_take(&self->hand.items, self->cursor);
        flow_meter_get(self->hand.meter, NULL);
    }
    else if (yes < 0) {
        seeker->error = PyErr_GetRaisedException();
    }
    return yes != 0;
}

/* Offers the item at the cursor to those who wait, one after the other, until one takes it.
 * Beware: runs Python, which may cancel any of them. */
static void
store_offer(StoreObject *self)
{
    struct link *l = self->hand.getters.tasks.next;
    double asked = -1;
    while (l != &self->hand.getters.tasks) {
        WaitObject *wait = (WaitObject *)TASK_OF_LINK(l)->payload;
        if (wait->number <= asked) {
            l = l->next;
            continue;
        }
        asked = wait->number;
        Py_INCREF(wait);
        int yes = store_ask(self, wait->value);
        if (yes == 0 && wait->parked) {
            Py_DECREF(wait);  /* its task's payload: it does not die */
            l = l->next;
            continue;
        }
        int taken = yes > 0 && wait->parked;
        if (taken) {
            store_hand_over(self, wait);
        }
        else if (yes < 0) {
            store_filter_failed(wait);
        }
        Py_DECREF(wait);
        if (taken) {
            return;
        }
        l = self->hand.getters.tasks.next;  /* where it stood there is nothing to go on from */
    }
    if (self->seeker != NULL && store_show(self, self->seeker)) {
        self->seeker = NULL;
    }
}

/* One more item, for which there is room, behind the others. Steals item. */
static void
store_add(StoreObject *self, PyObject *item_steal)
{
    objectring_push(&self->hand.items, item_steal);
    self->new_back++;
    self->added = ++self->moment;
}

/* Until nothing more can happen: offers what is new, and lets in who waits for room. No exception
 * is set. Beware: runs Python. */
static void
store_settle(StoreObject *self)
{
    assert(self->busy);
    for (;;) {
        WaitObject *wait;
        if (self->new_front > 0) {
            self->cursor = self->new_front - 1;
            store_offer(self);
            self->new_front--;
        }
        else if (self->new_back > 0) {
            self->cursor = self->hand.items.len - self->new_back;
            store_offer(self);
            self->new_back--;
        }
        else if ((wait = waitlist_first(&self->hand.putters)) == NULL
                 || self->hand.items.len >= self->hand.capacity) {
            break;
        }
        else if (handoff_reserve(&self->hand) == 0) {
            store_add(self, handoff_let_in(&self->hand, wait));
        }
        else {
            wait_fail_steal(wait, PyErr_GetRaisedException());
        }
    }
    handoff_measure(&self->hand);
}

static void
store_settle_if_idle(StoreObject *self)
{
    if (!self->busy) {
        self->busy = 1;
        store_settle(self);
        self->busy = 0;
    }
}

/* 1: it has been put; 0: that has to wait; -1 with MemoryError. Borrows item. */
static int
store_put(StoreObject *self, PyObject *item)
{
    struct handoff *h = &self->hand;
    if (h->items.len >= h->capacity || waitlist_first(&h->putters) != NULL) {
        return 0;
    }
    if (handoff_reserve(h) < 0) {
        return -1;
    }
    store_add(self, Py_NewRef(item));
    flow_meter_put(h->meter, NULL);
    store_settle_if_idle(self);
    return 1;
}

/* *item: the first that passes, a new reference: 1; 0: that has to wait; -1 with an exception.
 * What comes meanwhile is for those who wait already, before it is for this one. Beware: runs
 * Python. */
static int
store_get(StoreObject *self, const char *function, PyObject *filter, PyObject **item)
{
    struct seeker seeker = {.filter = filter};
    if (self->busy) {
        raise_about(PyExc_RuntimeError, "%s: %U%s", function, (PyObject *)self,
                    " is asking a filter, which must not take anything out of it");
        return -1;
    }
    assert(self->new_front == 0 && self->new_back == 0);
    self->busy = 1;
    self->seeker = &seeker;
    for (self->cursor = 0; self->cursor < self->hand.items.len - self->new_back; self->cursor++) {
        if (store_show(self, &seeker)) {
            self->seeker = NULL;
            break;
        }
    }
    store_settle(self);
    self->seeker = NULL;
    self->busy = 0;
    if (seeker.error != NULL) {
        PyErr_SetRaisedException(seeker.error);
        return -1;
    }
    *item = seeker.item;
    return seeker.item != NULL;
}

#endif /* SLEEPLOOP_SIM_OFFER_H */
