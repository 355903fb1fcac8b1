"""Find what makes a data set unusable, and what makes a model worse."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from cli.console import console, progress_bar
from cli.errors import NotReadyError
from cli.parallel import map_unordered
from model.core.machine import available_vcpus
from model.training.data.image_folder import SPLITS, ImageFile, ImageFolder

SMALL_CLASS = 10  # training images; with fewer, not even the mean of a frozen network's features says much of a class
_SHOWN = 5  # examples of each finding
# A JPEG decoded at an eighth of its size is read to its last byte all the same: damage is found, and in half the time.
_DECODED_SIDE = 32


@dataclass
class Check:
    """What was found in a data set. Images are named by their place in it, ``train/<class>/<file>``.

    Attributes
    ----------
    root : str
    counts : dict
        For each class, the number of images in each split, readable or not.
    unreadable : dict
        For each image that cannot be decoded, the reason.
    in_several_splits, in_several_classes : list of list of str
        Images that are the same byte for byte and lie in different splits or classes, in groups.
    repeated : int
        Images that are in their class and split already.
    not_images : list of str
        Files that are no images by their names.
    was_split : bool
        Whether the folder had no splits of its own.
    problems, warnings : list of str
        Why the data set cannot be used; what makes a model, or what is believed of it, worse.
    """

    root: str
    counts: dict[str, dict[str, int]]
    unreadable: dict[str, str]
    in_several_splits: list[list[str]]
    in_several_classes: list[list[str]]
    repeated: int
    not_images: list[str]
    was_split: bool
    problems: list[str]
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return all of it, and whether it is usable."""
        return {"usable": not self.problems, **asdict(self)}

    def require_usable(self) -> None:
        """Refuse, with a NotReadyError, a data set that no model can be trained on."""
        for problem in self.problems:
            raise NotReadyError(f"{self.root} cannot be used: {problem}", "See all: kennel data check DIR --json")


def check_data_set(folder: ImageFolder, *, report: Callable[[int], None] = lambda done: None) -> Check:
    """Read and decode every image of a data set, usable or not, with training's own decoder."""
    unreadable: dict[str, str] = {}
    same: dict[str, list[ImageFile]] = defaultdict(list)
    looked_at = map_unordered(_look_at, folder.images, threads=available_vcpus())
    for done, (image, (digest, reason)) in enumerate(looked_at, start=1):
        if reason:
            unreadable[image.key] = reason
        else:
            same[digest].append(image)
        report(done)
    groups = [group for group in same.values() if len(group) > 1]
    counts = {label: dict.fromkeys(SPLITS, 0) for label in sorted({image.label for image in folder.images})}
    for image in folder.images:
        counts[image.label][image.split] += 1
    check = Check(
        root=str(folder.root),
        counts=counts,
        unreadable=dict(sorted(unreadable.items())),
        in_several_splits=_differing(groups, lambda image: image.split),
        in_several_classes=_differing(groups, lambda image: image.label),
        repeated=sum(len(group) - len({(copy.split, copy.label) for copy in group}) for group in groups),
        not_images=sorted(path.relative_to(folder.root).as_posix() for path in folder.ignored),
        was_split=folder.was_split,
        problems=folder.problems(),
    )
    _judge(check, Counter((image.label, image.split) for group in same.values() for image in group))
    return check


def check_and_print(folder: ImageFolder) -> None:
    """Check a data set and show what was found; a NotReadyError when no model can be trained on it."""
    with progress_bar("Checking pictures", len(folder.images)) as report:
        check = check_data_set(folder, report=report)
    _print(check)
    check.require_usable()


def _look_at(image: ImageFile) -> tuple[str, str]:
    """Return the SHA-256 of an image's bytes, and why it cannot be decoded, or ""."""
    from model.core.decoding import ImageError, decode  # numpy and Pillow: not needed by the other commands

    try:
        content = image.path.read_bytes()
        decode(content, target_size=_DECODED_SIDE)
    except ImageError as error:
        return "", str(error)
    except OSError as error:
        return "", f"It cannot be read: {error.strerror or error}."
    return hashlib.sha256(content).hexdigest(), ""


def _differing(groups: Sequence[Sequence[ImageFile]], by: Callable[[ImageFile], str]) -> list[list[str]]:
    return sorted(sorted(copy.key for copy in group) for group in groups if len({by(copy) for copy in group}) > 1)


def _judge(check: Check, readable: Counter[tuple[str, str]]) -> None:
    """Add problems and warnings; `readable` counts the readable images of each class and split."""
    warn = check.warnings.append
    if not check.problems:
        nothing = [label for label in check.counts if not readable[label, "train"]]
        if nothing:
            check.problems.append(f"No training picture can be read of {_some(nothing, 'class', 'classes')}.")
        if not any(readable[label, "valid"] for label in check.counts):
            check.problems.append("No validation picture can be read.")
    if check.unreadable:
        listed = [f"{name}: {reason}" for name, reason in check.unreadable.items()]
        warn(f"{_some(listed, 'picture cannot be read', 'pictures cannot be read')}, left out.")
    for groups, advice in (
        (check.in_several_splits, "splits: measured on what was learnt, a model looks better than it is."),
        (check.in_several_classes, "classes: at most one of them is right."),
    ):
        if groups:
            warn(f"{_some([' = '.join(group) for group in groups], 'picture is', 'pictures are')} in several {advice}")
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
    if check.not_images:
        warn(f"{_some(check.not_images, 'file is', 'files are')} left out: by their names they are no pictures.")


def _some(names: Sequence[str], one: str, many: str) -> str:
    """Return a count, and the first few by name."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {one if len(names) == 1 else many} ({', '.join(names[:_SHOWN])}{more})"


def _print(check: Check) -> None:
    table = Table("split", title=check.root, title_justify="left")
    for heading in ("pictures", "unreadable", "classes", "smallest class", "median", "largest"):
        table.add_column(heading, justify="right")
    for split in SPLITS:
        if sizes := [counts[split] for counts in check.counts.values() if counts[split]]:
            unreadable = sum(name.startswith(f"{split}/") for name in check.unreadable)
            spread = [min(sizes), statistics.median_low(sizes), max(sizes)]
            table.add_row(split, *map(str, [sum(sizes), unreadable, len(sizes), *spread]))
    console.print(table)
    if check.was_split:
        console.print("It had no train/, valid/ and test/ folders: split 80/10/10 by the content of the pictures.")
    for warning in check.warnings:
        console.print(f"warning: {warning}")
    for problem in check.problems:
        console.print(f"unusable: {problem}")
