"""How a field of the configuration becomes an argument: its help, its limits, its variables."""

from __future__ import annotations

import dataclasses
import json
import math
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any


def option(group: str, default: Any, help: str, *, variables: tuple[str, ...] = (), **argument: Any) -> Any:
    """Return a dataclass field that the command line sets.

    Parameters
    ----------
    group : str
        The heading of `--help` under which it stands.
    default : object
        As `--help` shows it; a text is read by the argument's `type`, None means that the argument has no default.
    help : str
    variables : tuple of str
        The environment variables that set it; the first one that is there counts.
    **argument
        What `add_argument` takes besides: `type`, `choices`, `metavar`.
    """
    value = argument.get("type", str)(default) if isinstance(default, str) else default
    return dataclasses.field(
        default=dataclasses.MISSING if default is None else value,
        metadata={"group": group, "variables": variables, "argument": {"default": default, "help": help, **argument}},
    )


def integer(lowest: int, highest: int) -> Callable[[str], int]:
    """Return what reads a whole number within limits."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = lowest - 1
        if not lowest <= value <= highest:
            raise ArgumentTypeError(f"{text!r} is not a whole number from {lowest} to {highest}")
        return value

    return parse


def real(lowest: float, highest: float) -> Callable[[str], float]:
    """Return what reads a number within limits."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not lowest <= value <= highest:
            raise ArgumentTypeError(f"{text!r} is not a number from {lowest:g} to {highest:g}")
        return value

    return parse


def interval(lowest: float, highest: float) -> Callable[[str], tuple[float, float]]:
    """Return what reads a lower and a higher number, such as "0.001,0.1"."""

    def parse(text: str) -> tuple[float, float]:
        low, high = (real(lowest, highest)(part) for part in text.partition(",")[::2])
        if low >= high:
            raise ArgumentTypeError(f"{text!r} is not a lower and a higher number such as 0.001,0.1")
        return low, high

    return parse


def integers(lowest: int, highest: int) -> Callable[[str], tuple[int, ...]]:
    """Return what reads whole numbers, such as "64,8", into their sorted set."""
    return lambda text: tuple(sorted({integer(lowest, highest)(part) for part in text.split(",")}))


def names(text: str) -> tuple[str, ...]:
    """Read a JSON list of names."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not found or not all(isinstance(name, str) for name in found):
        raise ArgumentTypeError(f'{text!r} is not a JSON list of names such as ["algo-1"]')
    return tuple(found)
