"""The pytest plugin: whatever a test does, those after it do not pay for it."""

import signal

import pytest

from tests.plugin import LEAN, run

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.no_leak_check  # a run of pytest keeps things


@pytest.fixture(autouse=True)
def handler():
    """Puts it back: where there is one, a loop waits for signals instead of a deadlock."""
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


SHARED = """
    import os, signal

    kept = []

    @pytest.fixture(scope="module")
    async def wide():
        async with TaskGroup() as group:
            yield group
            group.cancel_scope.cancel()

    @pytest.fixture
    async def careful(wide):
        yield
        await sleep(1)
        print("torn down")

    async def fail(error):
        raise error

    async def slow_end():
        try:
            await sleep_forever()
        finally:
            with CancelScope(shield=True):
                await sleep(3)

    async def generator():
        with move_on_after(5):
            yield

    async def generator_with_a_group():
        async with TaskGroup() as group:
            group.create_task(sleep_forever())
            yield

"""
NEXT = """

    @pytest.mark.parametrize("n", [1, 2])
    @MARK
    async def test_next(wide, n):
        assert current_loop().speed == math.inf
        assert current_effective_deadline() > 1e6
        task = wide.create_task(sleep(3))
        await sleep(20)
        assert task.done()

    @MARK
    async def test_on_another_loop():
        await sleep(1)
"""


def run_between(pytester, body, before="", torn_down=1, **outcomes):
    """A test of that body, and after it others that have to pass."""
    source = f"""{SHARED}{before}
    @MARK
    async def test_it(wide, careful):
        {body}
{NEXT}"""
    outcomes["passed"] = outcomes.get("passed", 0) + 3
    result = run(pytester, source, "-s", **outcomes)
    assert str(result.stdout).count("torn down") == torn_down
    return result


# ---- blocks ------------------------------------------------------------------------------------

OPEN = {
    "CancelScope entered": "kept.append(CancelScope()); kept[0].__enter__()",
    "timeout entered, deadline 5.0 s": "kept.append(timeout(5)); kept[0].__enter__()",
    "CancelScope entered, shielded": "CancelScope(shield=True).__enter__(); await sleep(10)",
    "TaskGroup entered": "kept.append(TaskGroup()); await kept[0].__aenter__()",
    "CancelScope entered, deadline 5.0 s": "kept.append(generator()); await anext(kept[0])",
    "CancelScope entered, deadline 5.0 s>:": "async for _ in generator(): break",
    "CancelScope entered, cancelled>, <TaskGroup entered": (
        "s = CancelScope(); s.__enter__(); s.cancel(); g = kept.append(TaskGroup()); "
        "await kept[0].__aenter__()"
    ),
}


@pytest.mark.parametrize("kind", OPEN)
def test_an_open_block(pytester, kind):
    result = run_between(pytester, OPEN[kind], failed=1)
    result.stdout.fnmatch_lines(f"test_it ended inside of <{kind}* a `with` block must be *")


@pytest.mark.parametrize("generator", ["generator", "generator_with_a_group"])
def test_a_generator_that_was_abandoned_before_the_end(pytester, generator):
    body = f"async for _ in {generator}(): break\n        await sleep(1)"
    result = run_between(pytester, body, failed=1)
    result.stdout.fnmatch_lines(
        ["test_it entered a block that was left elsewhere (see the log): *", "*RuntimeError: *"]
    )


def test_an_open_block_does_not_hide_an_error(pytester):
    result = run(
        pytester,
        """
        class Bad:
            async def __aenter__(self):
                self.group = TaskGroup()
                await self.group.__aenter__()
                raise OSError("half way")
            async def __aexit__(self, *error): ...

        @pytest.fixture
        async def bad():
            async with Bad(): yield

        @MARK
        async def test_setup(bad): pass

        @MARK
        async def test_call():
            async with Bad(): pass

        @MARK
        async def test_assert():
            CancelScope().__enter__()
            assert 1 == 2

        @MARK
        async def test_cancelled():
            CancelScope().__enter__()
            with CancelScope() as scope:
                scope.cancel()
                await sleep(1)
            raise KeyError("told")

        @MARK
        async def test_skipped():
            CancelScope().__enter__()
            pytest.skip("not told")

        @MARK
        async def test_a_child():
            group = await TaskGroup().__aenter__()
            group.create_task(fail())
            with pytest.raises(CancelledError):
                await sleep(1)

        async def fail():
            raise ValueError("of the child")
        """,
        failed=5,
        errors=1,
    )
    for name, error in [
        ("bad", "E *OSError: half way"),
        ("test_call", "E *OSError: half way"),
        ("test_assert", "E *assert 1 == 2"),
        ("test_cancelled", "E *KeyError: 'told'"),
    ]:
        result.stdout.fnmatch_lines([error, f"E *{name} ended inside of <*"])
    result.stdout.fnmatch_lines("*Failed: test_skipped ended inside of <CancelScope entered>*")
    result.stdout.fnmatch_lines(["*test_a_child ended inside of <*", "*ValueError: of the child"])


def test_tasks_in_an_open_block_are_told_and_end(pytester):
    body = "(await TaskGroup().__aenter__()).create_task(slow_end(), name='left'); await sleep(1)"
    result = run_between(pytester, body, failed=1)
    result.stdout.fnmatch_lines(
        ["*test_it ended inside of <*", "*Task 'left' slow_end: sleeping until 4.0 s*"]
    )


@pytest.mark.parametrize("swallow", ["", "with pytest.raises(BaseException): "])
def test_a_test_that_leaves_a_block_of_a_fixture(pytester, swallow):
    body = f"{swallow}await wide.__aexit__(None, None, None)"
    result = run_between(pytester, body, failed=1, errors=1)
    result.stdout.fnmatch_lines("*test_it left a block that had been open before: *")


def test_a_fixture_that_ends_inside_of_a_block(pytester):
    result = run(
        pytester,
        """
        @pytest.fixture
        async def returns():
            CancelScope().__enter__()

        @pytest.fixture
        async def yields():
            yield
            CancelScope().__enter__()

        @pytest.fixture
        async def never_yields():
            CancelScope().__enter__()
            if current_loop() is None:
                yield

        @pytest.fixture
        async def may():
            with CancelScope():
                inner = move_on_after(50)
                inner.__enter__()
                yield
                inner.__exit__(None, None, None)

        @MARK
        async def test_returns(returns): pass

        @MARK
        async def test_yields(yields): pass

        @MARK
        async def test_never_yields(never_yields): pass

        @MARK
        async def test_may(may):
            assert current_effective_deadline() == 50
        """,
        passed=2,
        errors=3,
    )
    for name in "returns", "yields", "never_yields":
        result.stdout.fnmatch_lines(f"*{name} ended inside of <CancelScope entered>*")


# ---- cancelled and interrupted -----------------------------------------------------------------

LATE = {
    "interrupted as it returns": (
        "me = current_task()\n        async def late(): me.interrupt()\n        create_task(late())"
    ),
    "cancelled as it returns": (
        "me = current_task()\n        async def late(): me.cancel()\n        create_task(late())"
    ),
    "interrupted by a call": "current_loop().call_soon_threadsafe(current_task().interrupt)",
    "cancels itself": "current_task().cancel()",
    "cancels itself and notices": (
        "current_task().cancel()\n        with pytest.raises(CancelledError): await sleep(1)"
    ),
    "a daemon that does not stop": (
        "me = current_task()\n"
        "        async def late():\n"
        "            while True:\n"
        "                me.interrupt(); me.cancel(); await sleep(0.5)\n"
        "        create_task(late(), daemon=True)"
    ),
    "cancels the leftovers of itself": (
        "me = current_task()\n"
        "        async def late():\n"
        "            try: await sleep_forever()\n"
        "            finally: me.cancel(); me.interrupt()\n"
        "        create_task(late(), daemon=True); await sleep(1)"
    ),
}


@pytest.mark.parametrize("how", LATE)
def test_cancelled_or_interrupted_too_late(pytester, how):
    run_between(pytester, LATE[how], passed=1)


def test_a_test_that_is_cancelled_fails(pytester):
    body = "current_task().cancel('by itself'); await sleep(1)"
    result = run_between(pytester, body, failed=1)
    result.stdout.fnmatch_lines("E *CancelledError: cancelled by task 'test_it' at *: by itself")


def test_a_test_that_cancels_itself_leaves_the_tasks_of_fixtures_alone(pytester):
    run(
        pytester,
        """
        @pytest.fixture(scope="module")
        async def server():
            async with TaskGroup() as group:
                yield group.create_task(sleep(1000), name="server")

        @MARK
        async def test_it(server):
            current_task().cancel()
            with pytest.raises(CancelledError): await sleep(1)

        @MARK
        async def test_next(server):
            await sleep(5)
            assert not server.done()
        """,
        passed=2,
    )


# ---- the speed ---------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", [0, 1, 1e-9])
def test_the_speed(pytester, speed):
    run_between(pytester, f"current_loop().speed = {speed}", passed=1)


def test_the_speed_of_a_plain_fixture(pytester):
    before = """
    @pytest.fixture(autouse=True)
    def slow(loop, request):
        if request.node.name == "test_it":
            loop.speed = 1000

"""
    run_between(pytester, "assert current_loop().speed == 1000", before, passed=1)


def test_the_speed_that_a_fixture_sets_holds_until_its_end(pytester):
    run(
        pytester,
        """
        @pytest.fixture(scope="class")
        async def wide():
            current_loop().speed = 1e6
            yield

        @pytest.fixture
        async def narrow():
            before = current_loop().speed
            current_loop().speed = 2e6
            yield
            assert current_loop().speed == 2e6
            current_loop().speed = before / 2

        @pytest.fixture(scope="session")
        async def session(): yield

        @MARK
        class TestWide:
            async def test_narrow(self, wide, narrow):
                assert current_loop().speed == 2e6
                current_loop().speed = 0

            async def test_wide(self, wide):
                assert current_loop().speed == 1e6
                current_loop().speed = math.inf

            async def test_again(self, wide):
                assert current_loop().speed == 1e6

        @MARK
        async def test_then(session):
            assert current_loop().speed == math.inf

        @MARK(speed=1e5)
        async def test_own():
            assert current_loop().speed == 1e5
        """,
        passed=5,
    )


# ---- the loop, and what fixtures hold ----------------------------------------------------------

ENDS = {
    "a group's child fails": "wide.create_task(fail(ValueError())); await sleep(1)",
    "a child fails the test": "create_task(fail(pytest.fail.Exception())); await sleep(1)",
    "a child exits": "create_task(fail(SystemExit(1))); await sleep(1)",
    "a call fails": "current_loop().call_soon_threadsafe(int, 'x'); await sleep(1)",
    "a call fails later": "current_loop().call_soon_threadsafe(int, 'x')",
    "a signal handler fails": (
        "signal.signal(signal.SIGUSR1, lambda *_: 1 / 0)\n"
        "        os.kill(os.getpid(), signal.SIGUSR1); await sleep(1)"
    ),
}


@pytest.mark.parametrize("how", ENDS)
def test_the_end_of_a_shared_loop_or_group(pytester, how):
    of_group = how == "a group's child fails"  # the fixture is inside of it
    run_between(pytester, ENDS[how], torn_down=1 - of_group, failed=1, errors=int(of_group))


def test_a_plain_fixture_that_closes_the_loop(pytester):
    result = run(
        pytester,
        f"""{SHARED}
    @pytest.fixture
    def closes(loop):
        loop.close()

    @MARK
    async def test_own(closes): pass

    @MARK
    async def test_shared(wide, closes): pass
{NEXT}""",
        passed=3,
        failed=2,
    )
    result.stdout.fnmatch_lines("*test_own cannot run on its loop: it has been closed*")


def test_a_plain_fixture_that_drives_the_loop(pytester):
    run(
        pytester,
        """
        @pytest.fixture
        def drives(loop, first):
            loop.step()
            loop.run_until(loop.time() + 5)
            loop.run_until(loop.create_task(sleep(5)))
            yield
            loop.run_until(loop.time() + 5)
            print("driven to", loop.time())

        @pytest.fixture
        async def first():
            yield
            print("torn down at", current_loop().time())

        @MARK
        async def test(drives):
            assert current_loop().time() == 10
        """,
        "-s",
        passed=1,
    ).stdout.fnmatch_lines(["*driven to 15.0", "torn down at 15.0"])


def test_wrong_calls_inside_of_a_test(pytester):
    body = """
        for wrong in current_loop().close, current_loop().step:
            with pytest.raises(RuntimeError): wrong()
        late = sleep(1)
        with pytest.raises(RuntimeError): sleeploop.run(late)
        signal.signal(signal.SIGUSR1, lambda *_: None)
    """
    run_between(pytester, body, passed=1)


def test_daemons_end_with_their_test(pytester):
    run(
        pytester,
        """
        @pytest.fixture(scope="module")
        async def wide():
            yield create_task(sleep_forever(), name="of the fixture", daemon=True)

        @MARK
        async def test_it(wide):
            create_task(sleep_forever(), name="of the test", daemon=True)

        @MARK
        async def test_next(wide):
            assert {t.name for t in current_loop().tasks()} == {"of the fixture", "test_next"}
        """,
        passed=2,
    )


# ---- how tests and sessions end ----------------------------------------------------------------


@pytest.mark.parametrize(
    "end", ["raise KeyboardInterrupt", "pytest.exit('enough')", "signal.raise_signal(2)"]
)
def test_what_ends_the_session(pytester, end):
    pytester.makepyfile(
        "from sleeploop import *\nimport math, pytest\nMARK = pytest.mark.sleeploop\n"
        + f"""{SHARED}
    @MARK
    async def test_it(wide, careful):
        CancelScope().__enter__()
        {end}
        await sleep(1)
""".replace("\n    ", "\n")
    )
    result = pytester.runpytest_subprocess("-s", *LEAN)
    result.stdout.fnmatch_lines(["*torn down*", "!*"])
    result.stdout.no_fnmatch_line("*PytestWarning*")


@pytest.mark.parametrize("options", [("-x",), ("--maxfail=2",)])
def test_a_session_that_stops_early(pytester, options):
    result = run(
        pytester,
        f"""{SHARED}
    @MARK
    @pytest.mark.parametrize("n", range(5))
    async def test_it(wide, careful, n):
        CancelScope().__enter__()
""",
        *options,
        "-s",
        failed=2 if "=2" in options[0] else 1,
    )
    result.stdout.no_fnmatch_line("*PytestWarning*")


def test_subtests_and_expected_failures(pytester):
    result = run(
        pytester,
        """
        @MARK
        async def test_sub(subtests):
            for n in range(3):
                with subtests.test(n=n):
                    await sleep(1)
                    assert n != 1

        @MARK
        @pytest.mark.xfail(strict=True)
        async def test_left_open():
            CancelScope().__enter__()

        @MARK
        @pytest.mark.xfail(strict=True)
        async def test_passes():
            await sleep(1)
        """,
        failed=3,  # a subtest, its test, and one that passes against expectation
        xfailed=1,
    )
    result.stdout.fnmatch_lines("*XPASS(strict)*")


def test_parametrized_fixtures_of_all_scopes(pytester):
    run(
        pytester,
        """
        @pytest.fixture(scope="module", params=[1, 2])
        async def module(request):
            async with TaskGroup() as group:
                group.create_task(sleep_forever(), name=f"module {request.param}")
                yield request.param
                group.cancel_scope.cancel()

        @pytest.fixture(scope="class", params=[10, 20])
        async def klass(module, request):
            with move_on_after(1000):
                yield module + request.param

        @pytest.fixture(params=[100, 200])
        async def function(klass, request):
            with CancelScope():
                yield klass + request.param

        seen = set()

        @MARK
        class TestAll:
            async def test(self, function):
                names = {t.name for t in current_loop().tasks()}
                assert f"module {function % 10}" in names and len(names) == 2
                seen.add(function)
                await sleep(1)

        def test_each_was_seen():
            assert seen == {m + c + f for m in (1, 2) for c in (10, 20) for f in (100, 200)}
        """,
        passed=9,
    )
