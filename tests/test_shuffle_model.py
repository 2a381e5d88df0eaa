"""Random programs in random orders: on the loop, on the loop again, and on the reference.

The programs are those of test_model.py and test_scope_model.py. The loop draws an order, and
`loop.schedule` is all that the others are told of it.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sleeploop
from tests import reference, test_model, test_scope_model
from tests.twins import assert_same, each_seed, examples

MODELS = pytest.mark.parametrize(
    "model", [test_model, test_scope_model], ids=["tasks", "structured"]
)


def assert_replays(model: Any, program: Any, shuffle: Any) -> Any:
    """Returns the log, and the schedule."""
    play = model.Play(sleeploop, shuffle)
    log = play.run(program)
    schedule = play.loop.schedule if play.loop is not None else ()
    assert_same(model.play(sleeploop, program, schedule), log, shuffle, program)
    second = model.Play(reference, schedule)
    assert_same(second.run(program), log, shuffle, program)
    if second.loop is not None:
        assert list(second.loop.choices) == []  # there are as many as there was something to choose
    return log, schedule


def program_of(model: Any, seed: int) -> Any:
    return model.any_program(random.Random(seed).choice)


@MODELS
def test_a_seed(model: Any) -> None:
    each_seed(lambda seed: assert_replays(model, program_of(model, seed), seed), times=2)


@MODELS
def test_they_are_different_orders(model: Any) -> None:
    """Or the above proves nothing."""

    def differs(seed: int) -> bool:
        program = program_of(model, seed)
        log, schedule = assert_replays(model, program, seed)
        return log != model.play(sleeploop, program) and any(schedule)

    different = each_seed(differs, times=2)
    assert sum(different) > 0.3 * len(different)


CHOICES = st.lists(st.integers(0, 5) | st.just(65535), max_size=30)


@examples()
@given(test_model.programs(), CHOICES)
def test_choices_that_may_be_too_large_or_too_few(program: Any, choices: list[int]) -> None:
    log, _ = assert_replays(test_model, program, choices)
    assert test_model.play(reference, program, choices) == log


@examples()
@given(test_scope_model.programs(), CHOICES)
def test_the_same_with_scopes_and_groups(program: Any, choices: list[int]) -> None:
    log, _ = assert_replays(test_scope_model, program, choices)
    assert test_scope_model.play(reference, program, choices) == log


@MODELS
def test_first_in_first_out_is_the_schedule_of_zeros(model: Any) -> None:
    def check(seed: int) -> None:
        program = program_of(model, seed)
        plain = model.play(sleeploop, program)
        assert model.play(sleeploop, program, ()) == plain
        assert model.play(sleeploop, program, [0] * 20) == plain

    each_seed(check)
