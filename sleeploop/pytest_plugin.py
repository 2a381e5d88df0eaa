"""Runs async tests and their async fixtures on a SleepingLoop.

Loaded by _sleeploop_pytest.py with the first test that needs it. What happens inside of the loop is
told in _runner.py; here is what pytest has to do with it.
"""

from __future__ import annotations

import functools
import inspect
import math
import warnings
from collections.abc import Callable, Generator, Iterator
from datetime import timedelta
from typing import Any

import pytest

from _sleeploop_pytest import MARK, THE_RUN, function_of
from sleeploop import SleepingLoop
from sleeploop._runner import NOTHING, Owner, Runner, advance, failure, raise_all, users_part

# What the mark takes: all that a SleepingLoop does, and a limit.
OPTIONS = tuple(
    name
    for name, parameter in inspect.signature(SleepingLoop).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
)

Fixture = pytest.FixtureDef[Any]


def is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def is_for_us(fixture: Fixture) -> bool:
    """An async fixture, unless it is made by pytest_asyncio.fixture(), which runs it itself."""
    function = fixture.func
    return is_async(function) and not getattr(function, "_force_asyncio_fixture", False)


def fixtures_of(item: pytest.Function) -> Iterator[Fixture]:
    """The fixtures that the test is known to use; of overridden ones those that are still asked."""
    for name, definitions in item._fixtureinfo.name2fixturedefs.items():
        for fixture in reversed(definitions):
            yield fixture
            if name not in fixture.argnames:
                break


def arguments_of(item: pytest.Function) -> dict[str, Any]:
    """The mark's arguments; of several marks, the nearest one's count."""
    arguments: dict[str, Any] = {}
    for mark in item.iter_markers(MARK):
        if mark.args:
            raise failure(
                f"@pytest.mark.{MARK} takes keyword arguments only, not {mark.args[0]!r:.200}"
            )
        arguments = {**mark.kwargs, **arguments}
    unknown = [name for name in arguments if name not in OPTIONS and name != "timeout"]
    if unknown:
        raise failure(
            f"@pytest.mark.{MARK} got {', '.join(map(repr, unknown))}; "
            f"it takes timeout, {', '.join(OPTIONS)}"
        )
    return arguments


def limit_from(seconds: Any) -> float:
    """A number of seconds, or a timedelta; 0: none."""
    try:
        limit = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
        valid = limit >= 0 and not isinstance(seconds, str)
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise failure(
            f"@pytest.mark.{MARK} takes a timeout in seconds of loop time, 0 for none, "
            f"not {seconds!r:.200}"
        )
    return limit or math.inf


def errors_of(function: Callable[..., object], *args: Any, **kwargs: Any) -> list[BaseException]:
    try:
        function(*args, **kwargs)
    except BaseException as error:
        return [error]
    return []


class Run:
    """One test, from its setup to its teardown."""

    def __init__(self, item: pytest.Function, options: dict[str, Any], limit: float) -> None:
        self.item = item
        self.options = {"speed": math.inf, **options}
        self.limit = limit
        self.function = function_of(item)
        self.shared = False
        self.used = False  # somebody beside the test has used the loop, or will
        self.runner = self.new_runner()

    def new_runner(self) -> Runner:
        try:
            return Runner(SleepingLoop(**self.options))
        except (TypeError, ValueError) as error:
            raise failure(f"@pytest.mark.{MARK}: {error}") from None

    def use_loop(self) -> SleepingLoop:
        self.used = True
        loop: SleepingLoop = self.runner.loop
        return loop

    def call(self, /, *args: Any, **kwargs: Any) -> object:
        """The test as a plain function, for pytest or for hypothesis."""
        __tracebackhide__ = True
        owner, limit = Owner(self.item.name), self.limit
        coro = self.function(*args, **kwargs)
        if self.used or not hasattr(self.item.obj, "hypothesis"):
            return self.runner.run(coro, owner, limit, final=True, tidy=False)
        runner = self.new_runner()  # each example has a loop of its own
        try:
            errors = errors_of(runner.run, coro, owner, limit, final=True)
            raise_all(errors + errors_of(runner.close))
        finally:
            del errors
        return None


class Plugin:
    def __init__(self, config: pytest.Config) -> None:
        self.limit = limit_from(float(config.getini("sleeploop_timeout")))
        self.current: Run | None = None
        self.shared: Runner | None = None  # for the tests that use fixtures of a wider scope
        self.wide: dict[Fixture, pytest.FixtureRequest] = {}  # those, in the order of their setup

    # ---- a test --------------------------------------------------------------------------------

    def begin(self, item: pytest.Function) -> None:
        arguments = arguments_of(item)
        limit = limit_from(arguments.pop("timeout")) if "timeout" in arguments else self.limit
        ours = [fixture for fixture in fixtures_of(item) if is_for_us(fixture)]
        wide = next((fixture for fixture in ours if fixture.scope != "function"), None)
        if wide is not None and arguments:
            raise failure(
                f"{item.name} runs on the loop that all tests of the session share, as its fixture "
                f"{wide.argname!r} has scope {wide.scope!r}; so @pytest.mark.{MARK} cannot set "
                f"{', '.join(arguments)} for it"
            )
        run = Run(item, arguments, limit)
        if wide is not None:
            if self.shared is None:
                self.shared = run.runner
            run.runner = self.shared
            run.shared = run.used = True
        self.current = item.stash[THE_RUN] = run

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
        __tracebackhide__ = True
        run = self.current
        if run is None or run.item is not pyfuncitem:
            return (yield)
        written = pyfuncitem.obj
        if hasattr(written, "hypothesis"):
            handle, inner = written.hypothesis, written.hypothesis.inner_test
            handle.inner_test = run.call
            try:
                return (yield)
            finally:
                handle.inner_test = inner
        pyfuncitem.obj = run.call
        try:
            return (yield)
        finally:
            pyfuncitem.obj = written

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, None, None]:
        __tracebackhide__ = True
        errors: list[BaseException] = []
        if self.current is not None and self.current.runner.left:
            errors += errors_of(self.current.runner.tidy)
        try:
            yield
        except BaseException as error:
            errors.append(error)
        errors += self.close_all() if nextitem is None else self.close_own()
        try:
            raise_all(errors)
        finally:
            del errors

    def close_own(self) -> list[BaseException]:
        """The end of a test, after its fixtures'. What goes wrong."""
        run, self.current = self.current, None
        if run is None:
            return []
        del run.item.stash[THE_RUN]
        if not run.shared:
            return errors_of(run.runner.close)
        run.runner.keep_time()
        return self.close_shared() if run.runner.spoilt else []

    def close_shared(self) -> list[BaseException]:
        """The next test that needs it gets another one, and makes its fixtures anew."""
        shared, self.shared = self.shared, None
        errors: list[BaseException] = []
        while self.wide:
            fixture, request = self.wide.popitem()
            errors += errors_of(fixture.finish, request)
        return errors if shared is None else errors + errors_of(shared.close)

    def close_all(self) -> list[BaseException]:
        return self.close_own() + self.close_shared()

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """After what ends a session before the teardown of its last test, as pytest.exit()."""
        for error in self.close_all():
            warnings.warn(pytest.PytestWarning(f"the end of a loop: {error!r}"), stacklevel=1)

    @pytest.hookimpl(tryfirst=True)
    def pytest_exception_interact(self, node: Any, call: pytest.CallInfo[Any]) -> None:
        """A debugger finds the frames of the test or the fixture, and none of ours above them."""
        if call.excinfo is None:
            return
        is_test = call.when == "call" and isinstance(node, pytest.Function)
        error = call.excinfo.value
        where = users_part(error.__traceback__, function_of(node) if is_test else None)
        if where is not None:
            call.excinfo = pytest.ExceptionInfo.from_exception(error.with_traceback(where))

    # ---- a fixture -----------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: Fixture, request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        __tracebackhide__ = True
        run = self.current
        if run is None or not is_for_us(fixturedef):
            return (yield)
        if fixturedef.scope != "function" and not run.shared:
            raise failure(
                f"the async fixture {fixturedef.argname!r} of scope {fixturedef.scope!r} needs the "
                f"loop that the session shares, but {run.item.name} was not known to use it: name "
                "it in the test's arguments, or in @pytest.mark.usefixtures()"
            )
        run.used = True
        if fixturedef.scope != "function":
            self.wide[fixturedef] = request
        written = fixturedef.func
        fixturedef.func = self.plain(  # type: ignore[misc]  # others do so, too
            written, Owner(fixturedef.argname, wide=fixturedef in self.wide), run.runner, request
        )
        try:
            return (yield)
        finally:
            fixturedef.func = written  # type: ignore[misc]

    def pytest_fixture_post_finalizer(self, fixturedef: Fixture) -> None:
        self.wide.pop(fixturedef, None)

    def plain(
        self, function: Any, owner: Owner, runner: Runner, request: pytest.FixtureRequest
    ) -> Callable[..., Iterator[Any]]:
        """The fixture as a generator function, for pytest."""
        instance = request.instance
        if inspect.ismethod(function) and isinstance(instance, type(function.__self__)):
            function = function.__func__.__get__(instance)  # pytest made it with another one

        def limit() -> float:
            return self.limit if self.current is None else self.current.limit

        @functools.wraps(function)
        def fixture(*args: Any, **kwargs: Any) -> Iterator[Any]:
            __tracebackhide__ = True
            made = function(*args, **kwargs)
            if not inspect.isasyncgen(made):
                yield runner.run(made, owner, limit())
                runner.end(owner)
                return

            def step(*, final: bool) -> Any:
                __tracebackhide__ = True
                coro: Any = advance(made)
                coro.__qualname__ = function.__qualname__
                return runner.run(coro, owner, limit(), yields=not final, final=final)

            value = step(final=False)
            if value is NOTHING:
                raise failure(f"the fixture {owner.name} did not yield a value")
            runner.open.append((owner, made))
            yield value
            if not runner.over:
                runner.open.remove((owner, made))
                if step(final=True) is not NOTHING:
                    raise failure(f"the fixture {owner.name} yields more than once")

        return fixture
