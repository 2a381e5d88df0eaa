"""The pytest plugin: async fixtures, their task, their scopes, their end."""

import pytest

from tests.plugin import run

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.no_leak_check  # a run of pytest keeps things


def test_fixtures_of_all_kinds_depend_on_each_other(pytester):
    result = run(
        pytester,
        """
        @pytest.fixture
        async def number():
            await sleep(5)
            return 7

        @pytest.fixture
        def plain(number):
            yield number + 1
            print("plain is torn down")

        @pytest.fixture
        async def generator(plain):
            await sleep(1)
            yield plain + 1
            await sleep(1)
            print("generator is torn down at", current_loop().time())

        @MARK
        async def test(generator, number):
            assert (generator, number) == (9, 7)
            assert current_loop().time() == 6

        class TestMethods:
            @pytest.fixture(autouse=True)
            def prepare(self):
                self.x = 1

            @pytest.fixture
            async def y(self):
                return self.x + 1

            @MARK
            async def test_method(self, y):
                assert (self.x, y) == (1, 2)
        """,
        "-s",
        passed=2,
    )
    result.stdout.fnmatch_lines(["*generator is torn down at 7.0", "plain is torn down"])


def test_one_task_and_one_context(pytester):
    run(
        pytester,
        """
        from contextvars import ContextVar
        variable = ContextVar("variable")
        before = ContextVar("before")

        @pytest.fixture
        def plain():
            before.set("plain")

        @pytest.fixture
        async def fixture(plain):
            token = variable.set("fixture")
            task = current_task()
            yield task
            assert current_task() is task
            assert variable.get() == "test"
            variable.reset(token)

        @MARK
        async def test(fixture):
            assert current_task() is fixture
            assert (variable.get(), before.get()) == ("fixture", "plain")
            variable.set("test")
        """,
        passed=1,
    )


def test_plain_fixtures_are_in_that_context(pytester):
    run(
        pytester,
        """
        from contextvars import ContextVar
        variable = ContextVar("variable", default="unset")

        @pytest.fixture(scope="module")
        async def wide():
            token = variable.set("wide")
            yield
            variable.reset(token)

        @pytest.fixture
        async def first(): yield

        @pytest.fixture
        def plain():
            before = variable.get()
            token = variable.set("plain")
            yield
            variable.reset(token)
            assert variable.get() == before

        @pytest.fixture
        async def sets(plain):
            assert variable.get() == "plain"
            token = variable.set("async")
            yield
            assert variable.get() == "test"
            variable.reset(token)
            assert variable.get() == "plain"

        @pytest.fixture
        def sees(sets):
            return variable.get()

        async def child():
            variable.set("child")
            return variable.get()

        @MARK
        async def test_alone(plain):
            assert variable.get() == current_task().context[variable] == "plain"

        @MARK
        async def test_after(first, plain):
            assert variable.get() == "plain"

        @MARK
        async def test_seen_by_plain(sees):
            assert sees == variable.get() == "async"
            assert await create_task(child()) == "child"
            assert variable.get() == "async"
            variable.set("test")

        def test_unset():
            assert variable.get() == "unset"

        @MARK
        async def test_shared(wide, plain):
            assert variable.get() == "plain"

        def test_wide():
            assert variable.get() == "wide"
        """,
        passed=6,
    )


def test_blocks_around_the_yield_are_around_the_test(pytester):
    result = run(
        pytester,
        """
        async def fail():
            await sleep(1)
            raise ValueError("in the group")

        @pytest.fixture
        async def group():
            async with TaskGroup() as group:
                yield group
                group.cancel_scope.cancel()

        @pytest.fixture
        async def limited(group):
            with move_on_after(10) as scope:
                yield scope

        @MARK
        async def test_the_group_sees_to_its_tasks(group, limited):
            group.create_task(sleep_forever())
            await sleep(5)

        @MARK
        async def test_is_cancelled_by_the_scope(limited):
            with pytest.raises(CancelledError):
                await sleep(20)
            assert current_loop().time() == 10 and limited.cancel_called

        @MARK
        async def test_is_cancelled_with_the_group(limited, group):
            group.create_task(fail(), name="child")
            await sleep(5)
        """,
        passed=2,
        failed=1,
        errors=1,
    )
    result.stdout.fnmatch_lines(
        ["*ValueError: in the group", "E *CancelledError: task 'child' failed with ValueError*"]
    )


def test_wider_scopes_share_a_loop(pytester):
    run(
        pytester,
        """
        import itertools
        made = itertools.count()

        @pytest.fixture(scope="session")
        async def session():
            await sleep(100)
            yield current_task()
            print("session ends at", current_loop().time())

        @pytest.fixture(scope="module")
        async def module(session):
            async with TaskGroup() as group:
                yield group
            print("module ends")

        @pytest.fixture(scope="class")
        async def klass(module):
            yield next(made)
            print("class ends")

        @pytest.fixture
        async def indirect(session):
            return session

        @MARK
        class TestShared:
            async def test_one(self, klass, module, session):
                assert (klass, current_loop().time()) == (0, 100)
                module.create_task(sleep(1000))
                await sleep(5)

            async def test_two(self, klass, indirect):
                assert klass == 0 and current_task() is indirect
                assert current_loop().time() == 105

        @MARK
        async def test_three(klass):
            assert klass == 1

        @MARK
        async def test_own():
            assert current_loop().time() == 0
        """,
        "-s",
        passed=4,
    ).stdout.fnmatch_lines(
        ["*class ends", "*class ends", "*module ends", "*session ends at 1100.0"]
    )


def test_an_option_cannot_be_set_for_the_shared_loop(pytester):
    result = run(
        pytester,
        """
        @pytest.fixture(scope="module")
        async def wide(): yield

        @MARK(seed=1, timeout=60)
        async def test_seed(wide): pass

        @MARK(timeout=60)
        async def test_timeout(wide): pass
        """,
        passed=1,
        errors=1,
    )
    result.stdout.fnmatch_lines("*'wide' has scope 'module'; so *cannot set seed for it")


def test_what_is_asked_for_too_late(pytester):
    result = run(
        pytester,
        """
        @pytest.fixture(scope="module")
        async def wide(): yield

        @pytest.fixture
        async def narrow(): return 5

        @pytest.fixture
        def plain(request):
            return request.getfixturevalue("narrow")

        @MARK
        async def test_wide(request):
            request.getfixturevalue("wide")

        @MARK
        async def test_narrow(request):
            request.getfixturevalue("narrow")

        @MARK
        async def test_in_a_fixture(plain):
            assert plain == 5
        """,
        passed=1,
        failed=2,
    )
    result.stdout.fnmatch_lines(
        [
            "*the async fixture 'wide' of scope 'module' needs *usefixtures*",
            "*narrow cannot run on its loop: it is running*",
        ]
    )


def test_failures_of_fixtures(pytester):
    result = run(
        pytester,
        """
        @pytest.fixture
        async def log():
            yield
            await sleep(1)
            print("log is torn down")

        @pytest.fixture
        async def bad_setup(log):
            await sleep(1)
            raise KeyError("setup")
            yield

        @pytest.fixture
        async def bad_teardown(log):
            yield
            await sleep(1)
            raise KeyError("teardown")

        @pytest.fixture
        async def twice(log):
            yield 1
            yield 2

        @pytest.fixture
        async def never(log):
            if log:
                yield

        @pytest.fixture
        async def skips(log):
            pytest.skip("not today")

        @MARK
        async def test_setup(bad_setup): pass

        @MARK
        async def test_teardown(bad_teardown): pass

        @MARK
        async def test_both(bad_teardown): assert False

        @MARK
        async def test_twice(twice): pass

        @MARK
        async def test_never(never): pass

        @MARK
        async def test_skips(skips): pass
        """,
        "-s",
        passed=2,
        failed=1,
        errors=5,
        skipped=1,
    )
    assert str(result.stdout).count("log is torn down") == 6
    result.stdout.fnmatch_lines(
        [
            "*KeyError: 'setup'",
            "*KeyError: 'teardown'",
            "*twice yields more than once",
            "*never did not yield a value",
        ]
    )
    result.stdout.no_fnmatch_line("*_runner.py*")
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_fixtures_that_hang(pytester):
    result = run(
        pytester,
        """
        @pytest.fixture
        async def log():
            yield
            print("log is torn down")

        @pytest.fixture
        async def before(log):
            try:
                await sleep_forever()
            finally:
                await sleep(0)
            yield

        @pytest.fixture
        async def after(log):
            async with TaskGroup():
                yield
                await sleep_forever()

        @pytest.fixture
        async def ticks(log):
            yield
            while True:
                await sleep(10)

        @MARK
        async def test_before(before): pass

        @MARK
        async def test_after(after): pass

        @MARK(timeout=100)
        async def test_ticks(ticks): pass
        """,
        "-s",
        passed=2,
        errors=3,
    )
    assert str(result.stdout).count("log is torn down") == 3
    result.stdout.fnmatch_lines(
        [
            "> *await sleep_forever()",
            "E *Task 'before' before: sleeping until cancelled*",
            "> *await sleep_forever()",
            "E *Task 'after' after: sleeping until cancelled*",
            "E *Failed: ticks was still running after 100.0 s of loop time, its limit *",
        ]
    )


def test_tasks_of_a_fixture_live_until_its_end(pytester):
    result = run(
        pytester,
        """
        async def serve():
            while True:
                await sleep(1)

        @pytest.fixture
        async def careful():
            task = create_task(serve())
            yield
            task.cancel()

        @pytest.fixture
        async def careless():
            create_task(serve(), name="server")

        @pytest.fixture
        async def manager():
            '''Makes tasks while the test runs.'''
            async def spawn():
                await sleep(1)
                create_task(serve(), name="spawned")
            create_task(spawn())
            yield

        @MARK
        async def test_careful(careful): await sleep(5)

        @MARK
        async def test_careless(careless): await sleep(5)

        @MARK
        async def test_manager(manager): await sleep(5)
        """,
        passed=3,
        errors=2,
    )
    result.stdout.fnmatch_lines(
        [
            "careless left 1 task running:",
            "  Task 'server' serve: sleeping until 6.0 s, since 5.0 s, at *",
            "manager left 1 task running:",
            "  Task 'spawned' serve: sleeping until 6.0 s, since 5.0 s, at *",
        ]
    )


def test_an_overridden_fixture(pytester):
    run(
        pytester,
        """
        @pytest.fixture
        async def value():
            await sleep(1)
            return 1

        class TestMore:
            @pytest.fixture
            async def value(self, value):
                await sleep(1)
                return value + 1

            @MARK(speed=math.inf)
            async def test(self, value):
                assert (value, current_loop().time()) == (2, 2)
        """,
        passed=1,
    )


def test_setup_show_and_plan(pytester):
    source = """
        @pytest.fixture
        async def value():
            print("running")
            yield 1

        @MARK
        async def test(value): pass
        """
    result = run(pytester, source, "--setup-show", "-s", passed=1)
    result.stdout.fnmatch_lines(
        ["*SETUP*value*", "*test (fixtures used:*value)*", "*TEARDOWN*value*"]
    )
    result = run(pytester, source, "--setup-plan", "-s")
    result.stdout.fnmatch_lines("*SETUP*value*")
    result.stdout.no_fnmatch_line("*running*")


def test_a_plain_test_is_none_of_its_business(pytester):
    run(
        pytester,
        """
        @pytest.fixture(scope="module")
        async def value():
            yield 1

        @MARK
        async def test_first(value):
            assert value == 1

        def test_then(value):
            assert value == 1  # pytest keeps it
        """,
        passed=2,
    )
