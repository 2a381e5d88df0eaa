"""A trace as a picture: an SVG file that stands alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from sleeploop._history import History, Span, awaited, clean, histories, place

if TYPE_CHECKING:
    from sleeploop.tracing import TraceEvent

_WIDTH = 1000
_RIGHT = 28  # free at the right: half a label, and the curve of an arrow
_TOP = 72
_MOST_ROWS = 200
_MOST_PIECES = 5_000  # bars and ticks; what is smaller than a pixel is drawn together
_MOST_ARROWS = 1_500
_FEW_ARROWS = 40  # more of them are drawn fainter
_MOST_MARKS = 1_000
_LETTER = 6.6  # pixels; text cannot be measured here

_UNITS = (("s", 10**9), ("ms", 10**6), ("µs", 10**3), ("ns", 1))
_LONG_UNITS = (("d", 24 * 3_600 * 10**9), ("h", 3_600 * 10**9), ("min", 60 * 10**9))

_LIGHT = {
    "paper": "#fff", "ink": "#1f2933", "soft": "#66727f", "line": "#e4e8ec", "sleep": "#a9cdf2",
    "block": "#e0a33a", "run": "#1c4e8a", "wake": "#2f8f5b", "spawn": "#8a63c7", "fail": "#d02f3a",
    "cancel": "#e0701b",
}  # fmt: skip
_DARK = {
    "paper": "#12171d", "ink": "#e3e8ee", "soft": "#93a0ad", "line": "#2a323b", "sleep": "#2f5680",
    "block": "#b98426", "run": "#8fc1fb", "wake": "#55bd86", "spawn": "#b595ec", "fail": "#ff6b70",
    "cancel": "#ff9a4d",
}  # fmt: skip
_RULES = """\
svg { background: $paper; font: 12px system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; }
.paper { fill: $paper; }
text { fill: $soft; }
.title { fill: $ink; font-size: 16px; font-weight: 600; }
.name { fill: $ink; font-weight: 600; }
.axis { font-size: 11px; text-anchor: middle; }
.line { stroke: $line; fill: none; }
.sleep { fill: $sleep; }
.block { fill: url(#hatch); stroke: $block; stroke-width: .8; }
.hatch { stroke: $block; stroke-width: 1.6; }
.run { fill: $run; }
.crowd { fill: $run; opacity: .55; }
.wake, .spawn { fill: none; stroke-width: 1.3; }
.wake { stroke: $wake; }
.spawn { stroke: $spawn; stroke-dasharray: 4 2.5; }
.wake-head { fill: $wake; }
.spawn-head { fill: $spawn; }
.returned { fill: $run; stroke: $paper; stroke-width: 1.5; }
.failed { stroke: $fail; stroke-width: 2.6; stroke-linecap: round; fill: none; }
.cancelled { fill: $cancel; stroke: $paper; stroke-width: 1.5; }
.cancel { fill: $cancel; }
"""


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


# Each colour twice: not every viewer knows variables, and those that do take what comes last.
_STYLE = (
    f"\nsvg {{ {_variables(_LIGHT)} }}\n"
    f"@media (prefers-color-scheme: dark) {{ svg {{ {_variables(_DARK)} }} }}\n"
) + re.sub(
    r"([a-z]+): \$(\w+);",
    lambda m: f"{m[1]}: {_LIGHT[m[2]]}; {m[1]}: var(--{m[2]});",
    _RULES,
)

_DEFS = (
    '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><path class="hatch" d="M0 0V5"/></pattern>'
    + "".join(
        f'<marker id="{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path class="{kind}-head" d="M0 0L8 4L0 8Z"/>'
        "</marker>"
        for kind in ("wake", "spawn")
    )
    + "</defs>"
)


# ---- numbers -------------------------------------------------------------------------------------


def _number(value: float) -> str:
    """For coordinates: a tenth of a pixel, and no more digits than it takes."""
    return f"{value:.1f}".removesuffix(".0")


def _in_unit(ns: int, unit: str) -> str:
    whole, rest = divmod(ns, dict(_UNITS)[unit])
    digits = len(str(dict(_UNITS)[unit])) - 1
    return f"{whole}.{rest:0{digits}}".rstrip("0").rstrip(".") + f" {unit}"


def _unit(ns: int) -> str:
    """The largest of which there is at least one."""
    return next((unit for unit, size in _UNITS if ns >= size), "s")


def duration(ns: int, unit: str = "") -> str:
    """Exact, in the units that people would use: 90 min is `1 h 30 min`."""
    if ns < 60 * 10**9:
        return _in_unit(ns, unit or _unit(ns))
    parts = []
    for long, size in _LONG_UNITS:
        whole, ns = divmod(ns, size)
        if whole:
            parts.append(f"{whole:,} {long}")
    return " ".join([*parts, *([_in_unit(ns, "s")] if ns else [])])


def _about(ns: int) -> str:
    """To four digits."""
    digits = max(len(str(ns)) - 4, 0)
    return duration(round(ns, -digits))


def _steps() -> Iterator[int]:
    """The distances between ticks that one can read: 1, 2, 5 of a unit, and what clocks have."""
    for power in range(10):
        yield from (10**power, 2 * 10**power, 5 * 10**power)
    yield from (n * 10**9 for n in (10, 15, 30, 60, 120, 300, 600, 900, 1_800))
    yield from (n * 3_600 * 10**9 for n in (1, 2, 3, 6, 12))
    for power in range(8):
        yield from (n * 10**power * 24 * 3_600 * 10**9 for n in (1, 2, 5))


class _Scale:
    """From nanoseconds to pixels."""

    def __init__(self, start: int, end: int, left: int) -> None:
        self.start, self.end = start, end
        self.left = left
        self.per_ns = (_WIDTH - _RIGHT - left) / (end - start) if end > start else 0.0

    def x(self, time: int) -> float:
        return self.left + (time - self.start) * self.per_ns

    def ticks(self) -> dict[int, str]:
        """The times to mark, and how they are called; as many as there is room for."""
        unit = _unit(self.end)
        for step in _steps():
            if self.end - self.start > 10 * step:
                continue
            times = range(-(-self.start // step) * step, self.end + 1, step)
            ticks = {time: duration(time, unit) for time in times}
            if len(ticks) < 2 or step * self.per_ns > _LETTER * max(map(len, ticks.values())) + 12:
                return ticks
        return {}


# ---- one row -------------------------------------------------------------------------------------

# Spans that are drawn as one; the first pixel and the last.
_Piece = tuple[list[Span], float, float]


def _pieces(task: History, scale: _Scale, fine: float) -> list[_Piece]:
    """A row's spans, with those together that are smaller than `fine` and side by side."""
    pieces: list[_Piece] = []
    crowd = False
    for span in task.spans:
        x, end = scale.x(span.start), scale.x(span.end)
        is_small = end - x < fine
        if is_small and crowd and x - pieces[-1][2] < fine:
            spans, first, _ = pieces[-1]
            spans.append(span)
            pieces[-1] = (spans, first, end)
        else:
            pieces.append(([span], x, end))
        crowd = is_small
    return pieces


def _where(event: TraceEvent | None) -> str:
    if event is None or not event.line:
        return ""
    return f"\n{place(event)} in {clean(event.function, 80)}"


def _tell(span: Span, names: dict[int, str]) -> str:
    """A tooltip."""
    since, length = duration(span.start), duration(span.end - span.start)
    if span.kind == "run":
        return f"ran at {since}" if span.end == span.start else f"ready or running for {length}"
    what, first, more = "slept", "", ""
    if span.kind == "block":
        what = "waited"
        first = awaited(span.event, names)
    if waker := span.other_waker():
        more = f": at first{first}, until {names.get(waker, 'a task')} woke it"
        first = ""
    until = duration(span.end)
    return f"{what}{first} for {length}, from {since} to {until}{more}{_where(span.event)}"


def _rect(kind: str, x: float, width: float, height: int, text: str) -> str:
    return (
        f'<rect class="{kind}" x="{_number(x)}" y="{_number(-height / 2)}" '
        f'width="{_number(width)}" height="{height}"><title>{escape(text)}</title></rect>'
    )


def _draw(piece: _Piece, height: int, names: dict[int, str]) -> str:
    spans, x, end = piece
    what = {span.kind for span in spans}
    if len(spans) > 1 and any(span.end > span.start for span in spans):
        first, last = duration(spans[0].start), duration(spans[-1].end)
        times = sum(span.kind != "run" for span in spans)
        text = f"parked {times:,} times between {first} and {last}"
        return _rect("crowd", x - 1, max(end - x + 2, 2), height - 4, text)
    if "run" in what:
        text = _tell(spans[0], names)
        if len(spans) > 1:
            text += f", {len(spans):,} steps"
        return _rect("run", x - 1, max(end - x + 2, 2), height, text)
    thin = height // 2 if "sleep" in what else height * 2 // 3
    return _rect(spans[0].kind, x, max(end - x, 0.5), thin, _tell(spans[0], names))


def _end_mark(task: History, scale: _Scale) -> str:
    event = task.end
    if event is None:
        return ""
    x = scale.x(event.time_ns)
    if event.how == "failed":
        shape = f'<path class="failed" d="M{_number(x - 4)} -4l8 8m0 -8l-8 8">'
        tag = "path"
    else:
        shape = f'<circle class="{event.how}" cx="{_number(x)}" r="4.5">'
        tag = "circle"
    text = f"{event.how} at {duration(event.time_ns)}"
    return f"{shape}<title>{escape(text)}</title></{tag}>"


# ---- the whole -----------------------------------------------------------------------------------


class _Picture:
    def __init__(self, events: list[TraceEvent], lost: int, functions: dict[int, str]) -> None:
        self.events = events
        self.lost = lost
        tasks = histories(events, functions)
        self.total = len(tasks)
        self.names = {task.number: task.name for task in tasks}
        busiest = sorted(tasks, key=lambda task: -len(task.spans))[:_MOST_ROWS]
        self.tasks = sorted(busiest, key=lambda task: task.number)
        self.row = next((h for n, h in ((24, 34), (60, 24)) if len(self.tasks) <= n), 16)
        self.bar = {34: 14, 24: 12, 16: 9}[self.row]
        start = events[0].time_ns if lost and events else 0
        end = events[-1].time_ns if events else 0
        self.scale = _Scale(start, end, self._label_width())
        self.bottom = _TOP + self.row * max(len(self.tasks), 1)
        self.y = {t.number: _TOP + i * self.row + self.row // 2 for i, t in enumerate(self.tasks)}
        self.notes: list[str] = []

    def _label(self, task: History) -> tuple[str, str]:
        name, function = clean(task.name, 26), clean(task.function, 32)
        if self.row < 34 and function:
            function = clean(function, max(8, 34 - len(name)))
        return name, function

    def _label_width(self) -> int:
        labels = [self._label(task) for task in self.tasks] or [("", "")]
        if self.row == 34:
            letters = max(max(len(name) * 1.1, len(function)) for name, function in labels)
        else:
            letters = max(len(name) * 1.1 + len(function) + 1 for name, function in labels)
        return min(max(math.ceil(letters * _LETTER) + 32, 90), 290)

    def svg(self) -> str:
        rows = list(self._rows())
        arrows = list(self._arrows())
        marks = list(self._cancels())
        more = self.total - len(self.tasks)
        height = self.bottom + 40 + (20 if more else 0)
        size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="title" {size}>',
            f'<title id="title">{escape(self._title())}</title>',
            f"<style>{_STYLE}</style>",
            _DEFS,
            f'<rect class="paper" width="{_WIDTH}" height="{height}"/>',
            f'<text class="title" x="16" y="28">{escape(self._title())}</text>',
            *self._axis(),
            f'<g opacity="{0.9 if len(arrows) <= _FEW_ARROWS else 0.35}">',
            *arrows,
            "</g>",
            *rows,
            *marks,
            *self._ends(),
        ]
        if more:
            y = self.bottom + 44
            parts.append(f'<text x="16" y="{y}">… and {more:,} tasks that did less</text>')
        parts += [*self._legend(), "</svg>\n"]
        return "\n".join(parts)

    def _title(self) -> str:
        n, span = self.total, self.scale.end - self.scale.start
        return f"{n:,} task{'s' * (n != 1)}, {_about(span)}"

    def _subtitle(self) -> str:
        n = len(self.events)
        parts = [f"{n:,} event{'s' * (n != 1)}"]
        if self.lost:
            parts.append(f"{self.lost:,} before them are lost")
        return ", ".join(parts + self.notes)

    def _axis(self) -> Iterator[str]:
        for time, text in self.scale.ticks().items():
            x = _number(self.scale.x(time))
            yield f'<path class="line" d="M{x} {_TOP - 4}V{self.bottom + 6}"/>'
            yield f'<text class="axis" x="{x}" y="{self.bottom + 22}">{text}</text>'

    def _rows(self) -> Iterator[str]:
        fine = 1.5
        while True:
            pieces = [_pieces(task, self.scale, fine) for task in self.tasks]
            if sum(map(len, pieces)) <= max(_MOST_PIECES, 3 * len(pieces)) or fine > _WIDTH:
                break
            fine *= 1.5
        for task, drawn in zip(self.tasks, pieces, strict=True):
            y = self.y[task.number]
            name, function = (escape(text) for text in self._label(task))
            yield f'<g transform="translate(0 {y})">'
            if self.row == 34:
                yield f'<text class="name" x="16" y="{-2 if function else 4}">{name}</text>'
                if function:
                    yield f'<text x="16" y="12">{function}</text>'
            else:
                yield f'<text x="16" y="4"><tspan class="name">{name}</tspan> {function}</text>'
            if task.spans:
                first, last = self.scale.x(task.spans[0].start), self.scale.x(task.spans[-1].end)
                yield f'<path class="line" d="M{_number(first)} 0H{_number(last)}"/>'
            ordered = sorted(drawn, key=lambda piece: piece[0][0].kind == "run")
            yield from (_draw(piece, self.bar, self.names) for piece in ordered)
            yield "</g>"

    def _arrows(self) -> Iterator[str]:
        """Who woke or made whom. Where there are too many of them they thin out, evenly."""
        found: dict[tuple[str, int, int, int], TraceEvent] = {}
        for event in self.events:
            y0, y1 = self.y.get(event.other), self.y.get(event.number)
            if event.kind in ("spawn", "wake") and y0 is not None and y1 is not None and y0 != y1:
                found.setdefault((event.kind, round(self.scale.x(event.time_ns)), y0, y1), event)
        drawn = min(len(found), _MOST_ARROWS)
        if drawn < len(found):
            self.notes.append(f"{len(found) - drawn:,} arrows left out")
        for i, ((kind, _, y0, y1), event) in enumerate(found.items()):
            if i * drawn // len(found) == (i + 1) * drawn // len(found):
                continue
            x = self.scale.x(event.time_ns)
            ahead = self.bar // 2 + 1 if y1 < y0 else -(self.bar // 2) - 1
            bend = min(4 + abs(y1 - y0) / 12, 18)
            bend = -bend if kind == "spawn" else bend  # the two often go side by side
            verb = "made" if kind == "spawn" else "woke"
            text = f"{self.names[event.other]} {verb} {self.names[event.number]}"
            text += f" at {duration(event.time_ns)}{_where(event)}"
            quarter = (y1 - y0) / 4
            yield (
                f'<path class="{kind}" marker-end="url(#{kind})" '
                f'd="M{_number(x)} {y0}C{_number(x + bend)} {_number(y0 + quarter)} '
                f"{_number(x + bend)} {_number(y1 - quarter)} {_number(x)} {y1 + ahead}"
                f'"><title>{escape(text)}</title></path>'
            )

    def _cancels(self) -> Iterator[str]:
        """A scope around it was cancelled: a triangle that points at the moment."""
        drawn: set[tuple[int, int]] = set()
        for event in self.events:
            y = self.y.get(event.number)
            if event.kind != "cancel" or y is None or len(drawn) >= _MOST_MARKS:
                continue
            x = self.scale.x(event.time_ns)
            if (round(x), y) in drawn:
                continue
            drawn.add((round(x), y))
            who = self.names.get(event.other, "a task")
            why = {"deadline": " by its deadline", "failure": f" as {who} failed"}.get(
                event.how, ""
            )
            if event.how == "explicit" and event.other:
                why = f" by {who}"
            text = f"a scope cancelled{why} at {duration(event.time_ns)}{_where(event)}"
            top = y - self.bar // 2 - 1
            yield (
                f'<path class="cancel" d="M{_number(x)} {top}l-3.5 -6h7Z">'
                f"<title>{escape(text)}</title></path>"
            )

    def _ends(self) -> Iterator[str]:
        for task in self.tasks:
            if task.end is not None:
                yield (
                    f'<g transform="translate(0 {self.y[task.number]})">'
                    f"{_end_mark(task, self.scale)}</g>"
                )

    def _legend(self) -> Iterator[str]:
        """What there is to be seen in this picture."""
        yield f'<text x="16" y="50">{escape(self._subtitle())}</text>'
        kinds = {span.kind for task in self.tasks for span in task.spans}
        hows = {task.end.how for task in self.tasks if task.end is not None}
        others = {e.kind for e in self.events if e.other and e.number in self.y}
        cancels = any(e.kind == "cancel" and e.number in self.y for e in self.events)
        entries = [
            ("sleep" in kinds, "slept", 20, '<rect class="sleep" y="-3.5" width="20" height="7"/>'),
            (
                "block" in kinds,
                "waited",
                20,
                '<rect class="block" y="-4.5" width="20" height="9"/>',
            ),
            ("run" in kinds, "ran", 2, '<rect class="run" y="-7" width="2" height="14"/>'),
            ("wake" in others, "woke", 24, _sample("wake")),
            ("spawn" in others, "made", 24, _sample("spawn")),
            (cancels, "scope cancelled", 7, '<path class="cancel" d="M3.5 4l-3.5 -7h7Z"/>'),
            ("returned" in hows, "returned", 9, '<circle class="returned" cx="4.5" r="4.5"/>'),
            ("failed" in hows, "failed", 8, '<path class="failed" d="M0 -4l8 8m0 -8l-8 8"/>'),
            ("cancelled" in hows, "cancelled", 9, '<circle class="cancelled" cx="4.5" r="4.5"/>'),
        ]
        shown = [entry[1:] for entry in entries if entry[0]]
        x = _WIDTH - _RIGHT - sum(width + 22 + _LETTER * len(text) for text, width, _ in shown)
        for text, width, sign in shown:
            yield (
                f'<g transform="translate({_number(x)} 24)">{sign}'
                f'<text x="{width + 6}" y="4">{text}</text></g>'
            )
            x += width + 22 + _LETTER * len(text)


def _sample(kind: str) -> str:
    return f'<path class="{kind}" marker-end="url(#{kind})" d="M0 0H24"/>'


def to_svg(events: list[TraceEvent], lost: int, functions: dict[int, str]) -> str:
    return _Picture(events, lost, functions).svg()
