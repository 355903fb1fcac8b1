"""Reads TOML tables into frozen dataclasses and reports every mistake at once.

A person who fixes a settings file wants the whole list, not the first entry of it; so nothing here raises, everything
appends to one list of problems. What a value may be is said where the field is declared:

>>> @dataclass(frozen=True, kw_only=True)
... class Door(Table):
...     width_cm: Annotated[int, Range(60, 120)]
>>> problems = []
>>> read_table(Door, {"widht_cm": 80}, "door", problems)
>>> problems
['door.widht_cm: unknown setting; did you mean width_cm?', 'door.width_cm: missing']
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, TypeVar, Union


class SettingsError(Exception):
    """The stage does not exist, its file is wrong, or AWS has not what it says; the message lists every problem."""


#: What is wrong with a value, or None. Whatever stands in Annotated[…] after the type has a method that says so.
Complaint = str | None


@dataclass(frozen=True)
class Range:
    """A number from `minimum` to `maximum`, both included."""

    minimum: float
    maximum: float

    def complaint(self, value: float) -> Complaint:
        """What is wrong with the value, or None."""
        if self.minimum <= value <= self.maximum:
            return None
        return f"{value} is outside {self.minimum} to {self.maximum}"


@dataclass(frozen=True)
class OneOf:
    """One of a few values; `choices` may be a function, for lists that are costly to get."""

    choices: Collection[object] | Callable[[], Collection[object]]

    def complaint(self, value: object) -> Complaint:
        """What is wrong with the value, or None."""
        choices = self.choices() if callable(self.choices) else self.choices
        if value in choices:
            return None
        near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=3)
        allowed = f"did you mean {' or '.join(near)}?" if near else f"allowed: {_listed(choices)}"
        return f"{value!r} is not known; {allowed}"


@dataclass(frozen=True)
class Matches:
    """A text that matches `pattern` from its first to its last character; `meaning` says so to a person."""

    pattern: str
    meaning: str

    def complaint(self, value: str) -> Complaint:
        """What is wrong with the value, or None."""
        return None if re.fullmatch(self.pattern, value) else f"{value!r} is not {self.meaning}"


@dataclass(frozen=True)
class Table:
    """Base of the dataclasses that mirror a TOML table."""

    def conflicts(self) -> Iterator[str]:
        """Yield what is wrong between fields that are each right on their own."""
        yield from ()


TableType = TypeVar("TableType", bound=Table)


def read_table(cls: type[TableType], table: object, where: str, problems: list[str]) -> TableType | None:
    """Read one table.

    Parameters
    ----------
    cls
        The dataclass. A field without a default is required; a field of type ``X | None = None`` may be absent.
    table
        What TOML gave: a mapping, or something else by mistake.
    where
        Dotted name of the table for messages; empty for the whole file.
    problems
        Gets one line for everything that is wrong.

    Returns
    -------
    The dataclass, or None when anything inside the table is wrong.
    """
    if not isinstance(table, Mapping):
        problems.append(f"{where}: must be a table, not {_kind(table)}")
        return None
    prefix = f"{where}." if where else ""
    known = {f.name: f for f in fields(cls)}
    hints = typing.get_type_hints(cls, include_extras=True)
    found = len(problems)
    problems.extend(f"{prefix}{key}: {_unknown(key, known)}" for key in table if key not in known)
    values: dict[str, Any] = {}
    for name, declared in known.items():
        if name in table:
            values[name] = _read_value(hints[name], table[name], prefix + name, problems)
        elif declared.default is MISSING and declared.default_factory is MISSING:
            problems.append(f"{prefix}{name}: missing")
    if len(problems) > found:
        return None
    result = cls(**values)
    conflicts = [prefix + conflict for conflict in result.conflicts()]
    problems.extend(conflicts)
    return None if conflicts else result


def _read_value(hint: Any, value: object, where: str, problems: list[str]) -> Any:
    """Check one value against its declared type and constraints; what is returned counts only without problems."""
    hint, constraints = _unwrapped(hint)
    if isinstance(hint, type) and issubclass(hint, Table):
        return read_table(hint, value, where, problems)
    if typing.get_origin(hint) is Mapping:
        return _read_mapping(value, where, problems)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            problems.append(f"{where}: must be a list, not {_kind(value)}")
            return None
        element = typing.get_args(hint)[0]
        return tuple(_read_value(element, item, f"{where}[{index}]", problems) for index, item in enumerate(value))
    # TOML keeps 1, 1.0 and true apart; only a whole number where a fraction is allowed means what it says.
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        problems.append(f"{where}: must be {_KINDS[hint]}, not {_kind(value)}")
        return None
    complaints = (constraint.complaint(value) for constraint in constraints)
    problems.extend(f"{where}: {complaint}" for complaint in complaints if complaint)
    return value


def _read_mapping(value: object, where: str, problems: list[str]) -> Any:
    """Read a table with names of the user's choice; its values are texts, numbers or truth values."""
    if not isinstance(value, Mapping):
        problems.append(f"{where}: must be a table, not {_kind(value)}")
        return None
    problems.extend(
        f"{where}.{name}: must be a text, a number, true or false, not {_kind(item)}"
        for name, item in value.items()
        if type(item) not in _KINDS
    )
    return dict(value)


def _unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Reduce ``Annotated[X, …] | None`` to X and the constraints."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        (hint,) = (option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is Annotated:
        hint, *constraints = typing.get_args(hint)
        return hint, tuple(constraints)
    return hint, ()


_KINDS: dict[Any, str] = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def _kind(value: object) -> str:
    """Name the kind of a TOML value as the messages do."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return f"{_KINDS.get(type(value), type(value).__name__)} ({value!r})"


def _unknown(key: str, known: Collection[str]) -> str:
    """Say what an unknown key may have meant."""
    near = difflib.get_close_matches(key, known, n=1)
    return f"unknown setting; {f'did you mean {near[0]}?' if near else f'allowed: {_listed(known)}'}"


def _listed(choices: Collection[object]) -> str:
    """List what is allowed, in its own order where it has one, a long list cut short."""
    names = [str(choice) for choice in choices]
    if not isinstance(choices, Sequence):
        names.sort()
    return ", ".join(names[:24]) + (f", … ({len(names)} in all)" if len(names) > 24 else "")
