"""Settings tables are dataclasses that pydantic reads; this module says all of its errors in words, at once.

pydantic would turn "2" into 2 and true into 1. A person who writes that has mistaken something, so numbers and truth
values are strict (`between`, `pydantic.StrictBool`).
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

_SHOWN_CHARACTERS = 60
#: What TOML calls otherwise than Python.
_IN_TOML = {
    "dataclass_type": "should be a table",
    "mapping_type": "should be a table",
    "dict_type": "should be a table",
    "tuple_type": "should be a list",
    "bool_type": "should be true or false",
    "int_type": "should be a whole number",
}


class SettingsError(Exception):
    """The stage does not exist, its file is wrong, or AWS does not have what it names; the message lists everything."""


@dataclass(frozen=True)
class Table:
    """Base of the dataclasses that mirror a TOML table."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def conflicts(self) -> Iterator[str]:
        """Yield what is wrong between fields that are each right on their own, as ``field: problem``."""
        yield from ()

    @model_validator(mode="after")
    def _fit_together(self) -> Table:
        if found := list(self.conflicts()):
            raise ValueError("\n".join(found))
        return self


TableType = TypeVar("TableType", bound=Table)


def between(minimum: float, maximum: float) -> Any:
    """Describe a number from `minimum` to `maximum`, both included."""
    return Field(strict=True, ge=minimum, le=maximum)


def one_of(choices: Callable[[], Collection[str]], example: str) -> AfterValidator:
    """Describe one of many names; `choices` is called only when a value is there."""

    def check(value: str) -> str:
        if value in choices():
            return value
        near = " or ".join(difflib.get_close_matches(value, choices(), n=3))
        raise ValueError(
            f"{value!r} is not known; {f'did you mean {near}?' if near else f'allowed are names such as {example}'}"
        )

    return AfterValidator(check)


def matching(pattern: str, meaning: str) -> AfterValidator:
    """Describe a text that matches a regular expression as a whole, its classes being ASCII's; `meaning` says so."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(f"{value!r} is not {meaning}")
        return value

    return AfterValidator(check)


def read_table(cls: type[TableType], table: Mapping[str, Any]) -> TableType:
    """Read what TOML gave; a SettingsError has one line for everything that is wrong."""
    try:
        return TypeAdapter(cls).validate_python(table)
    except ValidationError as error:
        lines = [line for details in error.errors() for line in _lines(cls, details)]
        raise SettingsError("\n".join(lines)) from None


def _lines(cls: type[Table], error: ErrorDetails) -> list[str]:
    """Say an error of pydantic as ``section.field: problem``; one about a table may have several."""
    *tables, name = error["loc"] or ("",)
    message, value = error["msg"].removeprefix("Input "), error["input"]
    if error["type"] == "unexpected_keyword_argument":
        known = [field.name for field in fields(_table_at(cls, tables))]
        near = difflib.get_close_matches(str(name), known, n=1)
        message = f"unknown setting; {f'did you mean {near[0]}?' if near else 'allowed: ' + ', '.join(known)}"
    elif error["type"].startswith("missing"):
        message = "missing"
    elif error["type"] == "value_error":  # our own words
        messages = str(error["ctx"]["error"]).split("\n")
        if isinstance(value, Mapping) or is_dataclass(value):  # of a table, which name the fields
            where = _dotted(error["loc"])
            return [f"{where}.{line}" if where else line for line in messages]
        (message,) = messages
    else:
        message = _IN_TOML.get(error["type"], message)
        given = "a table" if isinstance(value, Mapping) else repr(value)
        message = f"{message}, not {given[:_SHOWN_CHARACTERS]}"
    return [f"{_dotted(error['loc'])}: {message}"]


def _dotted(location: tuple[int | str, ...]) -> str:
    """Write a place as TOML does: ``training.tuning.numbers[0].max``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def _table_at(cls: Any, location: list[int | str]) -> Any:
    """Find the class of the table at a place that pydantic names."""
    for name in location:
        if isinstance(name, str):
            cls = next(_tables_in(typing.get_type_hints(cls)[name]))
    return cls


def _tables_in(hint: Any) -> Iterator[Any]:
    if is_dataclass(hint):
        yield hint
    for argument in typing.get_args(hint):
        yield from _tables_in(argument)
