"""What is wrong with a data set: what makes it unusable, and what makes a model worse than it had to be."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from cli.console import console, progress_bar
from cli.data.dataset import SPLITS, DataSet, Picture, layout_problems
from cli.errors import NotReadyError
from cli.parallel import map_unordered, processors

SMALL_CLASS = 10  # training pictures; with fewer, not even the mean of a frozen network's features says much of a class
_SHOWN = 5  # examples of each finding
# A JPEG decoded at an eighth of its size is read to its last byte all the same: damage is found, and in half the time.
_DECODED_SIDE = 32


@dataclass(frozen=True)
class Check:
    """What was found in a data set. Pictures are named by their place in it, ``train/<class>/<file>``.

    Attributes
    ----------
    root : str
    counts : dict
        For each class, the number of pictures in each split, readable or not.
    unreadable : dict
        For each picture that cannot be decoded, the reason.
    in_several_splits : list of list of str
        Pictures that are the same byte for byte and lie in different splits, in groups.
    in_several_classes : list of list of str
        The same, in different classes.
    repeated : int
        Pictures that are in their class and split already.
    not_pictures : list of str
        Files that are no pictures by their names.
    was_split : bool
        Whether the folder had no splits of its own.
    problems : list of str
        Why the data set cannot be used; empty when it can.
    warnings : list of str
        What makes a model, or what is believed of it, worse.
    """

    root: str
    counts: dict[str, dict[str, int]]
    unreadable: dict[str, str]
    in_several_splits: list[list[str]]
    in_several_classes: list[list[str]]
    repeated: int
    not_pictures: list[str]
    was_split: bool
    problems: list[str]
    warnings: list[str]

    @property
    def usable(self) -> bool:
        """Whether a model can be trained on it."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """All of it, and `usable`."""
        return {"usable": self.usable, **asdict(self)}


def check_data_set(
    data_set: DataSet, *, report: Callable[[int], None] = lambda done: None, threads: int | None = None
) -> Check:
    """Read and decode every picture of a data set.

    Decoding is the training's own (`model.core.decoding`): what is unreadable here would be left out there.

    Parameters
    ----------
    data_set : DataSet
        Usable or not: see `cli.data.dataset.find_data_set`.
    report
        Called with the number of pictures looked at.
    threads
        One per processor by default; decoding and hashing hold no interpreter lock.
    """
    digests: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    looked_at = map_unordered(_look_at, data_set.pictures, threads=threads or processors())
    for done, (picture, (digest, reason)) in enumerate(looked_at, start=1):
        digests[picture.key] = digest
        if reason:
            unreadable[picture.key] = reason
        report(done)
    return _judge(data_set, digests, unreadable)


def check_and_print(data_set: DataSet) -> None:
    """Check a data set before a person's eyes.

    Raises
    ------
    NotReadyError
        When no model can be trained on it.
    """
    with progress_bar("Checking pictures", len(data_set.pictures)) as report:
        check = check_data_set(data_set, report=report)
    print_check(check)
    require_usable(check)


def _look_at(picture: Picture) -> tuple[str, str]:
    """The SHA-256 of a picture's bytes, and why it cannot be decoded, or ""."""
    from model.core.decoding import ImageError, decode  # numpy and Pillow: not needed by the other commands

    try:
        content = picture.path.read_bytes()
    except OSError as error:
        return "", f"It cannot be read: {error.strerror or error}."
    try:
        decode(content, target_size=_DECODED_SIDE)
        reason = ""
    except ImageError as error:
        reason = str(error)
    return hashlib.sha256(content).hexdigest(), reason


def _judge(data_set: DataSet, digests: Mapping[str, str], unreadable: dict[str, str]) -> Check:
    counts: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(SPLITS, 0))
    readable: Counter[tuple[str, str]] = Counter()
    same: dict[str, list[Picture]] = defaultdict(list)
    for picture in data_set.pictures:
        counts[picture.label][picture.split] += 1
        if picture.key not in unreadable:
            readable[picture.label, picture.split] += 1
            same[digests[picture.key]].append(picture)
    groups = [group for group in same.values() if len(group) > 1]
    check = Check(
        root=str(data_set.root),
        counts={label: counts[label] for label in sorted(counts)},
        unreadable=dict(sorted(unreadable.items())),
        in_several_splits=_differing(groups, lambda picture: picture.split),
        in_several_classes=_differing(groups, lambda picture: picture.label),
        repeated=sum(len(group) - len({(copy.split, copy.label) for copy in group}) for group in groups),
        not_pictures=sorted(path.relative_to(data_set.root).as_posix() for path in data_set.ignored),
        was_split=data_set.was_split,
        problems=[str(problem) for problem in layout_problems(data_set)],
        warnings=[],
    )
    _find_problems(check, readable)
    _find_warnings(check, readable)
    return check


def _differing(groups: Sequence[Sequence[Picture]], by: Callable[[Picture], str]) -> list[list[str]]:
    return sorted(sorted(copy.key for copy in group) for group in groups if len({by(copy) for copy in group}) > 1)


def _find_problems(check: Check, readable: Mapping[tuple[str, str], int]) -> None:
    if check.problems:
        return
    nothing = [label for label in check.counts if not readable[label, "train"]]
    if nothing:
        check.problems.append(f"No training picture can be read of {_some(nothing, 'class', 'classes')}.")
    if not any(readable[label, "valid"] for label in check.counts):
        check.problems.append("No validation picture can be read.")


def _find_warnings(check: Check, readable: Mapping[tuple[str, str], int]) -> None:
    warn = check.warnings.append
    if check.unreadable:
        name, reason = next(iter(check.unreadable.items()))
        left_out = _count(check.unreadable, "picture cannot be read and is", "pictures cannot be read and are")
        warn(f"{left_out} left out, such as {name}: {reason}")
    if check.in_several_splits:
        copies = _some([" = ".join(group) for group in check.in_several_splits], "picture is", "pictures are")
        warn(f"{copies} in several splits: measured on what was learnt, a model looks better than it is.")
    if check.in_several_classes:
        copies = _some([" = ".join(group) for group in check.in_several_classes], "picture is", "pictures are")
        warn(f"{copies} in several classes: at most one of them is right.")
    if check.repeated:
        warn(f"{check.repeated} pictures are in their class more than once and count as often.")
    for split in ("valid", "test"):
        missing = [label for label in check.counts if readable[label, "train"] and not readable[label, split]]
        if missing and any(check.counts[label][split] for label in check.counts):
            warn(f"{split}/ has no readable picture of {_some(missing, 'class', 'classes')} that train/ has.")
        elif missing and split == "test":
            warn("There is no test/ split: nothing will say how good the model is on pictures it was not chosen by.")
    small = [label for label in check.counts if 0 < readable[label, "train"] < SMALL_CLASS]
    if small:
        warn(f"Fewer than {SMALL_CLASS} training pictures in {_some(small, 'class', 'classes')}.")
    if check.not_pictures:
        warn(f"{_some(check.not_pictures, 'file is', 'files are')} left out: by their names they are no pictures.")


def _some(names: Sequence[str], one: str, many: str) -> str:
    """A count, and the first few by name."""
    shown = ", ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{_count(names, one, many)} ({shown}{more})"


def _count(names: Sized, one: str, many: str) -> str:
    return f"{len(names)} {one if len(names) == 1 else many}"


def print_check(check: Check) -> None:
    """Show a check as a table, warnings and problems."""
    table = Table("split", title=check.root, title_justify="left")
    for heading in ("pictures", "unreadable", "classes", "smallest class", "median", "largest"):
        table.add_column(heading, justify="right")
    for split in SPLITS:
        sizes = [counts[split] for counts in check.counts.values() if counts[split]]
        if not sizes:
            continue
        unreadable = sum(name.startswith(f"{split}/") for name in check.unreadable)
        spread = [min(sizes), statistics.median_low(sizes), max(sizes)]
        table.add_row(split, *map(str, [sum(sizes), unreadable, len(sizes), *spread]))
    console.print(table)
    if check.was_split:
        console.print("It had no train/, valid/ and test/ folders: split 80/10/10 by the content of the pictures.")
        if check.warnings or check.problems:
            console.print("The names of pictures below begin with the split that they were put in.")
    for warning in check.warnings:
        console.print(f"warning: {warning}")
    for problem in check.problems:
        console.print(f"unusable: {problem}")


def require_usable(check: Check) -> None:
    """Refuse a data set that no model can be trained on.

    Raises
    ------
    NotReadyError
        With the first problem.
    """
    if not check.usable:
        raise NotReadyError(
            f"{check.root} cannot be used: {check.problems[0]}", "All that was found: kennel data check DIR --json"
        )
