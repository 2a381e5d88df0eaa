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


class DrivenPlay(test_model.Play):
    """Runs the same, but by step() and run_until()."""

    def outcome(self, program: Any) -> Any:
        pieces = random.Random(repr(program))
        roots = [self.act(ops, str(n), publish=True) for n, ops in enumerate(program.roots)]
        loop = self.api.SleepingLoop(
            *roots, speed=math.inf, shuffle=self.shuffle, trace=pieces.choice([None, 1, 50])
        )
        for number, spawn in enumerate(program.early):
            spawn.start(self, loop.create_task, f"early {number}")
        drive(loop, "daemon=True" in repr(program), pieces)
        return loop.run_until_complete(), loop.time_ns(), loop.tasks(), loop.stats().wakeups


class DrivenScopePlay(test_scope_model.Play):
    """Likewise."""

    def outcome(self, program: Any) -> Any:
        pieces = random.Random(repr(program))
        roots = [
            self.coroutine(self.act(ops, str(n), publish=True))
            for n, ops in enumerate(program.roots)
        ]
        loop = self.api.SleepingLoop(
            *roots, speed=math.inf, shuffle=self.shuffle, trace=pieces.choice([None, 1, 50])
        )
        drive(loop, "daemon=True" in repr(program), pieces)
        return loop.run_until_complete()


@pytest.mark.parametrize(
    ("model", "driven"),
    [(test_model, DrivenPlay), (test_scope_model, DrivenScopePlay)],
    ids=["tasks", "structured"],
)
@pytest.mark.parametrize("block", range(4))
def test_in_pieces(model: Any, driven: Any, block: int) -> None:
    for seed in range(block * 200, block * 200 + 200):
        program = model.any_program(random.Random(seed).choice)
        if program.main_only:
            continue
        shuffle = seed if seed % 2 else None
        whole = model.play(sleeploop, program, shuffle)
        assert driven(sleeploop, shuffle).run(program) == whole, program
