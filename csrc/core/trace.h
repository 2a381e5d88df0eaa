/* trace.h: the last events of a loop, in a ring: who slept, waited, woke whom, and where.
 *
 * Knows nothing of files or pictures: those are made in Python (sleeploop/tracing.py) of what
 * traceread.h hands over. A loop that is not traced pays a look at a pointer for each hook; one
 * that is writes 32 bytes and looks a place up. Nothing here fails, and but for trace_here() in
 * 3.11 and the audit hooks of trace_end() nothing runs Python: the names that events own are exact
 * strs, and code objects are kept until the loop goes.
 */
#ifndef SLEEPLOOP_CORE_TRACE_H
#define SLEEPLOOP_CORE_TRACE_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "../base/ring.h"
#include "../base/shuffle.h"
#include "kinds.h"
#include "loopobject.h"
#include "scopeobject.h"
#include "taskobject.h"

enum trace_kind {
    TRACE_SPAWN,       /* other: the task that made it; place: the call */
    TRACE_SLEEP,       /* parked with a wake-up time, or for ever; place: the innermost await */
    TRACE_CHECKPOINT,  /* stepped aside; place: likewise */
    TRACE_BLOCK,       /* waits for others; other: for whom, if it is one task; place: likewise */
    TRACE_WAKE,        /* other: the task that did it; 0: a timer */
    TRACE_CANCEL,      /* a scope; task: whose; how: enum cancel_source; other: who did it;
                          place: the call */
    TRACE_END,         /* how: enum task_state; place: the first line of its coroutine */
};

struct trace_event {
    int64_t time;    /* nanoseconds of loop time */
    PyObject *name;  /* owned exact str, or NULL: TRACE_END: the task's; TRACE_BLOCK: that of
                        what it waits at */
    uint32_t task, other;  /* numbers; 0: none */
    uint32_t place;  /* 1 + index in `places`; 0: not known */
    uint8_t kind;    /* enum trace_kind */
    uint8_t how;
    uint16_t choice;  /* if it ends a step: which of the ready tasks made it, 0: the first */
};

/* Instructions rather than lines: to find a line takes long, and few are ever read. */
struct trace_place {
    PyObject *code;  /* owned */
    int offset;      /* of the instruction, in bytes; -1: the code as a whole */
    int is_ours;     /* it is the package's code, which somebody else has called */
};

struct trace {
    struct trace_event *events;
    size_t capacity, next;   /* of `events`; where the next one goes */
    uint64_t total;          /* events so far */
    uint32_t here;           /* place of the await or the call that the next event comes of */
    uint32_t finishing;      /* the task that is ending, when it is the current one no more */
    int64_t finished;        /* and when it did: what follows from it happens then */
    PyObject *package;       /* owned: what the names of the package's files begin with */
    struct trace_place *places;
    uint32_t *table;         /* open addressing: 1 + index in `places`; 0: free */
    uint32_t n_places, room; /* `table` has twice the room of `places`, a power of two */
};

#define TRACE_PLACES 65536  /* at most: what is made anew and anew by exec() is not to pile up */
#define TRACE_MAX (INT64_C(1) << 31)

/* package: a str, borrowed. NULL if there is no memory. */
static struct trace *
trace_new(size_t capacity, PyObject *package)
{
    struct trace *trace = PyMem_Calloc(1, sizeof *trace);
    if (trace == NULL) {
        return NULL;
    }
    trace->events = PyMem_Calloc(capacity, sizeof *trace->events);
    if (trace->events == NULL) {
        PyMem_Free(trace);
        return NULL;
    }
    trace->capacity = capacity;
    trace->package = Py_NewRef(package);
    return trace;
}

static inline size_t
trace_len(const struct trace *trace)
{
    return trace->total < trace->capacity ? (size_t)trace->total : trace->capacity;
}

/* Takes NULL, too. Beware: code objects may have weak references with callbacks. */
static void
trace_free(struct trace *trace)
{
    if (trace == NULL) {
        return;
    }
    for (size_t i = 0; i < trace_len(trace); i++) {
        Py_XDECREF(trace->events[i].name);
    }
    for (uint32_t i = 0; i < trace->n_places; i++) {
        Py_DECREF(trace->places[i].code);
    }
    Py_DECREF(trace->package);
    PyMem_Free(trace->events);
    PyMem_Free(trace->places);
    PyMem_Free(trace->table);
    PyMem_Free(trace);
}

/* ---- places ---------------------------------------------------------------------------------- */

/* Where a place stands in the table, or would. */
static inline uint32_t *
trace_slot(const struct trace *trace, PyObject *code, int offset)
{
    uint64_t hash = ((uint64_t)(uintptr_t)code + (uint64_t)(uint32_t)offset)
                    * UINT64_C(0x9E3779B97F4A7C15);
    uint32_t mask = 2 * trace->room - 1;
    for (uint32_t i = (uint32_t)(hash >> 32) & mask;; i = (i + 1) & mask) {
        uint32_t *slot = &trace->table[i];
        if (*slot == 0 || (trace->places[*slot - 1].code == code
                           && trace->places[*slot - 1].offset == offset)) {
            return slot;
        }
    }
}

/* Makes room for another place: 0, or -1 without an exception set. */
static int
trace_grow_places(struct trace *trace)
{
    uint32_t room = trace->room > 0 ? 2 * trace->room : 64;
    if (room > TRACE_PLACES) {
        return -1;
    }
    struct trace_place *places = PyMem_Realloc(trace->places, room * sizeof *places);
    if (places == NULL) {
        return -1;
    }
    trace->places = places;
    uint32_t *table = PyMem_Calloc(2 * (size_t)room, sizeof *table);
    if (table == NULL) {
        return -1;
    }
    PyMem_Free(trace->table);
    trace->table = table;
    trace->room = room;
    for (uint32_t i = 0; i < trace->n_places; i++) {
        *trace_slot(trace, places[i].code, places[i].offset) = i + 1;
    }
    return 0;
}

static int
trace_is_ours(const struct trace *trace, PyCodeObject *code)
{
    return PyUnicode_Tailmatch(code->co_filename, trace->package, 0, PY_SSIZE_T_MAX, -1) > 0;
}

/* The number of a place; 0 if there is no room for it. Steals code, which may be NULL. */
static uint32_t
trace_place_steal(struct trace *trace, PyObject *code, int offset)
{
    if (code == NULL) {
        return 0;
    }
    uint32_t place = trace->room > 0 ? *trace_slot(trace, code, offset) : 0;
    if (place == 0
        && (trace->n_places < trace->room || trace_grow_places(trace) == 0)) {
        trace->places[trace->n_places] = (struct trace_place){
            code, offset, trace_is_ours(trace, (PyCodeObject *)code)};
        place = *trace_slot(trace, code, offset) = ++trace->n_places;
        return place;
    }
    Py_DECREF(code);
    return place;
}

/* The code object of a native coroutine or generator, a new reference; NULL without an exception
 * set for anything else. PyGen_GetCode() takes generators alone, as debug builds check. Beware:
 * audit hooks are asked, which are Python. */
static PyObject *
trace_code_of(PyObject *coro)
{
    if (!PyCoro_CheckExact(coro) && !PyGen_CheckExact(coro)) {
        return NULL;
    }
    Py_INCREF(coro);
    PyObject *code =
        PyObject_GetAttrString(coro, PyCoro_CheckExact(coro) ? "cr_code" : "gi_code");
    Py_DECREF(coro);
    PyErr_Clear();
    return code;
}

/* The place further out, within the task, where other code has called the package's, as gather();
 * `place` if there is none. Beware: in 3.11 a collection may run. */
COLD static uint32_t
trace_caller(const LoopObject *loop, uint32_t place)
{
    struct trace *trace = loop->trace;
    if (loop->current == NULL) {
        return place;
    }
    PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
    while (frame != NULL) {
        PyObject *code = (PyObject *)PyFrame_GetCode(frame);
        if (!trace_is_ours(trace, (PyCodeObject *)code)) {
            place = trace_place_steal(trace, code, PyFrame_GetLasti(frame));
            break;
        }
        Py_DECREF(code);
        PyObject *coro = PyFrame_GetGenerator(frame);
        Py_XDECREF(coro);  /* never the last one */
        if (coro == loop->current->coro) {
            break;
        }
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = back;
    }
    Py_XDECREF(frame);
    PyErr_Clear();  /* no memory for a frame */
    return place;
}

/* The place of the Python code that is calling. Beware: in 3.11 a collection may run. */
static __attribute__((noinline)) uint32_t
trace_here(const LoopObject *loop)
{
    int offset = 0;
    PyObject *code = compat_running_code(&offset);
    uint32_t place = trace_place_steal(loop->trace, code, offset);
    if (place != 0 && loop->trace->places[place - 1].is_ours) {
        return trace_caller(loop, place);
    }
    return place;
}

/* Notes it for an event that is about to come: a scope is cancelled. */
static inline void
trace_note(LoopObject *loop)
{
    if (loop->trace != NULL) {
        loop->trace->here = trace_here(loop);
    }
}

/* Likewise in a loop that is traced: a trap is awaited. One that is a task by itself is awaited by nobody. */
static void
trace_await(LoopObject *loop, PyObject *trap)
{
    int is_task = loop->current != NULL && loop->current->coro == trap;
    loop->trace->here = is_task ? 0 : trace_here(loop);
}

/* Likewise, by one into which something has been thrown: the interpreter does not tell where. */
static inline void
trace_await_thrown(LoopObject *loop)
{
    if (loop->trace != NULL) {
        loop->trace->here = 0;
    }
}

/* ---- events ---------------------------------------------------------------------------------- */

/* Whether a task's events are kept: the loop's own tasks are nobody's business. */
static inline int
trace_shows(const LoopObject *loop, const TaskObject *task)
{
    return loop->trace != NULL && !(task->flags & TASK_HIDDEN);
}

/* The number of the task that does what happens now; 0: none does. */
static inline uint32_t
trace_actor(const LoopObject *loop)
{
    const TaskObject *task = loop->current;
    if (task == NULL) {
        return loop->trace->finishing;
    }
    return task->flags & TASK_HIDDEN ? 0 : task->number;
}

/* Over the oldest event if all room is taken. */
static __attribute__((noinline)) struct trace_event *
trace_add(const LoopObject *loop, enum trace_kind kind, uint32_t task, uint32_t other,
          uint32_t place)
{
    struct trace *trace = loop->trace;
    struct trace_event *event = &trace->events[trace->next];
    trace->next = trace->next + 1 < trace->capacity ? trace->next + 1 : 0;
    trace->total++;
    Py_XDECREF(event->name);
    *event = (struct trace_event){
        .time = trace->finishing != 0 ? trace->finished : clock_now(&loop->clock),
        .task = task,
        .other = other,
        .place = place,
        .kind = (uint8_t)kind,
        .choice = loop->shuffle != NULL ? loop->shuffle->latest : 0,
    };
    return event;
}

static inline void
trace_spawn(const LoopObject *loop, const TaskObject *task, uint32_t place)
{
    if (trace_shows(loop, task)) {
        trace_add(loop, TRACE_SPAWN, task->number, trace_actor(loop), place);
    }
}

static __attribute__((noinline)) void
trace_parked(const LoopObject *loop, const TaskObject *task, int is_noted)
{
    struct trace *trace = loop->trace;
    const Awaitable *await = task_await_borrowed(task);
    enum trace_kind kind = TRACE_CHECKPOINT;
    uint32_t other = 0;
    PyObject *name = NULL;
    if (await != NULL) {
        const struct await_kind *row = await_kind(await);
        kind = row->is_sleep ? TRACE_SLEEP : TRACE_BLOCK;
        other = row->blocker != NULL ? row->blocker(await) : 0;
        name = row->name != NULL ? row->name(await) : NULL;
    }
    uint32_t place = is_noted ? trace->here : 0;
    trace_add(loop, kind, task->number, other, place)->name = Py_XNewRef(name);
    trace->here = 0;
}

/* The task has just been parked, or has stepped aside. is_noted: by a trap of ours. */
static inline void
trace_park(const LoopObject *loop, const TaskObject *task, int is_noted)
{
    if (trace_shows(loop, task)) {
        trace_parked(loop, task, is_noted);
    }
}

static inline void
trace_wake(const LoopObject *loop, const TaskObject *task)
{
    if (trace_shows(loop, task)) {
        trace_add(loop, TRACE_WAKE, task->number, trace_actor(loop), 0);
    }
}

/* Whether a cancellation tells something: not so that of the loop's root when no task is left,
 * as at the end of each run, and not one that is how gather() and the like wake a task. */
static int
trace_shows_cancel(const LoopObject *loop, const ScopeObject *scope)
{
    const TaskObject *task = scope->task;
    if (scope == loop->root) {
        return !ring_empty(&loop->live);
    }
    const Awaitable *await = task != NULL && task->scope == scope ? task_await_borrowed(task) : NULL;
    return await == NULL || !await_kind(await)->is_signal;
}

/* A scope of the task of that number has been cancelled; 0: the loop's root. */
static inline void
trace_cancel(const LoopObject *loop, const ScopeObject *scope, uint32_t task)
{
    struct trace *trace = loop->trace;
    if (trace != NULL && trace_shows_cancel(loop, scope)) {
        uint32_t place = scope->source == SOURCE_EXPLICIT ? trace->here : 0;
        trace_add(loop, TRACE_CANCEL, task, trace_actor(loop), place)->how = scope->source;
        trace->here = 0;
    }
}

/* A scope has been entered that was cancelled before. */
COLD static void
trace_enter_cancelled(const LoopObject *loop, const ScopeObject *scope)
{
    struct trace_event *event = trace_add(loop, TRACE_CANCEL, scope->task->number,
                                          scope->by_number, 0);
    event->how = scope->source;
}

/* The task has ended; what it wakes and cancels by that comes before trace_ended(). Beware: audit
 * hooks run. */
static inline void
trace_end(const LoopObject *loop, const TaskObject *task)
{
    if (trace_shows(loop, task)) {
        struct trace *trace = loop->trace;
        uint32_t place = trace_place_steal(trace, trace_code_of(task->coro), -1);
        struct trace_event *event = trace_add(loop, TRACE_END, task->number, 0, place);
        event->how = task->state;
        event->name = Py_XNewRef(task->name);
        trace->finishing = task->number;
        trace->finished = event->time;
    }
}

static inline void
trace_ended(const LoopObject *loop)
{
    if (loop->trace != NULL) {
        loop->trace->finishing = 0;
    }
}

#endif /* SLEEPLOOP_CORE_TRACE_H */
