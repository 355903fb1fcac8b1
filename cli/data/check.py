"""Find what makes a data set unusable, and what makes a model worse."""

from __future__ import annotations

import hashlib
import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from rich.table import Table

from cli.console import progress_bar, show
from cli.data.dataset import data_set_errors
from cli.errors import NotReadyError
from cli.parallel import map_unordered
from model.training.data.image_folder import ImageFile, ImageFolder
from model.training.data.listing import SPLITS, UNFIT, reading, some

SMALL_CLASS = 10  # training images; with fewer, not even the mean of a frozen network's features says much of a class
# A JPEG decoded at an eighth of its size is read to its last byte all the same: damage is found, and in half the time.
_DECODED_SIDE = 32


@dataclass
class Check:
    """What was found in a data set. Images are named by their place in it, ``train/<class>/<file>``."""

    root: str
    counts: dict[str, dict[str, int]]  # of the images in each split of each class, readable or not
    unreadable: dict[str, str]  # images that cannot be decoded, and why
    copies: list[list[str]]  # images that are the same byte for byte, in groups
    left_out: dict[str, str]  # files, links, and folders with all that is in them, that are not in the set, and why
    held_out: tuple[str, ...]  # the splits that the folder does not have, taken from the training images
    problems: list[str]  # why the data set cannot be used
    warnings: list[str] = field(default_factory=list)  # what makes a model, or what is believed of it, worse

    def require_usable(self) -> None:
        """Refuse, with a NotReadyError, a data set that no model can be trained on."""
        for problem in self.problems:
            raise NotReadyError(f"{self.root} cannot be used: {problem}", "See all: kennel data check DIR --json")


def check_data_set(folder: ImageFolder, *, report: Callable[[int], None] = lambda done: None) -> Check:
    """Read and decode every image of a data set, usable or not, with training's own decoder.

    A NotReadyError names a file that cannot be read, as training's error does.
    """
    unreadable: dict[str, str] = {}
    same: dict[str, list[ImageFile]] = defaultdict(list)
    for image, (digest, reason) in map_unordered(_look_at, folder.images, report=report):
        if reason:
            unreadable[image.key] = reason
        else:
            same[digest].append(image)
    counts = {label: dict.fromkeys(SPLITS, 0) for label in sorted({image.label for image in folder.images})}
    for image in folder.images:
        counts[image.label][image.split] += 1
    check = Check(
        root=str(folder.root),
        counts=counts,
        unreadable=dict(sorted(unreadable.items())),
        copies=sorted(sorted(image.key for image in group) for group in same.values() if len(group) > 1),
        left_out=dict(sorted(folder.left_out.items())),
        held_out=folder.held_out,
        problems=folder.problems(),
        warnings=folder.notes(),
    )
    _judge(check, Counter((image.label, image.split) for group in same.values() for image in group))
    _judge_names(check, folder.images)
    return check


def check_and_print(folder: ImageFolder) -> None:
    """Check a data set and show what was found; a NotReadyError when no model can be trained on it."""
    with progress_bar("Checking images", len(folder.images)) as report:
        check = check_data_set(folder, report=report)
    found = (*(f"warning: {each}" for each in check.warnings), *(f"unusable: {each}" for each in check.problems))
    show({"usable": not check.problems, **asdict(check)}, _table(check), *found)
    check.require_usable()


def _look_at(image: ImageFile) -> tuple[str, str]:
    """Return the SHA-256 of an image's bytes, and why it cannot be decoded, or ""."""
    from model.core.decoding import ImageError, decode  # numpy and Pillow: not needed by the other commands

    with data_set_errors(), reading(image.path):
        content = image.path.read_bytes()
    try:
        decode(content, target_size=_DECODED_SIDE)
    except ImageError as error:
        return "", str(error)
    return hashlib.sha256(content).hexdigest(), ""


def _judge(check: Check, readable: Counter[tuple[str, str]]) -> None:
    """Add problems and warnings; `readable` counts the readable images of each class and split."""
    warn = check.warnings.append
    if not check.problems:
        nothing = [label for label in check.counts if not readable[label, "train"]]
        if nothing:
            first = next(key for key in check.unreadable if key.startswith(f"train/{nothing[0]}/"))
            check.problems.append(
                f"No training image can be read of {_some(nothing, 'class', 'classes')}; "
                f"the first: {first}: {check.unreadable[first]}"
            )
        if not any(readable[label, "valid"] for label in check.counts):
            check.problems.append("No validation image can be read.")
    if check.unreadable:
        listed = [f"{name}: {reason}" for name, reason in check.unreadable.items()]
        warn(f"{_some(listed, 'image cannot be read', 'images cannot be read')}, left out.")
    for place, advice in (
        (0, "splits: measured on what was learnt, a model looks better than it is."),
        (1, "classes: at most one of them is right."),
    ):
        groups = [" = ".join(group) for group in check.copies if len({key.split("/")[place] for key in group}) > 1]
        if groups:
            warn(f"{_some(groups, 'image is', 'images are')} in several {advice}")
    repeated = sum(len(group) - len({tuple(key.split("/")[:2]) for key in group}) for group in check.copies)
    if repeated:
        warn(f"{repeated} images are in their class more than once and count as often.")
    for split in ("valid", "test"):
        missing = [label for label in check.counts if readable[label, "train"] and not readable[label, split]]
        if missing and any(check.counts[label][split] for label in check.counts):
            warn(f"{split}/ has no readable image of {_some(missing, 'class', 'classes')} that train/ has.")
        elif missing and split == "test":
            warn("There is no test/ split: nothing will say how good the model is on images it was not chosen by.")
    small = [label for label in check.counts if 0 < readable[label, "train"] < SMALL_CLASS]
    if small:
        warn(f"Fewer than {SMALL_CLASS} training images in {_some(small, 'class', 'classes')}.")


def _judge_names(check: Check, images: Sequence[ImageFile]) -> None:
    if unfit := [image.key for image in images if UNFIT.search(image.key)]:
        what = _some(unfit, "name is", "names are")
        check.warnings.append(f"{what} not UTF-8, or with control characters: kennel data push refuses the data set.")
    alike: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for image in images:
        alike[image.split, image.label.casefold()].add(f"{image.split}/{image.label}/")
        alike[image.split, image.label, unicodedata.normalize("NFC", image.name).casefold()].add(image.key)
    if groups := [" = ".join(sorted(names)) for names in alike.values() if len(names) > 1]:
        check.warnings.append(
            f"{_some(groups, 'name is', 'names are')} there in several forms, of case or of Unicode: "
            "on disks of macOS and Windows one replaces the other."
        )


def _some(names: Sequence[str], one: str, many: str) -> str:
    return f"{len(names)} {one if len(names) == 1 else many} ({some(names)})"


def _table(check: Check) -> Table:
    table = Table("split", title=check.root, title_justify="left")
    for heading in ("images", "unreadable", "classes", "smallest class", "median", "largest"):
        table.add_column(heading, justify="right")
    for split in SPLITS:
        if sizes := [counts[split] for counts in check.counts.values() if counts[split]]:
            unreadable = sum(name.startswith(f"{split}/") for name in check.unreadable)
            spread = [min(sizes), statistics.median_low(sizes), max(sizes)]
            table.add_row(split, *map(str, [sum(sizes), unreadable, len(sizes), *spread]))
    return table
