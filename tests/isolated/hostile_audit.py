"""An audit hook does what it likes when it is asked for the code of a traced task that ends."""

import faulthandler
import gc
import math
import sys

import sleeploop

asked = 0


def hook(event, args):
    global asked
    if event != "object.__getattr__" or args[1] not in ("cr_code", "gi_code") or not hook.loops:
        return
    asked += 1
    loop = hook.loops.pop()  # not while it reads the trace, for which it is asked again
    for task in [*loop.tasks(), *hook.tasks]:
        task.cancel()
    if hook.scopes:
        hook.scopes.pop().cancel()
    gc.collect()
    assert loop.trace.events
    hook.loops.append(loop)
    if asked % 3 == 0:
        raise ValueError("no code for you")


hook.loops, hook.tasks, hook.scopes = [], [], []


async def fail():
    raise ValueError("its own")


async def work(lock, event):
    try:
        with sleeploop.CancelScope() as scope:
            hook.scopes.append(scope)
            async with lock:
                await sleeploop.sleep(1)
        async with sleeploop.TaskGroup() as group:
            hook.tasks += [group.create_task(fail()), group.create_task(event.wait())]
    except* ValueError:
        event.set()


def generator():
    yield from sleeploop.checkpoint().__await__()


def loop_of(crowd):
    lock, event = sleeploop.Lock(), sleeploop.Event()
    loop = sleeploop.SleepingLoop(
        *[work(lock, event) for _ in range(crowd)], generator(), speed=math.inf, trace=True
    )
    hook.loops.append(loop)
    hook.tasks[:] = loop.tasks()
    return loop


def ends(loop):
    numbers = [event.number for event in loop.trace.events if event.kind == "end"]
    assert len(numbers) == len(set(numbers)) > 0, numbers
    assert loop.tasks() == []


faulthandler.dump_traceback_later(40, exit=True)
sys.addaudithook(hook)
for crowd in range(1, 8):
    for until in (None, 0, 1, 1.5):
        loop = loop_of(crowd)
        try:
            if until is None:
                loop.run_until_complete()
            else:
                loop.run_until(until)
                loop.close()
        except* (Exception, sleeploop.CancelledError):
            pass
        ends(loop)
        hook.loops.clear()
assert asked > 100, asked
print("end")
