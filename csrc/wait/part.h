/* part.h: how Queues, Resources, Containers and Stores are made, also by subclasses.
 *
 * What a class does in __init__() is done once, and all at once: a subclass may have forgotten it,
 * call it twice or from an argument's __index__(). Until then there is no room for anything, by
 * which the methods know.
 */
#ifndef SLEEPLOOP_WAIT_PART_H
#define SLEEPLOOP_WAIT_PART_H

#include "../base/compat.h"
#include "../core/args.h"
#include "../core/loopobject.h"
#include "../core/state.h"
#include "waitable.h"
#include "waitlist.h"

/* The arguments that all have, after their own: their names; their format in
 * PyArg_ParseTupleAndKeywords(); and where they go. */
#define PART_OPTION_NAMES "name", "stats", "loop"
#define PART_OPTION_FORMAT "$OpO"
#define PART_OPTION_PLACES(options) &(options).name_obj, &(options).stats, &(options).loop_obj

struct part_options {
    PyObject *name_obj, *loop_obj;  /* borrowed: as they were given, or NULL */
    int stats;
    PyObject *name;                 /* owned exact str, or NULL */
    LoopObject *loop;               /* borrowed: the one on whose time it counts, or NULL */
};

COLD static int
raise_not_made(const char *type)
{
    PyErr_Format(PyExc_RuntimeError, "%s.__init__() was not called", type);
    return -1;
}

/* For methods: 0, or -1 with a RuntimeError. */
static inline int
part_check_made(int is_made, const char *type)
{
    return is_made ? 0 : raise_not_made(type);
}

/* loop=: 0, or -1 with an exception. */
static int
part_loop_from_object(ModuleState *state, const char *function, PyObject *obj, LoopObject **loop)
{
    *loop = NULL;
    if (obj == NULL || obj == Py_None) {
        return 0;
    }
    if (!PyObject_TypeCheck(obj, state->LoopType)) {
        raise_about(PyExc_TypeError, "%s: loop must be a SleepingLoop, not %U%s", function, obj, "");
        return -1;
    }
    *loop = (LoopObject *)obj;
    return loop_check_usable(*loop, function) < 0 || loop_need_thread(*loop, function) < 0 ? -1 : 0;
}

/* All that can be wrong with them, after whatever runs Python: 0, and the name is the caller's; or
 * -1 with an exception. function: "Queue()" */
static int
part_options_check(PyObject *op, int is_made, const char *function, struct part_options *options)
{
    if (is_made) {
        PyErr_Format(PyExc_RuntimeError, "%s: its __init__() was called before", function);
        return -1;
    }
    ModuleState *state = state_of_base(Py_TYPE(op));
    if (part_loop_from_object(state, function, options->loop_obj, &options->loop) < 0) {
        return -1;
    }
    return sync_name_from_object(function, options->name_obj, &options->name);
}

/* The last step, which cannot fail. */
static void
part_made(PyObject *op, struct part_options *options)
{
    SyncObject *self = (SyncObject *)op;
    self->name = options->name;
    if (options->loop != NULL) {
        self->loop_number = options->loop->number;
    }
}

#endif /* SLEEPLOOP_WAIT_PART_H */
