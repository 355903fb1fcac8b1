from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.measuring import (
    Goal,
    add_common_options,
    finish,
    interleaved,
    machine,
    machine_line,
    paired_ratio,
    percentile,
    process_tree,
    tree_cpu_seconds,
    tree_memory,
)


def test_every_round_measures_each_system_once_and_begins_with_another() -> None:
    order: list[str] = []
    lines: list[str] = []
    results = interleaved(
        {name: lambda name=name: order.append(name) or len(order) for name in "abc"},  # type: ignore[misc, func-returns-value]
        4,
        progress=lines.append,
    )
    assert "".join(order) == "abcbcacababc"
    assert results["a"] == [1, 6, 8, 10]  # in the order of the rounds
    assert lines[0] == "round 1 of 4: a"
    assert len(lines) == 12


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 round"):
        interleaved({"a": lambda: 1}, 0)


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (5, 1), (5.1, 2), (50, 10), (94.9, 19), (95, 19), (95.1, 20), (100, 20)]
)
def test_percentile_is_the_nearest_rank(percent: float, expected: int) -> None:
    assert percentile(reversed(range(1, 21)), percent) == expected


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)
    with pytest.raises(ValueError, match="from 0 to 100"):
        percentile([1.0], 101)


def test_a_round_that_was_slow_for_both_does_not_change_the_ratio() -> None:
    assert paired_ratio([40, 4, 44], [10, 1, 11]) == 4
    # The ratio of the medians would be 4.4 here.
    assert paired_ratio([44, 40, 48], [10, 20, 8]) == 4.4


def test_unequal_rounds_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_ratio([1, 2], [1])
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_ratio([], [])


def test_memory_and_processor_time_are_those_of_the_whole_tree() -> None:
    # The child holds 64 MiB and burns processor time; its parent only waits.
    child = (
        "held = bytearray(64 << 20)\n"
        "held[::4096] = b'x' * len(held[::4096])\n"
        "sum(range(3_000_000))\n"
        "print(flush=True)\n"
        "input()"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        assert len(process_tree(process.pid)) == 2
        memory, seconds = tree_memory(process.pid), tree_cpu_seconds(process.pid)
        process.stdin.write(b"\n")
        process.stdin.close()
    assert 64 << 20 <= memory.uss <= memory.pss < 256 << 20
    assert seconds > 0.02


def test_a_process_that_has_ended_takes_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    assert tree_memory(process.pid).pss == 0
    assert tree_cpu_seconds(process.pid) == 0


def test_the_machine_is_described() -> None:
    description = machine(["numpy"])
    assert description["vcpus"] == len(os.sched_getaffinity(0))
    assert description["packages"]["numpy"] in machine_line(description)
    assert description["cpu"] in machine_line(description)
    json.dumps(description)


def test_goals_have_two_directions_and_may_be_unmeasured() -> None:
    assert Goal("fast", 4.0, 4.0, at_least=True).met is True
    assert Goal("fast", 3.9, 4.0, at_least=True).met is False
    assert Goal("small", 250.0, 250.0, at_least=False).met is True
    assert Goal("small", 251.0, 250.0, at_least=False).met is False
    assert Goal("small", None, 250.0, at_least=False).met is None
    assert Goal("broken", float("nan"), 250.0, at_least=False).met is False


@pytest.mark.parametrize(
    ("measured", "check", "status"), [(1.0, False, 0), (1.0, True, 0), (3.0, False, 0), (3.0, True, 1), (None, True, 1)]
)
def test_a_missed_goal_fails_only_a_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], measured: float | None, check: bool, status: int
) -> None:
    parser = argparse.ArgumentParser()
    add_common_options(parser, rounds=3)
    file = tmp_path / "new" / "result.json"
    arguments = parser.parse_args(["--json", str(file), *(["--check"] if check else [])])
    assert arguments.rounds == 3
    assert finish(arguments, {"servers": {}}, [Goal("small", measured, 2.0, at_least=False, unit=" MB")]) == status
    assert ("MISSED" in capsys.readouterr().out) == (measured == 3.0)
    document = json.loads(file.read_text())
    assert document["goals"] == [
        {
            "name": "small",
            "measured": measured,
            "limit": 2.0,
            "at_least": False,
            "unit": " MB",
            "met": None if measured is None else measured <= 2,
        }
    ]


@pytest.mark.parametrize("rounds", ["0", "-1", "many"])
def test_bad_rounds_are_refused_with_a_message(capsys: pytest.CaptureFixture[str], rounds: str) -> None:
    parser = argparse.ArgumentParser()
    add_common_options(parser, rounds=3)
    with pytest.raises(SystemExit):
        parser.parse_args(["--rounds", rounds])
    assert "--rounds" in capsys.readouterr().err
