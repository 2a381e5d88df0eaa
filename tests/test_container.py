"""Container: amounts that are put and got, who waits for whom, and what is refused."""

import gc
import math
import sys
import threading
from fractions import Fraction

import pytest

from sleeploop import (
    CancelScope,
    Container,
    ContainerStats,
    DeadlockError,
    LevelStats,
    SleepingLoop,
    TaskGroup,
    WaitStats,
    WouldBlock,
    checkpoint,
    create_task,
    format_tasks,
    move_on_after,
    sleep,
)
from tests.helpers import CROWD, now, outcome, virtual
from tests.waits import drop

LENGTH = 1000  # of a chain


async def note(log, name, wait):
    await wait
    log.append((name, now()))


async def within(scope, wait):
    """Await it in the scope; whether it came to something."""
    with scope:
        await wait
        return True
    return False


# ---- normal use ----------------------------------------------------------------------------------


def test_the_level_goes_up_and_down():
    async def main():
        tank = Container(10, 4, name="tank")
        assert (tank.level, tank.capacity, tank.name) == (4.0, 10.0, "tank")
        assert await tank.put(2.5) is None
        assert await tank.get(1) is None
        tank.put_nowait(4.5)
        assert tank.level == 10.0
        tank.get_nowait(10)
        return tank.level

    assert virtual(main()) == 0.0


def test_what_it_is_when_nobody_says():
    tank = Container()
    assert (tank.level, tank.capacity, tank.name) == (0.0, math.inf, None)
    assert type(tank.level) is type(tank.capacity) is float
    tank.put_nowait(1e300)
    assert tank.level == 1e300


def test_keywords():
    tank = Container(capacity=5, level=2)
    assert (tank.level, tank.capacity) == (2.0, 5.0)


@pytest.mark.usefixtures("forgetful")
def test_what_need_not_wait_does_not_switch_tasks():
    async def main():
        log = []
        tank = Container(10)
        create_task(note(log, "other", checkpoint()))
        await tank.put(5)
        await tank.get(5)
        assert log == []

    virtual(main())


def test_a_getter_waits_for_enough():
    async def main():
        log, tank = [], Container()
        create_task(note(log, "getter", tank.get(3)))
        for _ in range(4):
            await sleep(1)
            await tank.put(1)
        await checkpoint()
        assert log == [("getter", 3.0)]
        return tank.level

    assert virtual(main()) == 1.0


def test_a_putter_waits_for_room():
    async def main():
        log, tank = [], Container(10, 9)
        create_task(note(log, "putter", tank.put(3)))
        for _ in range(4):
            await sleep(1)
            await tank.get(1)
        await checkpoint()
        assert log == [("putter", 2.0)]
        return tank.level

    assert virtual(main()) == 8.0


def test_it_may_be_run_as_a_task():
    async def main():
        tank = Container()
        tasks = [create_task(tank.get(1)), create_task(tank.put(1))]
        return [await task for task in tasks]

    assert virtual(main()) == [None, None]


def test_all_kinds_of_numbers():
    class Index:
        def __index__(self):
            return 2

    tank = Container(Fraction(21, 2), True)
    for amount in (Index(), Fraction(1, 2), False, 3):
        tank.put_nowait(amount)
    assert (tank.capacity, tank.level) == (10.5, 6.5)


# ---- first come, first served --------------------------------------------------------------------


def test_who_waits_for_much_holds_back_who_wants_less():
    async def main():
        log, tank = [], Container(10, 2)
        create_task(note(log, "much", tank.get(5)))
        create_task(note(log, "little", tank.get(1)))
        await sleep(1)
        with pytest.raises(
            WouldBlock, match=r"^Container.get_nowait\(\) of 1.0 would have to wait"
        ):
            tank.get_nowait(1)
        assert log == []
        tank.put_nowait(3)
        assert tank.level == 0.0
        await sleep(1)
        tank.put_nowait(1)
        await checkpoint()
        return log

    assert virtual(main()) == [("much", 1.0), ("little", 2.0)]


def test_the_same_for_those_who_put():
    async def main():
        log, tank = [], Container(10, 8)
        create_task(note(log, "much", tank.put(5)))
        create_task(note(log, "little", tank.put(1)))
        await sleep(1)
        with pytest.raises(
            WouldBlock, match=r"^Container.put_nowait\(\) of 1.0 would have to wait"
        ):
            tank.put_nowait(1)
        assert log == []
        tank.get_nowait(3)
        assert tank.level == 10.0
        await sleep(1)
        tank.get_nowait(1)
        await checkpoint()
        return log

    assert virtual(main()) == [("much", 1.0), ("little", 2.0)]


def test_getters_do_not_hold_back_putters_nor_the_other_way_round():
    async def main():
        tank = Container(10, 5)
        create_task(tank.get(8), daemon=True)
        await checkpoint()
        tank.put_nowait(2)
        await tank.put(0.5)
        assert tank.level == 7.5
        create_task(tank.put(8), daemon=True)
        await checkpoint()
        assert repr(tank) == "<Container (level 7.5 of 10.0), 2 waiting>"

        other = Container(10, 5)
        create_task(other.put(8), daemon=True)
        await checkpoint()
        other.get_nowait(1)
        await other.get(1)
        return other.level

    assert virtual(main()) == 3.0


def test_zero_is_an_amount_that_stands_in_line():
    async def main():
        log, tank = [], Container(10, 0)
        await tank.get(0)
        await tank.put(0)
        create_task(note(log, "much", tank.get(5)))
        create_task(note(log, "nothing", tank.get(0)))
        await sleep(1)
        assert log == []
        await tank.put(5)
        await checkpoint()
        return log

    assert virtual(main()) == [("much", 1.0), ("nothing", 1.0)]


def test_a_chain_of_any_length_happens_in_the_same_moment():
    async def main():
        log, tank, scope = [], Container(10, 5), CancelScope()
        create_task(within(scope, tank.put(6)))
        create_task(note(log, "put half", tank.put(5)))
        for n in range(LENGTH):
            create_task(note(log, f"put {n}", tank.put(10)))
            create_task(note(log, f"get {n}", tank.get(10)))
        await sleep(1)
        assert (log, tank.level) == ([], 5.0)
        scope.cancel()
        assert tank.level == 10.0
        assert repr(tank) == "<Container (level 10.0 of 10.0)>"
        await checkpoint()
        return [name for name, when in log if when == 1]

    names = [f"{what} {n}" for n in range(LENGTH) for what in ("get", "put")]
    assert virtual(main()) == ["put half", *names]


def test_nobody_gets_in_between():
    async def main():
        log, tank = [], Container(10)
        create_task(note(log, "waits", tank.get(5)))
        await checkpoint()
        tank.put_nowait(5)
        with pytest.raises(WouldBlock):
            tank.get_nowait(1)
        create_task(note(log, "comes later", tank.get(5)))
        await checkpoint()
        tank.put_nowait(5)
        await checkpoint()
        return [name for name, _ in log]

    assert virtual(main()) == ["waits", "comes later"]


# ---- cancellation --------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["get", "put"])
def test_a_cancelled_head_lets_the_next_through_in_the_same_pass(what):
    async def main():
        log, tank, scope = [], Container(10, 5), CancelScope()
        wait = getattr(tank, what)
        create_task(within(scope, wait(6)))
        create_task(note(log, "second", wait(2)))
        create_task(note(log, "third", wait(3)))
        create_task(note(log, "fourth", wait(1)))
        await sleep(1)
        assert (tank.level, log) == (5.0, [])
        scope.cancel()
        assert tank.level == (0.0 if what == "get" else 10.0)
        await checkpoint()
        return log

    assert virtual(main()) == [("second", 1.0), ("third", 1.0)]


def test_who_is_cancelled_in_the_middle_has_got_nothing():
    async def main():
        log, tank, scope = [], Container(), CancelScope()
        create_task(note(log, "first", tank.get(1)))
        task = create_task(within(scope, tank.get(1)))
        create_task(note(log, "third", tank.get(1)))
        await sleep(1)
        scope.cancel()
        tank.put_nowait(3)
        assert await task is False
        assert tank.level == 1.0
        return log

    assert virtual(main()) == [("first", 1.0), ("third", 1.0)]


def test_what_has_been_granted_is_had_whatever_comes():
    async def main():
        tank, scope = Container(), CancelScope()
        task = create_task(within(scope, tank.get(1)))
        await checkpoint()
        tank.put_nowait(1)
        scope.cancel()
        assert await task is True
        return tank.level

    assert virtual(main()) == 0.0


def test_in_a_cancelled_scope_nothing_happens():
    async def main():
        tank = Container(10, 5)
        for wait in (tank.get(1), tank.put(1)):
            with CancelScope() as scope:
                scope.cancel()
                await wait
                raise AssertionError
        return tank.level

    assert virtual(main()) == 5.0


def test_giving_up_after_some_time():
    async def main():
        tank = Container()
        with move_on_after(3) as scope:
            await tank.get(1)
        assert scope.cancelled_caught
        assert now() == 3.0
        return repr(tank)

    assert virtual(main()) == "<Container (level 0.0)>"


def test_a_group_of_waiters_is_cancelled():
    """Each leaves, and lets those behind it go that can: what they have been given they have."""

    async def main():
        tank, log = Container(10, 3), []
        with CancelScope() as scope:
            async with TaskGroup() as group:
                for amount in (5, 4, 3):
                    group.create_task(note(log, amount, tank.get(amount)))
                await sleep(1)
                scope.cancel()
        assert log == [(3, 1.0)]
        return tank.level

    assert virtual(main()) == 0.0


def test_an_amount_that_nobody_learns_of_goes_back():
    async def main():
        tank, log, kept = Container(), [], []
        create_task(drop(tank.get(3), kept))
        create_task(note(log, "second", tank.get(2)))
        await sleep(1)
        tank.put_nowait(3)
        assert tank.level == 0.0
        await checkpoint()
        kept.pop().close()
        assert tank.level == 1.0
        await checkpoint()
        return log

    assert virtual(main()) == [("second", 1.0)]


def test_an_amount_that_goes_back_may_be_more_than_fits():
    async def main():
        tank, kept = Container(5, 0), []
        create_task(drop(tank.get(3), kept))
        await checkpoint()
        tank.put_nowait(3)
        tank.put_nowait(5)
        await checkpoint()
        kept.pop().close()
        assert tank.level == 8.0
        with pytest.raises(WouldBlock):
            tank.put_nowait(0)
        tank.get_nowait(4)
        tank.put_nowait(1)
        return tank.level

    assert virtual(main()) == 5.0


def test_what_has_been_put_stays_put():
    async def main():
        tank, kept = Container(5, 5), []
        create_task(drop(tank.put(3), kept))
        await checkpoint()
        tank.get_nowait(5)
        await checkpoint()
        kept.pop().close()
        return tank.level

    assert virtual(main()) == 3.0


# ---- misuse --------------------------------------------------------------------------------------

METHODS = ["put", "get", "put_nowait", "get_nowait"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("amount", [-1, -0.001, math.nan, math.inf, -math.inf, 10**400, -(10**400)])
def test_amounts_that_cannot_be(method, amount):
    tank = Container(10, 5)
    with pytest.raises(ValueError, match=rf"Container.{method}\(\): amount must be 0 or more and"):
        getattr(tank, method)(amount)
    assert tank.level == 5.0


@pytest.mark.parametrize("method", METHODS)
def test_more_than_the_capacity_can_never_be(method):
    tank = Container(10, 5)
    message = rf"^Container.{method}\(\): amount must be at most the capacity, 10.0, not 11: "
    with pytest.raises(ValueError, match=message):
        getattr(tank, method)(11)
    assert tank.level == 5.0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("amount", ["1", None, 1j, [], object])
def test_what_is_no_number(method, amount):
    with pytest.raises(TypeError, match=rf"^Container.{method}\(\): amount must be a number, not "):
        getattr(Container(10, 5), method)(amount)


@pytest.mark.parametrize("method", METHODS)
def test_the_value_is_named(method):
    with pytest.raises(ValueError, match=r"finite, not -2\.5$"):
        getattr(Container(10, 5), method)(-2.5)
    with pytest.raises(TypeError, match="one argument"):
        getattr(Container(), method)()
    with pytest.raises(TypeError, match="keyword"):
        getattr(Container(), method)(amount=1)


@pytest.mark.parametrize("kind", [LookupError, OverflowError, KeyboardInterrupt])
def test_a_number_that_fails(kind):
    error = kind("own")

    class Number:
        def __float__(self):
            raise error

    for call in (Container, Container().put, Container().get_nowait):
        with pytest.raises(kind) as caught:
            call(Number())
        assert caught.value is error


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((0,), ValueError, r"^Container\(\): capacity must be more than 0, not 0$"),
        ((-5,), ValueError, "not -5$"),
        ((math.nan,), ValueError, "not nan$"),
        (("big",), TypeError, r"^Container\(\): capacity must be a number, not 'big'$"),
        ((None,), TypeError, "not None$"),
        ((5, 6), ValueError, r"^Container\(\): level must be from 0 to the capacity and .* 6$"),
        ((5, -1), ValueError, "not -1$"),
        ((5, math.nan), ValueError, "not nan$"),
        ((math.inf, math.inf), ValueError, "not inf$"),
        ((5, "full"), TypeError, "not 'full'$"),
        ((5, 1, "tank"), TypeError, "2 positional"),
    ],
)
def test_containers_that_cannot_be(args, error, message):
    with pytest.raises(error, match=message):
        Container(*args)


def test_names_and_other_arguments():
    with pytest.raises(TypeError, match=r"^Container\(\): name must be a str, not 5$"):
        Container(name=5)
    with pytest.raises(TypeError, match="size"):
        Container(size=5)
    for name in ("level", "capacity", "name"):
        with pytest.raises(AttributeError):
            setattr(Container(), name, 1)


def test_no_float_can_tell_more():
    """With no limit, an amount waits that would be more than the greatest float."""

    async def main():
        tank, log = Container(level=sys.float_info.max), []
        create_task(note(log, "putter", tank.put(sys.float_info.max)))
        await sleep(1)
        assert (log, tank.level) == ([], sys.float_info.max)
        tank.get_nowait(sys.float_info.max)
        await checkpoint()
        assert math.isfinite(tank.level)
        return log

    assert virtual(main()) == [("putter", 1.0)]


def test_without_a_loop_there_is_no_waiting_but_the_rest():
    tank = Container(10)
    tank.put_nowait(5)
    tank.get_nowait(2)
    assert tank.level == 3.0
    for wait in (tank.get(1), tank.put(1)):
        with pytest.raises(RuntimeError, match=r"^Container.[gp][eu]t\(\) needs a running loop"):
            wait.send(None)
    assert tank.level == 3.0


def test_once():
    async def main():
        tank = Container(10, 5)
        wait = tank.get(1)
        await wait
        with pytest.raises(RuntimeError):
            await wait
        return tank.level

    assert virtual(main()) == 4.0


def test_another_loop():
    tank = Container(10)
    first = SleepingLoop(tank.get(5), speed=math.inf)
    first.step()

    async def other():
        return await outcome(tank.put(1)), await outcome(tank.get(1))

    for error in virtual(other()):
        assert isinstance(error, RuntimeError)
        assert "belongs to another loop" in str(error)
    tank.put_nowait(5)
    assert first.run_until_complete() == [None]
    assert virtual(tank.put(1)) is None
    first.close()


def test_another_thread():
    tank, errors = Container(10), []

    def meddle():
        for call in (tank.put_nowait, tank.get_nowait):
            try:
                call(1)
            except RuntimeError as error:
                errors.append(str(error))

    async def main():
        create_task(tank.get(5))
        await checkpoint()
        thread = threading.Thread(target=meddle)
        thread.start()
        thread.join()
        assert len(errors) == 2
        assert all("another thread" in error for error in errors)
        await tank.put(5)

    virtual(main())


# ---- what is told --------------------------------------------------------------------------------


@pytest.mark.usefixtures("forgetful")
def test_reprs_and_reports():
    async def main():
        tank = Container(10, 3.5, name="tank")
        assert repr(tank) == "<Container 'tank' (level 3.5 of 10.0)>"
        task = create_task(tank.get(4))
        await checkpoint()
        assert repr(tank) == "<Container 'tank' (level 3.5 of 10.0), 1 waiting>"
        assert task.waiting_on is tank
        assert "waiting for Container 'tank' (level 3.5 of 10.0), since 0.0 s" in format_tasks()
        assert repr(tank.get(1)) == (
            "<Container.get() of Container 'tank' (level 3.5 of 10.0), not awaited yet>"
        )
        task.cancel()

    virtual(main())


def test_a_deadlock_tells_of_it():
    with pytest.raises(DeadlockError, match=r"Container 'tank' \(level 1\.0\)"):
        virtual(Container(level=1, name="tank").get(2))


def test_statistics():
    async def main():
        await sleep(10)
        tank = Container(10, 4, stats=True)
        assert tank.stats() == ((4.0, 4.0, 4.0), (0, 0, 0.0, 0.0), (0, 0, 0.0, 0.0))
        getter = create_task(tank.get(5))
        await sleep(2)
        await tank.put(3)  # of which nothing is left but 2
        await sleep(2)
        await tank.put(8)
        putter = create_task(tank.put(1))
        await sleep(4)
        tank.get_nowait(5)
        await getter
        await putter
        return tank.stats()

    stats = virtual(main())
    assert type(stats) is ContainerStats
    assert type(stats.level) is LevelStats
    assert type(stats.puts) is type(stats.gets) is WaitStats
    assert stats.level == (6.0, 10.0, (2 * 4 + 2 * 2 + 4 * 10) / 8)
    assert stats.puts == (3, 1, 4 / 3, 4.0)
    assert stats.gets == (2, 1, 1.0, 2.0)


def test_waiting_that_takes_no_time_is_waiting():
    async def main():
        tank = Container(stats=True)
        create_task(tank.get(5))
        await checkpoint()
        await tank.put(5)
        return tank.stats()

    stats = virtual(main())
    assert stats.gets == (1, 1, 0.0, 0.0)
    assert stats.puts == (1, 0, 0.0, 0.0)
    assert stats.level == (0.0, 0.0, 0.0)


def test_no_statistics_unless_asked_for():
    message = (
        r"^Container.stats\(\): <Container 'tank' \(level 0.0\)> keeps no statistics; make it "
    )
    with pytest.raises(RuntimeError, match=message):
        Container(name="tank").stats()


# ---- many, and evil ones -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.no_leak_check  # takes long, and nothing that others do not
def test_many_waiters():
    async def get(n):
        await tank.get(1)
        order.append(n)

    async def main():
        blocker = create_task(tank.get(CROWD))
        await checkpoint()
        for n in range(CROWD):
            create_task(get(n))
        await tank.put(CROWD - 1)
        await checkpoint()
        assert order == []
        blocker.cancel()
        assert tank.level == 0.0
        await checkpoint()
        assert order == list(range(CROWD - 1))
        await tank.put(1)
        await checkpoint()

    tank, order = Container(), []
    virtual(main())
    assert order == list(range(CROWD))


def test_the_loop_is_dropped_while_tasks_wait():
    tank = Container(10, 5)
    loop = SleepingLoop(tank.get(8), tank.put(8), tank.get(1), speed=math.inf)
    loop.step()
    assert repr(tank) == "<Container (level 5.0 of 10.0), 3 waiting>"
    with pytest.warns(ResourceWarning):
        del loop
        gc.collect()
    assert repr(tank).endswith("0)>")
    tank.get_nowait(tank.level)
    tank.put_nowait(10)


def test_a_wait_that_is_closed_while_its_task_is_parked():
    async def get():
        await waits[0]

    async def main():
        task = create_task(get())
        await checkpoint()
        waits[0].close()
        tank.put_nowait(3)
        assert isinstance(await outcome(task), RuntimeError)

    tank = Container()
    waits = [tank.get(3)]
    virtual(main())
    assert tank.level == 3.0  # as nobody learned of it


def test_what_was_granted_when_the_run_ends_is_had():
    async def main():
        tank = Container()
        create_task(note(log, "getter", tank.get(3)))
        await checkpoint()
        tank.put_nowait(3)
        return tank

    log = []
    assert virtual(main()).level == 0.0
    assert log == [("getter", 0.0)]
