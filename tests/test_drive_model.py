"""Random programs, in one go and driven in random pieces: nobody inside may see a difference."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

import sleeploop
from tests.test_model import Play, Program, any_program, play


class DrivenPlay(Play):
    """Runs the same, but by step() and run_until()."""

    def __init__(self, api: Any, pieces: random.Random) -> None:
        super().__init__(api)
        self.pieces = pieces

    def outcome(self, program: Program) -> Any:
        roots = [self.act(ops, str(n), publish=True) for n, ops in enumerate(program.roots)]
        loop = self.api.SleepingLoop(*roots, speed=math.inf)
        for number, spawn in enumerate(program.early):
            spawn.start(self, loop.create_task, f"early {number}")
        self.drive(loop, "daemon=True" in repr(program))
        return loop.run_until_complete(), loop.time_ns(), loop.tasks(), loop.stats().wakeups

    def drive(self, loop: Any, has_daemons: bool) -> None:
        """As long as the run would go on by itself. run_until() does not stop where only daemons
        are left, so it is for programs that have none."""
        while self.pieces.random() < 0.95:
            daemons = [task.daemon for task in loop.tasks()]  # and keep none of the tasks
            if all(daemons) or loop.next_wake_time() == math.inf:
                return
            if self.pieces.random() < 0.5 or has_daemons:
                loop.step()
            elif self.pieces.random() < 0.2:
                loop.run_until(loop.time())  # nothing more than what is ready
            else:
                loop.run_until(loop.next_wake_time())


@pytest.mark.parametrize("block", range(4))
def test_in_pieces(block: int) -> None:
    for seed in range(block * 250, block * 250 + 250):
        program = any_program(random.Random(seed).choice)
        if program.main_only:
            continue
        whole = play(sleeploop, program)
        assert DrivenPlay(sleeploop, random.Random(seed)).run(program) == whole, program
