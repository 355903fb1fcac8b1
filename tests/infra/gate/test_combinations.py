"""Settings that are allowed can be deployed: what they make passes the gate and cfn-lint, whatever goes with what."""

from __future__ import annotations

import random
import re
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any

import pytest
from cfnlint import api
from cfnlint.config import ManualArgs
from templates import KINDS, accepted

from infra.settings import Settings
from infra.validation import SettingsError, read_table

FEW, MANY = 8, 60
# Texts of which the type does not say what they look like; a field of text that is not here, or is of no template, is
# left out.
TEXTS: dict[str, list[Any]] = {
    "instance_type": ["ml.m5.large", "ml.c7g.xlarge", "ml.g5.xlarge", "ml.inf1.xlarge", "t3.xlarge"],
    "name": ["morning", "night", "weekend"],
    "cron": ["0 7 ? * MON-FRI *", "0/15 8-17 1 JAN,JUL ? 2026-2030"],
    "timezone": ["Europe/Berlin"],
    "email": ["oncall@example.org"],
    "contact": ["mail@example.org"],
    "public_reason": ["A demonstration that everybody may call."],
    "invokers": [["arn:aws:iam::111122223333:role/caller"]],
    "trusted": [["arn:aws:iam::111122223333:role/auditor"]],
    "organization": ["o-a1b2c3d4e5"],
    "source_ips": [["192.0.2.0/24"]],
    "permissions_boundary": ["boundary"],
    "subnet_id": ["subnet-0123456789abcdef0"],
    "security_group_ids": [["sg-0123456789abcdef0"]],
}
ELSEWHERE = {"gate", "image", "hyperparameters", "tuning"}


def some(hint: Any, rng: random.Random) -> Any:
    """One value of a type: an end or the middle of a range, any of a few; None for a text."""
    if is_dataclass(hint):
        return some_table(hint, rng)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return rng.choice(arguments)
    if origin in (typing.Union, types.UnionType):
        return some(arguments[0], rng)
    if origin is tuple:
        return [some(arguments[0], rng) for _ in range(rng.randrange(3))]
    base = arguments[0] if origin is typing.Annotated else hint
    if base is bool:
        return rng.random() < 0.5
    ends = re.findall(r"(?:ge|le)=([\d.e+-]+)", str(hint))
    low, high = (float(ends[0]), float(ends[-1])) if ends else (0, 0)
    return base(rng.choice([low, (low + high) / 2, high])) if ends else None


def some_table(cls: Any, rng: random.Random) -> dict[str, Any]:
    hints, table = typing.get_type_hints(cls, include_extras=True), {}
    for field in fields(cls):
        required = field.default is MISSING and field.default_factory is MISSING
        if field.name not in ELSEWHERE and (required or rng.random() < 0.6):
            value = rng.choice(TEXTS[field.name]) if field.name in TEXTS else some(hints[field.name], rng)
            if value is not None:
                table[field.name] = value
    return table


def allowed(rng: random.Random) -> Settings:
    """Settings from which what is refused is taken out, as the message says."""
    while True:
        table = {**some_table(Settings, rng), "stage": "any"}
        for _ in range(20):
            try:
                return read_table(Settings, table)
            except SettingsError as error:
                place = str(error).split(":")[0]
            *outer, name = re.findall(r"\w+", place)
            inner: Any = table
            for key in outer:
                inner = inner[int(key) if key.isdigit() else key]
            if name not in inner:
                break  # it is the default that does not go with the rest
            del inner[name]


@cache
def lint(template: str) -> set[tuple[str, str]]:
    matches = api.lint(template, config=ManualArgs(regions=["us-east-1"]))
    return {(f"cfn-lint {match.rule.id}", str((match.path or [None, match.message])[1])) for match in matches}


@pytest.mark.parametrize("index", [*range(FEW), *(pytest.param(i, marks=pytest.mark.slow) for i in range(FEW, MANY))])
def test_what_the_settings_allow_passes_the_gate_and_cfn_lint(synthesise, index):
    stage = synthesise(allowed(random.Random(index)))  # raises what the gate finds
    found = {finding for kind in KINDS for finding in lint(stage.path(kind).read_text(encoding="utf-8"))}
    assert found <= accepted("cfn-lint")
