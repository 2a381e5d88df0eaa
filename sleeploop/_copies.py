"""Copies and pickles of the package's exceptions. Called from C."""

from __future__ import annotations

import copy
import copyreg
import pickle
from contextvars import ContextVar
from typing import Any

_ATOMS = {type(None), bool, int, float, str, bytes}

_is_trial: ContextVar[bool] = ContextVar("sleeploop: what is pickled is a trial", default=False)


def copied(error: Any, memo: dict[int, Any] | None) -> Any:
    """What copy() returns, and with a memo deepcopy(). What cannot be copied is shared."""
    twin = copyreg.__newobj__(type(error), *error.args)  # type: ignore[attr-defined]
    if memo is not None:
        memo[id(error)] = twin
    twin.args = tuple(_copied(arg, memo) for arg in error.args)
    for name, value in _attributes(error).items():
        setattr(twin, name, _copied(value, memo))
    return twin


def reduced(error: Any, more: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """What __reduce__() returns. What cannot be pickled becomes its repr().

    Not by a call of the type: what the __init__() of a subclass takes need not be `args`.
    """
    attributes = {name: _pickled(value) for name, value in _attributes(error).items()}
    state = (attributes, *map(_pickled, more)) if more is not None else attributes
    return copyreg.__newobj__, (type(error), *map(_pickled, error.args)), state  # type: ignore[attr-defined]


def _attributes(error: Any) -> dict[str, Any]:
    """Those of its `__dict__`, and those in the slots of a subclass."""
    state: Any = object.__getstate__(error)
    if isinstance(state, tuple):
        attributes, slots = state
        return {**(attributes or {}), **slots}
    return {**(state or {})}


def _copied(value: Any, memo: dict[int, Any] | None) -> Any:
    if memo is None:
        return value
    try:
        return copy.deepcopy(value, memo)
    except Exception:
        return value


def _pickled(value: Any) -> Any:
    """What stands in the pickle for it. A trial tells: it, and all that it holds, comes back."""
    if type(value) in _ATOMS or _is_trial.get():
        return value
    token = _is_trial.set(True)
    try:
        pickle.loads(pickle.dumps(value))
        return value
    except Exception:
        pass
    finally:
        _is_trial.reset(token)
    return tuple(map(_pickled, value)) if type(value) is tuple else _described(value)


def _described(value: Any) -> str:
    """As messages have it."""
    if isinstance(value, str):
        return str.__str__(value)
    try:
        return f"{value!r:.200}"
    except Exception:
        return f"<{type(value).__name__} object>"
