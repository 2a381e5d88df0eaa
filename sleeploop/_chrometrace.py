"""A trace in Chrome's trace-event format, as Perfetto and chrome://tracing read it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sleeploop._history import History, Span, awaited, clean, histories, place

if TYPE_CHECKING:
    from sleeploop.tracing import TraceEvent

_PID = 1
_WORDS = {"run": "run", "sleep": "sleep", "block": "wait"}


def _args(event: TraceEvent | None) -> dict[str, Any]:
    """Where it was, for whoever clicks on it."""
    if event is None or not event.line:
        return {}
    return {"at": place(event), "function": clean(event.function)}


def _item(phase: str, name: str, time: int, tid: int, **more: Any) -> dict[str, Any]:
    return {"ph": phase, "name": name, "ts": time / 1_000, "pid": _PID, "tid": tid, **more}


def _metadata(tasks: list[History], title: str) -> list[dict[str, Any]]:
    items = [_item("M", "process_name", 0, 0, args={"name": title})]
    items.append(_item("M", "thread_name", 0, 0, args={"name": "the run"}))
    for task in tasks:
        items += [
            _item("M", "thread_name", 0, task.number, args={"name": task.label()}),
            _item("M", "thread_sort_index", 0, task.number, args={"sort_index": task.number}),
        ]
    return items


def _span(span: Span, names: dict[int, str]) -> dict[str, Any]:
    name = _WORDS[span.kind]
    if span.kind == "block":
        name += awaited(span.event, names)
    more: dict[str, Any] = {"cat": span.kind, "dur": (span.end - span.start) / 1_000}
    args = _args(span.event) if span.kind != "run" else {}
    if waker := span.other_waker():
        args["woken by"] = names.get(waker, "a task")
    return {**more, **({"args": args} if args else {}), "name": name}


def to_json(events: list[TraceEvent], lost: int, functions: dict[int, str]) -> str:
    tasks = histories(events, functions)
    names = {task.number: task.name for task in tasks}
    # What happens at the same time stands in the order of events: first the span that an event
    # begins, then what belongs into it, as readers give arrows to the span that came last.
    keyed: list[tuple[int, int, int, dict[str, Any]]] = []
    for task in tasks:
        for order, span in enumerate(task.spans):
            item = _item("X", "", span.start, task.number) | _span(span, names)
            keyed.append((span.start, span.index, order - len(task.spans), item))
    for index, event in enumerate(events):
        time, number = event.time_ns, event.number
        if event.kind in ("spawn", "wake") and event.other:
            for order, (phase, tid) in enumerate((("s", event.other), ("f", number))):
                flow = _item(phase, event.kind, time, tid, cat="flow", id=index + 1)
                keyed.append((time, index, 1 + order, flow | ({"bp": "e"} if order else {})))
        if event.kind in ("spawn", "cancel", "end"):
            name = f"{event.kind} {event.how}".rstrip()
            instant = _item("i", name, time, number, cat=event.kind, s="t")
            keyed.append((time, index, 3, instant | ({"args": a} if (a := _args(event)) else {})))
    keyed.sort(key=lambda entry: entry[:3])
    title = f"sleeploop ({lost} earlier events are lost)" if lost else "sleeploop"
    items = [*_metadata(tasks, title), *(entry[3] for entry in keyed)]
    lines = ",\n".join(json.dumps(item, sort_keys=True) for item in items)
    return f'{{"displayTimeUnit": "ms", "traceEvents": [\n{lines}\n]}}\n'
