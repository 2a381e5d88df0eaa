"""Random programs, in one go and driven in random pieces: nobody inside may see a difference.

The pieces are traced now and then, in any order, and the loop is paused between them.
"""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

import sleeploop
from tests import test_model, test_scope_model
from tests.twins import assert_same, each_seed


def drive(loop: Any, has_daemons: bool, pieces: random.Random) -> None:
    """As long as the run would go on by itself. run_until() does not stop where only daemons
    are left, so it is for programs that have none."""
    while pieces.random() < 0.95:
        daemons = [task.daemon for task in loop.tasks()]  # and keep none of the tasks
        if all(daemons) or loop.next_wake_time() == math.inf:
            return
        if pieces.random() < 0.5 or has_daemons:
            loop.step()
        elif pieces.random() < 0.2:
            loop.run_until(loop.time())  # nothing more than what is ready
        else:
            loop.run_until(loop.next_wake_time())
        if pieces.random() < 0.3:
            loop.speed = 0
            if loop.trace is not None:
                assert loop.trace.events[-1].time <= loop.time()
            loop.speed = math.inf


class Driven:
    """Runs the same, but by step() and run_until()."""

    def make_loop(self: Any, roots: list[Any], program: Any) -> Any:
        self.pieces = random.Random(repr(program))
        self.has_daemons = "daemon=True" in repr(program)
        trace = self.pieces.choice([None, 1, 50])
        return self.api.SleepingLoop(*roots, speed=math.inf, shuffle=self.shuffle, trace=trace)

    def complete(self: Any, loop: Any) -> Any:
        drive(loop, self.has_daemons, self.pieces)
        return loop.run_until_complete()


class DrivenPlay(Driven, test_model.Play):
    pass


class DrivenScopePlay(Driven, test_scope_model.Play):
    pass


@pytest.mark.parametrize(
    ("model", "driven"),
    [(test_model, DrivenPlay), (test_scope_model, DrivenScopePlay)],
    ids=["tasks", "structured"],
)
def test_in_pieces(model: Any, driven: Any) -> None:
    def check(seed: int) -> None:
        program = model.any_program(random.Random(seed).choice)
        if not program.main_only:
            shuffle = seed if seed % 2 else None
            whole = model.play(sleeploop, program, shuffle)
            assert_same(driven(sleeploop, shuffle).run(program), whole, program)

    each_seed(check, times=4)
