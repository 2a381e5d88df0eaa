/* objects.h: the names of the structs that refer to each other; and whose a timer is. */
#ifndef SLEEPLOOP_CORE_OBJECTS_H
#define SLEEPLOOP_CORE_OBJECTS_H

#include "../base/compat.h"

typedef struct ModuleState ModuleState;
typedef struct LoopObject LoopObject;
typedef struct TaskObject TaskObject;
typedef struct ScopeObject ScopeObject;
typedef struct GroupObject GroupObject;
typedef struct Awaitable Awaitable;
typedef struct SleepObject SleepObject;

/* Whose timer it is: timer.kind. */
enum timer_kind { TIMER_OF_TASK, TIMER_OF_SCOPE };

#endif /* SLEEPLOOP_CORE_OBJECTS_H */
