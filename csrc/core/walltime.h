/* walltime.h: between the loop's integers and Python's datetime.
 *
 * Wall-clock moments are int64 microseconds since 1970 UTC, datetime's own
 * resolution, which covers the years 1 to 9999. Only sleeps that speak of
 * datetimes come here; the one exception on the fast path is timedelta_from_ns.
 */
#ifndef SLEEPLOOP_CORE_WALLTIME_H
#define SLEEPLOOP_CORE_WALLTIME_H

#include "../base/clock.h"
#include "../base/compat.h"
#include "args.h"
#include "loopobject.h"
#include "state.h"

#define US_PER_SEC INT64_C(1000000)
#define SEC_PER_DAY INT64_C(86400)
/* The first and the last moments that are datetimes in every zone: 0001-01-02 and
 * 9999-12-30, UTC. */
#define WALL_MIN (INT64_C(-62135510400) * US_PER_SEC)
#define WALL_MAX (INT64_C(253402128000) * US_PER_SEC)
#define WALL_MOST_SEC (10000 * 366 * SEC_PER_DAY)  /* more than any datetime is from 1970 */
#define WALL_STEP (1000 * NS_PER_US)        /* by so much it may drift unnoticed */
#define WALL_LOOK_EVERY (NS_PER_SEC / 2)    /* how often to look, of real time */
#define MOST_DAYS INT64_C(999999999)  /* of a timedelta */

static int
walltime_init(ModuleState *state)
{
    (void)PyDateTimeAPI;  /* datetime.h's static copy would be shared by all interpreters */
    PyObject *module = import_module("datetime");
    if (module == NULL) {
        return -1;
    }
    PyObject *capsule = PyObject_GetAttrString(module, "datetime_CAPI");
    if (capsule != NULL) {
        state->datetime_api =
            (PyDateTime_CAPI *)PyCapsule_GetPointer(capsule, PyDateTime_CAPSULE_NAME);
        Py_DECREF(capsule);
    }
    else if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
    }
    if (PyErr_Occurred()) {
        Py_DECREF(module);
        return -1;
    }
    int rc = -1;
    PyObject *timezone_type = PyObject_GetAttrString(module, "timezone");
    state->datetime_type = PyObject_GetAttrString(module, "datetime");
    state->timedelta_type = PyObject_GetAttrString(module, "timedelta");
    if (timezone_type != NULL && state->datetime_type != NULL && state->timedelta_type != NULL) {
        state->utc = PyObject_GetAttrString(timezone_type, "utc");
    }
    if (state->utc != NULL) {
        state->epoch = PyObject_CallFunction(state->datetime_type, "iiiiiiiO", 1970, 1, 1, 0, 0, 0,
                                             0, state->utc);
        rc = state->epoch != NULL ? 0 : -1;
    }
    Py_XDECREF(timezone_type);
    Py_DECREF(module);
    return rc;
}

/* A non-negative time, rounded up to timedelta's microseconds, so that it never
 * looks shorter than it was. */
static inline PyObject *
timedelta_from_ns(ModuleState *state, int64_t ns)
{
    int64_t us = ns / NS_PER_US + (ns % NS_PER_US > 0);
    int64_t seconds = us / US_PER_SEC;
    int days = (int)(seconds / SEC_PER_DAY), rest = (int)(seconds % SEC_PER_DAY);
    PyDateTime_CAPI *api = state->datetime_api;
    if (api != NULL) {
        return api->Delta_FromDelta(days, rest, (int)(us % US_PER_SEC), 0, api->DeltaType);
    }
    return PyObject_CallFunction(state->timedelta_type, "iii", days, rest, (int)(us % US_PER_SEC));
}

static int
is_datetime(ModuleState *state, PyObject *obj)
{
    return PyObject_TypeCheck(obj, (PyTypeObject *)state->datetime_type);
}

static int
is_timedelta(ModuleState *state, PyObject *obj)
{
    return PyObject_TypeCheck(obj, (PyTypeObject *)state->timedelta_type);
}

static int
int_attribute(PyObject *obj, const char *name, int64_t *value)
{
    PyObject *attr = PyObject_GetAttrString(obj, name);
    if (attr == NULL) {
        return -1;
    }
    *value = PyLong_AsLongLong(attr);
    Py_DECREF(attr);
    return *value == -1 && PyErr_Occurred() ? -1 : 0;
}

/* In seconds and microseconds: a billion days do not fit into 64 bits of microseconds. */
static int
timedelta_fields(PyObject *delta, int64_t *seconds, int64_t *us)
{
    int64_t days;
    if (int_attribute(delta, "days", &days) < 0 || int_attribute(delta, "seconds", seconds) < 0
        || int_attribute(delta, "microseconds", us) < 0) {
        return -1;
    }
    if (days < -MOST_DAYS || days > MOST_DAYS || *seconds < 0 || *seconds >= SEC_PER_DAY || *us < 0
        || *us >= US_PER_SEC) {
        PyErr_SetString(PyExc_OverflowError, "a timedelta's fields are out of range");
        return -1;
    }
    *seconds += days * SEC_PER_DAY;
    return 0;
}

static int
ns_from_timedelta(PyObject *delta, int64_t *ns)
{
    int64_t seconds, us;
    if (timedelta_fields(delta, &seconds, &us) < 0) {
        return -1;
    }
    const int64_t limit = TIME_FOREVER / NS_PER_SEC;
    *ns = seconds >= limit    ? TIME_FOREVER
          : seconds <= -limit ? -TIME_FOREVER
                              : seconds * NS_PER_SEC + us * NS_PER_US;
    return 0;
}

/* Microseconds since 1970 UTC; a naive datetime is local time, as everywhere in
 * datetime. Errors are datetime's own, or its time zone's. */
static int
wall_from_datetime(ModuleState *state, PyObject *datetime, int64_t *us)
{
    PyObject *utc = PyObject_CallMethod(datetime, "astimezone", "O", state->utc);
    if (utc == NULL) {
        return -1;
    }
    PyObject *delta = PyNumber_Subtract(utc, state->epoch);
    Py_DECREF(utc);
    if (delta == NULL) {
        return -1;
    }
    int64_t seconds;
    int rc = timedelta_fields(delta, &seconds, us);
    Py_DECREF(delta);
    if (rc == 0 && (seconds > WALL_MOST_SEC || seconds < -WALL_MOST_SEC)) {
        PyErr_SetString(PyExc_OverflowError, "datetime out of range");
        return -1;
    }
    if (rc == 0) {
        *us += seconds * US_PER_SEC;
    }
    return rc;
}

/* Likewise for a moment to wait for: datetime.min and datetime.max, by which people
 * mean at once and never, are no moments in most zones. */
static int
wall_from_deadline(ModuleState *state, PyObject *datetime, int64_t *us)
{
    if (wall_from_datetime(state, datetime, us) == 0) {
        return 0;
    }
    if (!PyErr_ExceptionMatches(PyExc_OverflowError) && !PyErr_ExceptionMatches(PyExc_ValueError)) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    int64_t year;
    if (int_attribute(datetime, "year", &year) == 0 && (year == 1 || year == 9999)) {
        *us = year == 1 ? WALL_MIN : WALL_MAX;
        Py_DECREF(exc);
        return 0;
    }
    PyErr_SetRaisedException(exc);
    return -1;
}

/* The datetime of a moment: naive local time, or in UTC. A whole number of seconds
 * first, as floats lose microseconds in far years; fromtimestamp also sets `fold`. */
static PyObject *
datetime_from_timestamp(ModuleState *state, int64_t us, PyObject *none_or_utc)
{
    int64_t seconds = us / US_PER_SEC, rest = us % US_PER_SEC;
    if (rest < 0) {
        rest += US_PER_SEC;
        seconds--;
    }
    PyObject *whole = PyObject_CallMethod(state->datetime_type, "fromtimestamp", "LO",
                                          (long long)seconds, none_or_utc);
    if (whole == NULL || rest == 0) {
        return whole;
    }
    PyObject *replace = PyObject_GetAttrString(whole, "replace");
    Py_DECREF(whole);
    PyObject *kwargs = Py_BuildValue("{sL}", "microsecond", (long long)rest);
    PyObject *args = PyTuple_New(0);
    PyObject *result = replace != NULL && kwargs != NULL && args != NULL
                           ? PyObject_Call(replace, args, kwargs)
                           : NULL;
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    Py_XDECREF(replace);
    return result;
}

/* The datetime of a moment in zone tz; Py_None: naive local time. */
static PyObject *
datetime_from_wall(ModuleState *state, int64_t us, PyObject *tz)
{
    if (tz == Py_None || tz == state->utc) {
        return datetime_from_timestamp(state, us, tz);
    }
    PyObject *utc = datetime_from_timestamp(state, us, state->utc);
    PyObject *result = utc != NULL ? PyObject_CallMethod(utc, "astimezone", "O", tz) : NULL;
    Py_XDECREF(utc);
    return result;
}

/* The same moment in the zone of `like`; naive if that is naive. */
static PyObject *
datetime_like(ModuleState *state, int64_t us, PyObject *like)
{
    PyObject *tz = PyObject_GetAttrString(like, "tzinfo");
    if (tz == NULL) {
        return NULL;
    }
    PyObject *result = datetime_from_wall(state, us, tz);
    Py_DECREF(tz);
    return result;
}

static inline int64_t
wall_now(void)
{
    return clock_read(CLOCK_REALTIME) / NS_PER_US;
}

/* ---- a loop's wall clock --------------------------------------------------------------------- */

static inline int64_t
loop_wall_now(const LoopObject *loop)
{
    if (loop->wall_is_system || loop->wall_origin == WALL_AT_START) {
        return wall_now();
    }
    return loop->wall_origin + clock_now(&loop->clock) / NS_PER_US;
}

/* By how much the system's wall clock is ahead of loop time, in nanoseconds. Changes when
 * it is set, and while the machine or the loop is suspended. */
static int64_t
loop_wall_lead(const LoopObject *loop)
{
    return wall_now() * NS_PER_US - clock_now(&loop->clock);
}

/* The loop time at which the loop's wall clock will show `wall`; 0 if it has done so. */
static int64_t
loop_time_of_wall(const LoopObject *loop, int64_t wall)
{
    int64_t from = loop->wall_is_system ? wall_now() : loop->wall_origin;
    int64_t base = loop->wall_is_system ? clock_now(&loop->clock) : 0;
    if (wall <= from) {
        return 0;
    }
    if (wall - from >= TIME_FOREVER / NS_PER_US) {  /* as sleep() has it: from now on */
        int64_t passed = loop->wall_is_system ? 0 : clock_now(&loop->clock) / NS_PER_US;
        return wall - from - passed < TIME_FOREVER / NS_PER_US ? TIME_BEYOND : TIME_FOREVER;
    }
    return time_add(base, (wall - from) * NS_PER_US);
}

/* The loop time at which the loop's wall clock shows `wall`; negative before the run. */
static int64_t
loop_time_at_wall(const LoopObject *loop, int64_t wall)
{
    int64_t from = loop->wall_is_system ? wall_now() : loop->wall_origin;
    if (wall > from) {
        return loop_time_of_wall(loop, wall);
    }
    int64_t base = loop->wall_is_system ? clock_now(&loop->clock) : 0;
    return from - wall >= TIME_FOREVER / NS_PER_US ? -TIME_FOREVER
                                                    : base - (from - wall) * NS_PER_US;
}

/* ---- times as people give them --------------------------------------------------------------- */

/* A delay: a number of seconds or a timedelta. 0, or -1 with TypeError or ValueError. */
static HOT int
delay_from_object(ModuleState *state, const char *function, PyObject *obj, int64_t *ns)
{
    int is_number;
    if (ns_from_number(function, obj, ns, &is_number) < 0) {
        return -1;
    }
    if (is_number) {
        return 0;
    }
    if (!is_timedelta(state, obj)) {
        raise_about(PyExc_TypeError, "%s takes seconds (a number) or a timedelta, not %U%s",
                    function, obj, "");
        return -1;
    }
    return ns_from_timedelta(obj, ns);
}

/* A moment: loop time in seconds, *is_wall = 0 and *time in nanoseconds; or a datetime,
 * *is_wall = 1 and *time in microseconds since 1970. 0, or -1 with an exception set. */
static int
moment_from_object(ModuleState *state, const char *function, PyObject *obj, int64_t *time,
                   int *is_wall)
{
    int is_number;
    if (ns_from_number(function, obj, time, &is_number) < 0) {
        return -1;
    }
    *is_wall = !is_number;
    if (is_number) {
        return 0;
    }
    if (!is_datetime(state, obj)) {
        raise_about(PyExc_TypeError, "%s takes a loop time in seconds or a datetime, not %U%s",
                    function, obj, "");
        return -1;
    }
    return wall_from_deadline(state, obj, time);
}

#endif /* SLEEPLOOP_CORE_WALLTIME_H */
