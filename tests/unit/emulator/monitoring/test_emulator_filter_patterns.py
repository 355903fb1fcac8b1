"""Filter patterns match what AWS documents; the table of facts is filter_patterns.yaml."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from emulator.ministack.cloudwatch.filter_patterns import compile_pattern

FACTS = yaml.safe_load(Path(__file__).with_name("filter_patterns.yaml").read_text())
ATOMS = st.sampled_from([*"ab1_-: .^$|", r"\.", r"\[", r"\d", r"\W", r"\s", r"\x61", "[^ab]", r"[a-c\d_-]"])
REGEX = st.lists(st.tuples(ATOMS, st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,}", "{,2}", "{1,2}"])), min_size=1)


@pytest.mark.parametrize(
    ("pattern", "lines", "found"),
    [(pattern, group["lines"], found) for group in FACTS["matches"] for pattern, found in group["patterns"].items()],
)
def test_patterns_match_as_documented(pattern: str, lines: list[str], found: list[int]) -> None:
    match, _ = compile_pattern(pattern)
    assert [at for at, line in enumerate(lines, start=1) if match(line) is not None] == found


@pytest.mark.parametrize("pattern", FACTS["refused"])
def test_other_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"term|%.*%|at most|own name|name of its own"):
        compile_pattern(pattern)


@given(REGEX, st.text("ab1_-: .[\n\u0663", max_size=12))
def test_regular_expressions_match_what_python_matches(parts: list[tuple[str, str]], line: str) -> None:
    text = "".join(atom + ("" if atom in "^$|" else repeat) for atom, repeat in parts)
    match, _ = compile_pattern(f"%{text}%")
    assert (match(line) is not None) == bool(re.search(text.replace("$", r"\Z"), line, re.ASCII | re.DOTALL))
