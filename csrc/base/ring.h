/* ring.h: rings of links, first in, first out.
 *
 * Knows no Python object: whoever stands in a ring embeds a `struct link`. A
 * ring is circular and doubly linked through its own head, so a link can leave
 * from the middle, and neither joining nor leaving allocates or fails. The same
 * ring serves the ready tasks, the tasks at one waitlist, and the loop's
 * register of tasks.
 */
#ifndef SLEEPLOOP_BASE_RING_H
#define SLEEPLOOP_BASE_RING_H

#include "compat.h"

#include <stddef.h>

struct link {
    struct link *next, *prev;  /* both NULL outside of any ring */
};

/* The struct of the given type whose member `member` is *link. */
#define LINK_OWNER(link, type, member) ((type *)((char *)(link) - offsetof(type, member)))

static inline void
ring_init(struct link *head)
{
    head->next = head->prev = head;
}

static inline int
ring_empty(const struct link *head)
{
    return head->next == head;
}

static inline int
link_in_ring(const struct link *link)
{
    return link->next != NULL;
}

/* Appends link, which stands in no ring. */
static inline void
ring_push(struct link *head, struct link *link)
{
    assert(link->next == NULL);
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

/* Takes link out of whichever ring it is in. */
static inline void
link_remove(struct link *link)
{
    assert(link->next != NULL);
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->next = link->prev = NULL;
}

/* Takes the first link out; NULL when the ring is empty. */
static inline struct link *
ring_pop(struct link *head)
{
    struct link *link = head->next;
    if (link == head) {
        return NULL;
    }
    link_remove(link);
    return link;
}

/* A chain is a ring without a head, for where eight bytes count: *first is its first
 * link, or NULL. Whoever takes a link out has to know whose it is. */
static inline void
chain_push(struct link **first, struct link *link)
{
    assert(link->next == NULL);
    if (*first == NULL) {
        *first = link->next = link->prev = link;
        return;
    }
    struct link *next = *first;
    link->prev = next->prev;
    link->next = next;
    next->prev->next = link;
    next->prev = link;
}

static inline void
chain_remove(struct link **first, struct link *link)
{
    assert(link_in_ring(link));
    if (*first == link) {
        *first = link->next != link ? link->next : NULL;
    }
    link_remove(link);
}

#endif /* SLEEPLOOP_BASE_RING_H */
