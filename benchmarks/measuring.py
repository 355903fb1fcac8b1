"""What the benchmarks share: interleaved rounds, statistics, memory, the machine's description, goals and JSON results.

A machine's speed drifts, and on a shared one it jumps. So whatever is compared takes turns, and two things are compared
within each round: `interleaved`, `paired_ratio`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psutil
from rich import box
from rich.table import Table

from cli.console import console
from model.core.machine import available_vcpus, memory_bytes

T = TypeVar("T")

_CPU_INFORMATION = Path("/proc/cpuinfo")
# What decides how fast a network is on a processor.
_CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp")


def interleaved(systems: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Measure several systems in turns, and say whose turn it is; return by name one measurement per round.

    Every round measures each system once and begins with another one, so that none is always the first after a pause
    or always behind the same neighbour.
    """
    names = list(systems)
    measured: dict[str, list[T]] = {name: [] for name in names}
    for index in range(rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            console.print(f"round {index + 1} of {rounds}: {name}", style="dim")
            measured[name].append(systems[name]())
    return measured


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Return the median of the rounds' ratios; what slowed a whole round down cancels out."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


@dataclass(frozen=True, slots=True)
class Memory:
    """What processes keep in memory, in bytes."""

    uss: int  # unique: what would be free if they all ended, had each no relatives
    pss: int  # and of every page that is shared, each process's part: what a tree takes, all its processes added


def tree_memory(pid: int) -> Memory:
    """Return the memory of a process and all its descendants (Linux)."""
    uss = pss = 0
    for process in process_tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            info = process.memory_full_info()
            uss, pss = uss + info.uss, pss + info.pss
    return Memory(uss, pss)


def tree_cpu_seconds(pid: int) -> float:
    """Return the processor time that a process and its living descendants have used so far, in seconds."""
    seconds = 0.0
    for process in process_tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += times.user + times.system
    return seconds


def process_tree(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants; none when it has ended."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def machine(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Describe where and when something is measured, and say it; the versions of these distributions belong to it."""
    try:
        information = _CPU_INFORMATION.read_text(encoding="utf-8")
    except OSError:  # not Linux
        information = ""
    pairs = (line.partition(":") for line in information.splitlines())
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    flags = fields.get("flags", fields.get("Features", "")).split()
    found: dict[str, Any] = {
        "cpu": fields.get("model name", platform.processor() or platform.machine()),
        "cpu_features": [feature for feature in _CPU_FEATURES if feature in flags],
        "vcpus": available_vcpus(),
        "memory_gb": round(memory_bytes() / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "load_average": round(os.getloadavg()[0], 2),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    features = ", ".join(found["cpu_features"])
    versions = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    console.print(
        f"{found['vcpus']} vCPUs of {found['cpu']}{f' ({features})' if features else ''}, "
        f"{found['memory_gb']} GB, Python {found['python']}{f', {versions}' if versions else ''}; "
        f"load before the start {found['load_average']}; {found['when']}"
    )
    return found


@dataclass(frozen=True, slots=True)
class Goal:
    """A promise with what was measured."""

    name: str
    measured: float | None  # None when this run did not measure it
    limit: float
    at_least: bool  # whether the limit is the smallest (True) or the largest value that meets the goal
    unit: str = ""  # behind both numbers, with its space if it wants one

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def markdown_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table that prints as Markdown, the first column to the left and the others to the right."""
    table = Table(title=title, title_justify="left", box=box.MARKDOWN)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # As wide as it wants to be, also beyond the 80 columns that a file is thought to have: wrapped, it is no Markdown.
    table.width = console.measure(table, options=console.options.update(max_width=1000)).maximum
    return table


def make_parser(module: str, about: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Return the parser of a benchmark, described by the first line of its text, with the options of all of them."""
    about = (about or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=about)
    parser.add_argument(
        "--rounds", type=positive, default=rounds, help="how often each system has its turn (%(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    parser.add_argument("--check", action="store_true", help="end with status 1 when a goal is missed or not measured")
    return parser


def finish(arguments: argparse.Namespace, figures: Mapping[str, Any], goals: Sequence[Goal]) -> int:
    """Print the goals, write the JSON file if one is asked for, and return the exit status."""
    words = {True: "met", False: "MISSED", None: "not measured"}
    rows = [
        (
            goal.name,
            f"{'≥' if goal.at_least else '≤'} {goal.limit:g}{goal.unit}",
            "" if goal.measured is None else f"{goal.measured:.3g}{goal.unit}",
            words[goal.met],
        )
        for goal in goals
    ]
    console.print(markdown_table("Goals", ("goal", "limit", "measured", ""), rows))
    if arguments.json is not None:
        document = {**figures, "goals": [{**asdict(goal), "met": goal.met} for goal in goals]}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        console.print(f"All figures: {arguments.json}")
    return int(arguments.check and not all(goal.met for goal in goals))


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a whole number above 0")
    return number
