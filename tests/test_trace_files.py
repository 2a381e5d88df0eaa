"""What traces are written to: Chrome's trace format, and a picture in SVG."""

import itertools
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict

import pytest

from sleeploop import Queue, SleepingLoop, checkpoint, create_task, move_on_after, sleep
from sleeploop._timeline import duration

from .data.traced_program import trace as trace_program
from .helpers import fail, give

DATA = pathlib.Path(__file__).parent / "data"
SVG = "{http://www.w3.org/2000/svg}"
MOST_BYTES = 2_000_000


def run(*coros, trace=True):
    loop = SleepingLoop(*coros, speed=math.inf, trace=trace)
    loop.run_until_complete()
    return loop.trace


# ---- Chrome's trace format -----------------------------------------------------------------------


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_chrome_trace(text):
    """The rules of the format, and what viewers need on top of them. Returns the events."""
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert set(document) == {"traceEvents", "displayTimeUnit"}
    assert document["displayTimeUnit"] in ("ms", "ns")
    events = document["traceEvents"]
    tracks = defaultdict(list)
    flows = defaultdict(list)
    for event in events:
        assert isinstance(event["name"], str)
        assert event["name"]
        assert event["ph"] in "MXisf"
        assert event["pid"] == 1
        assert isinstance(event["tid"], int)
        assert is_number(event["ts"])
        assert event["ts"] >= 0
        assert ("dur" in event) == (event["ph"] == "X")
        assert ("id" in event) == (event["ph"] in "sf")
        assert ("s" in event) == (event["ph"] == "i")
        assert event.get("args") != {}
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index")
            continue
        tracks[event["tid"]].append(event)
        if event["ph"] == "X":
            assert is_number(event["dur"])
            assert event["dur"] >= 0
        elif event["ph"] == "i":
            assert event["s"] == "t"
        else:
            flows[event["id"]].append(event)
    named = [e["tid"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"]
    assert len(named) == len(set(named))
    assert set(tracks) <= set(named)
    for track in tracks.values():
        check_track(track)
    for begin, end in flows.values():
        assert (begin["ph"], end["ph"], end["bp"]) == ("s", "f", "e")
        assert begin["ts"] <= end["ts"]
        assert begin["tid"] != end["tid"]
        assert begin["name"] == end["name"]
        assert begin["cat"] == end["cat"]
    return events


def check_track(track):
    """Time never goes back, spans do not overlap, and an arrow's ends lie in the span before."""
    last, span = 0, None
    for event in track:
        assert event["ts"] >= last
        last = event["ts"]
        if event["ph"] == "X":
            assert span is None or event["ts"] >= span["ts"] + span["dur"] - 1e-6  # floats add up
            span = event
        elif event["ph"] in "sf":
            assert span is not None
            assert span["ts"] <= event["ts"] <= span["ts"] + span["dur"] + 1e-6


def test_a_small_trace_word_by_word():
    async def child():
        await sleep(0.5)

    async def parent():
        await create_task(child(), name="kid")

    events = check_chrome_trace(run(parent()).to_json())
    kid = [e for e in events if e["tid"] == 2]
    name = "test_a_small_trace_word_by_word.<locals>.child"
    line = child.__code__.co_firstlineno
    at = {"at": f"test_trace_files.py:{line + 1}", "function": name}
    common = {"pid": 1, "tid": 2}
    assert kid == [
        common | {"ph": "M", "name": "thread_name", "ts": 0, "args": {"name": f"kid {name}"}},
        common | {"ph": "M", "name": "thread_sort_index", "ts": 0, "args": {"sort_index": 2}},
        common | {"ph": "X", "name": "run", "cat": "run", "ts": 0, "dur": 0},
        common | {"ph": "f", "name": "spawn", "cat": "flow", "ts": 0, "id": 2, "bp": "e"},
        common
        | {"ph": "i", "name": "spawn", "cat": "spawn", "ts": 0, "s": "t"}
        | {"args": {"at": f"test_trace_files.py:{line + 4}", "function": name[:-5] + "parent"}},
        common | {"ph": "X", "name": "sleep", "cat": "sleep", "ts": 0, "dur": 5e5, "args": at},
        common | {"ph": "X", "name": "run", "cat": "run", "ts": 5e5, "dur": 0},
        common
        | {"ph": "i", "name": "end returned", "cat": "end", "ts": 5e5, "s": "t"}
        | {"args": at | {"at": f"test_trace_files.py:{line}"}},
        common | {"ph": "s", "name": "wake", "cat": "flow", "ts": 5e5, "id": 7},
    ]
    assert [e["name"] for e in events if e["tid"] == 1 and e["ph"] == "X"] == [
        *("run", "wait for kid", "run"),
    ]


def test_every_kind_of_event_makes_a_valid_trace():
    trace = trace_program()
    events = check_chrome_trace(trace.to_json())
    assert {e["ph"] for e in events} == set("MXisf")
    instants = [e["name"] for e in events if e["ph"] == "i"]
    assert len(instants) == sum(e.kind in ("spawn", "cancel", "end") for e in trace.events)
    assert {"end failed", "end cancelled", "cancel deadline", "cancel shutdown"} <= set(instants)
    ns = [e for e in events if e.get("dur") == 0.001]
    assert [e["name"] for e in ns] == ["sleep"]  # a nanosecond is not lost, a day later neither


@pytest.mark.parametrize("kept", range(1, 60))
def test_a_trace_whose_beginning_is_lost(kept):
    """Wherever it begins: tasks come out of nowhere, and are woken by some of which all is lost."""
    loop = SleepingLoop(give(1, 1), fail_late(), speed=math.inf, trace=kept)
    with pytest.raises(ValueError, match="late"):
        loop.run_until_complete()
    assert loop.trace.lost > 0
    events = check_chrome_trace(loop.trace.to_json())
    assert f"({loop.trace.lost} earlier events are lost)" in events[0]["args"]["name"]
    check_svg(loop.trace.to_svg())


async def fail_late():
    tasks = [create_task(give(n, n)) for n in range(6)]
    for task in tasks:
        await task
    waiting = [create_task(wait_for_task(tasks[-1])) for _ in range(5)]
    await waiting[0]
    await fail(ValueError("late"), 1)


async def wait_for_task(task):
    for _ in range(4):
        await checkpoint()
    await task


def test_an_empty_trace():
    trace = run()
    assert trace.events == []
    assert [e["ph"] for e in check_chrome_trace(trace.to_json())] == ["M", "M"]
    check_svg(trace.to_svg())


# ---- SVG -----------------------------------------------------------------------------------------


def check_svg(text):
    """It parses, stands alone, and is small. Returns its root."""
    assert len(text.encode()) < MOST_BYTES
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    ids = {e.get("id") for e in root.iter() if e.get("id")}
    for element in root.iter():
        assert element.tag.removeprefix(SVG) not in ("script", "image", "foreignObject", "use", "a")
        for name, value in element.attrib.items():
            assert "href" not in name
            assert not name.startswith("on")
            assert "nan" not in value
            assert "inf" not in value
            for target in re.findall(r"url\((.*?)\)", value):
                assert target.removeprefix("#") in ids
    assert text.count("http") == 1  # the name of the language
    assert "@import" not in text
    width, height = (float(n) for n in (root.get("width"), root.get("height")))
    assert root.get("viewBox") == f"0 0 {width:g} {height:g}"
    check_inside(root, width, height)
    return root


def check_inside(root, width, height):
    for rect in root.iter(f"{SVG}rect"):
        x, w = float(rect.get("x", 0)), float(rect.get("width"))
        assert w >= 0
        assert -1 <= x <= x + w <= width + 1
    for group in root.iter(f"{SVG}g"):
        place = re.fullmatch(r"translate\((\S+) (\S+)\)", group.get("transform", ""))
        assert place is None or float(place[2]) < height


def rows(root):
    """What stands at the left of each."""
    names = [e for e in root.iter() if e.get("class") == "name"]
    return [e.text for e in names]


def tips(root, kind):
    found = (e.find(f"{SVG}title") for e in root.iter() if e.get("class") == kind)
    return [title.text for title in found if title is not None]


def at(code, function):
    """Where the program has that line."""
    lines = (DATA / "traced_program.py").read_text().splitlines()
    (number,) = (n for n, line in enumerate(lines, 1) if line.strip() == code)
    return f"\ntraced_program.py:{number} in {function}"


def test_rows_and_tooltips():
    root = check_svg(trace_program().to_svg())
    assert rows(root) == [
        *("Task-1", "Task-2", "first <&> \"'\U0001f600", "Task-4", "Task-5", "Task-6"),
        *("cancelled", "Task-8", "left over", "writer", "next", "last"),
    ]
    assert root.find(f"{SVG}title").text == "12 tasks, 14.08 s"
    where = at("await sleep(0.25)", "serve")
    assert f"slept for 250 ms, from 1.833333333 s to 2.083333333 s{where}" in tips(root, "sleep")
    where = at("second = create_task(nap(1.5))", "main")
    assert f"Task-1 made Task-4 at 0 s{where}" in tips(root, "spawn")
    where = at("scope.cancel()", "cancel_after")
    assert tips(root, "cancel") == [
        "a scope cancelled by its deadline at 1.25 s",
        f"a scope cancelled by Task-5 at 1.833333333 s{where}",
        "a scope cancelled as Task-8 failed at 4.083333333 s",
    ]
    waits = tips(root, "block")
    assert waits[0].startswith("waited for first <&> \"'\U0001f600 for 1 s, from 0 s to 1 s\n")
    assert len(waits) == 7
    where = at("async with lock:", "write")
    behind = "at first for 'db' (writer), until next woke it"
    assert waits[5:] == [
        f"waited for 'db' (writer) for 2 s, from 4.083333333 s to 6.083333333 s{where}",
        f"waited for 5 s, from 4.083333333 s to 9.083333333 s: {behind}{where}",
    ]
    assert "Task-4 woke Task-1 at 1.5 s" in tips(root, "wake")
    assert tips(root, "failed") == ["failed at 4.083333333 s"]
    assert tips(root, "cancelled") == ["cancelled at 4.083333333 s", "cancelled at 14.083333333 s"]


def test_of_many_tasks_the_busiest_are_shown():
    busy = (1, 7, 300, 511)
    coros = [sleep_often(3 if n in busy else 1, 1) for n in range(512)]
    root = check_svg(run(*coros).to_svg())
    assert len(rows(root)) == 200
    assert rows(root) == sorted(rows(root), key=lambda name: int(name.partition("-")[2]))
    assert {f"Task-{n + 1}" for n in busy} <= set(rows(root))
    assert "… and 312 tasks that did less" in [e.text for e in root.iter(f"{SVG}text")]


def test_many_arrows_thin_out_evenly():
    async def give_each_second(queue):
        for n in range(800):
            await sleep(1)
            await queue.put(n)

    async def take(queue):
        for _ in range(800):
            await queue.get()

    queues = [Queue() for _ in range(5)]
    coros = [work(queue) for queue in queues for work in (give_each_second, take)]
    root = check_svg(run(*coros).to_svg())
    wakes = root.findall(f".//{SVG}path[@class='wake'][@d][{SVG}title]")
    assert len(wakes) == 1_500
    assert any("arrows left out" in (e.text or "") for e in root.iter(f"{SVG}text"))
    places = [float(re.match(r"M([\d.]+) ", wake.get("d"))[1]) for wake in wakes]
    left, right = min(places), max(places)
    tenths = Counter(int(10 * (x - left) / (right - left + 1)) for x in places)
    assert all(130 <= tenths[n] <= 170 for n in range(10)), tenths


def test_objects_have_their_names():
    async def main():
        queue = Queue(name="mail")
        with move_on_after(1):
            await queue.get()
        with move_on_after(1):
            await Queue().get()
        await sleep(1)

    trace = run(main())
    assert [e.object for e in trace.events if e.kind == "block"] == ["mail", ""]
    assert {e.object for e in trace.events if e.kind != "block"} == {""}
    waits = [e["name"] for e in check_chrome_trace(trace.to_json()) if e.get("cat") == "block"]
    assert waits == ["wait for 'mail'", "wait"]
    first, second = tips(check_svg(trace.to_svg()), "block")
    assert first.startswith("waited for 'mail' for 1 s, from 0 s to 1 s\n")
    assert second.startswith("waited for 1 s, from 1 s to 2 s\n")


def test_each_colour_is_there_for_viewers_without_variables_too():
    css = run(give(1)).to_svg().partition("<style>")[2].partition("</style>")[0]
    uses = re.findall(r"([a-z]+): (\S+); ([a-z]+): var\((--[a-z]+)\);", css)
    assert len(uses) == css.count("var(") == 21
    light = dict(re.findall(r"(--[a-z]+): (#[0-9a-f]+);", css.partition("@media")[0]))
    dark = dict(re.findall(r"(--[a-z]+): (#[0-9a-f]+);", css.partition("@media")[2]))
    assert set(light) == set(dark) == {variable for *_, variable in uses}
    for literal_of, literal, variable_of, variable in uses:
        assert (literal_of, literal) == (variable_of, light[variable])


async def sleep_often(n, seconds):
    for _ in range(n):
        await sleep(seconds)


async def wake_often(n):
    for _ in range(n):
        await create_task(give(1, 0.001))


@pytest.mark.slow
def test_many_events_are_drawn_together():
    svg = run(*(sleep_often(200, 1 + n / 1000) for n in range(220)), trace=100_000).to_svg()
    crowds = tips(check_svg(svg), "crowd")
    assert any(re.match(r"parked \d+ times between 0 s and ", text) for text in crowds)
    svg = run(wake_often(5_000), trace=250_000).to_svg()
    check_svg(svg)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 s"),
        (1, "1 ns"),
        (1_500, "1.5 µs"),
        (999_999_999, "999.999999 ms"),
        (1_000_000_001, "1.000000001 s"),
        (60 * 10**9, "1 min"),
        (5_400 * 10**9, "1 h 30 min"),
        (90_061_500_000_000, "1 d 1 h 1 min 1.5 s"),
        (2**63 - 1, "106,751 d 23 h 47 min 16.854775807 s"),
    ],
)
def test_durations(ns, text):
    assert duration(ns) == text


@pytest.mark.parametrize(
    "seconds", [0, 1e-9, 1e-6, 0.003, 0.5, 7, 59, 61, 3_599, 86_400, 1e7, 1e9, 9.2e9]
)
def test_the_axis_has_room_for_its_labels(seconds):
    root = check_svg(run(give(1, seconds)).to_svg())
    labels = [e for e in root.iter(f"{SVG}text") if e.get("class") == "axis"]
    assert 1 <= len(labels) <= 11
    ends = [(float(e.get("x")) - 3 * len(e.text), 6 * len(e.text)) for e in labels]
    for (left, width), (right, _) in itertools.pairwise(ends):
        assert left + width < right


def browser():
    names = ("chromium", "chromium-browser", "google-chrome", "firefox")
    return next((path for path in map(shutil.which, names) if path), None)


@pytest.mark.slow
@pytest.mark.skipif(browser() is None, reason="no chromium and no firefox")
def test_a_browser_shows_it(tmp_path):
    """Not an error page, and not an empty one: bars, ticks and paper have their colours."""
    svg, png = tmp_path / "trace.svg", tmp_path / "trace.png"
    trace_program().write_svg(svg)
    command = [browser(), "--headless", f"--screenshot={png}", "--window-size=1000,400"]
    if "firefox" not in command[0]:
        command += ["--no-sandbox", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([*command, svg.as_uri()], env=environment, capture_output=True, timeout=50)
    colours = set(pixels(png.read_bytes()))
    assert {(0xA9, 0xCD, 0xF2), (0x1C, 0x4E, 0x8A), (0xFF, 0xFF, 0xFF)} <= colours


def pixels(png):
    """The colours of a PNG of 8 bits a channel, as browsers write it."""
    import zlib

    assert png.startswith(b"\x89PNG")
    data, at, size = b"", 8, None
    while at < len(png):
        length, kind = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        body = png[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            size, channels = int.from_bytes(body[:4], "big"), {2: 3, 6: 4}[body[9]]
        data += body if kind == b"IDAT" else b""
        at += length + 12
    raw, stride = zlib.decompress(data), size * channels
    line = bytearray(stride)
    for start in range(0, len(raw), stride + 1):
        before, line = line, bytearray(raw[start + 1 : start + 1 + stride])
        unfilter(raw[start], line, before, channels)
        for x in range(0, stride, channels):
            yield tuple(line[x : x + 3])


def unfilter(kind, line, above, channels):
    for i in range(len(line)):
        left = line[i - channels] if i >= channels else 0
        corner = above[i - channels] if i >= channels else 0
        guess = left + above[i] - corner
        nearest = min((left, above[i], corner), key=lambda value: abs(guess - value))
        add = (0, left, above[i], (left + above[i]) // 2, nearest)[kind]
        line[i] = (line[i] + add) & 255


# ---- the same every time -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", ["0", "1"])
def test_the_same_bytes_in_every_process_and_on_every_python(seed):
    done = subprocess.run(
        [sys.executable, "-m", "tests.data.traced_program"],
        cwd=DATA.parent.parent,
        env={**os.environ, "PYTHONHASHSEED": seed, "SLEEPLOOP_SPEED": ""},
        capture_output=True,
        timeout=60,
    )
    assert done.stderr == b""
    assert done.stdout == (DATA / "trace.json").read_bytes()


def test_the_same_in_one_process_again_and_again():
    one, other = trace_program(), trace_program()
    assert one.to_json() == other.to_json() == one.to_json()
    assert one.to_svg() == other.to_svg()
    assert one.to_json() == (DATA / "trace.json").read_text()


# ---- writing -------------------------------------------------------------------------------------


def test_files(tmp_path):
    trace = run(give(1, 1))
    trace.write_json(tmp_path / "x.json")
    trace.write_svg(str(tmp_path / "x.svg"))
    assert (tmp_path / "x.json").read_text() == trace.to_json()
    assert (tmp_path / "x.svg").read_bytes().decode() == trace.to_svg()
    with pytest.raises(FileNotFoundError):
        trace.write_json(tmp_path / "nowhere" / "x.json")
