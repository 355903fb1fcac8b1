"""Images per second and core from files to augmented batches: the usual way, ours, and both on a shrunk copy.

    python -m benchmarks.input_pipeline [--images DIR] [--epochs 40] [--count 128] [--rounds 5] [--json FILE]

The usual way is the one of the project that this one replaces, and of most tutorials: torchvision's `ImageFolder`
opens and decodes every image anew in every epoch, its transforms cut, mirror and normalise them one by one
(`RandomResizedCrop(224)`, `RandomHorizontalFlip`, `ToTensor`, `Normalize`). Ours decodes each image once and then
takes every epoch's views from the decoded ones, a batch at a time (`model/training/data/`), which are also turned and
recoloured. Both run in one thread, without worker processes: those do the same work, and hand it over besides.

What is measured is processor time, so that other programs on the machine disturb little. The systems take turns.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.drawn import write_data_set
from benchmarks.measuring import Goal, finish, interleaved, machine, make_parser, markdown_table, paired_ratio, positive
from cli.console import console
from cli.data.dataset import find_data_set
from cli.data.shrink import shrink_data_set
from model.core.network import torchvision_models
from model.core.transforms import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from model.training.data.augment import Augmentation
from model.training.data.dataset import discover
from model.training.data.decoded import decode_for_augmentation
from model.training.data.listing import IMAGE_SUFFIXES

SIZE = 224  # pixels, the input of most published networks
BATCH = 64
COPY_SIDE = 256  # pixels
CLASSES = 4
PHOTOGRAPH = (500, 375)  # pixels


@dataclass(frozen=True)
class Rates:
    """Images per second of processor time."""

    training: float  # over all epochs and whatever comes before the first
    first: float | None  # of what is done once, before the first epoch; None where there is nothing
    epoch: float  # of the epochs alone


def usual(root: Path, epochs: int) -> Rates:
    """Decode and transform every image in every epoch."""
    torchvision_models()  # makes torchvision importable
    transforms = importlib.import_module("torchvision.transforms")
    folder = importlib.import_module("torchvision.datasets").ImageFolder(
        root / "train",
        transforms.Compose(
            [
                transforms.RandomResizedCrop(SIZE),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        ),
    )
    batches = torch.utils.data.DataLoader(folder, batch_size=BATCH, shuffle=True)
    begin = time.process_time()
    for _ in range(epochs):
        _consume(views for views, _ in batches)
    rate = len(folder) * epochs / (time.process_time() - begin)
    return Rates(training=rate, first=None, epoch=rate)


def ours(root: Path, epochs: int) -> Rates:
    """Decode every image once, then take each epoch's views from the decoded ones."""
    preprocessing = Preprocessing(SIZE, SIZE)
    augmentation = Augmentation(preprocessing)
    generator = torch.Generator().manual_seed(0)
    data_set = discover(root)
    begin = time.process_time()
    images = decode_for_augmentation(data_set.splits["train"], preprocessing, threads=1)
    decoded = time.process_time()
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator).numpy()
        _consume(
            augmentation(
                torch.from_numpy(images.pixels[chosen]),
                torch.from_numpy(images.aspects[chosen]),
                augmentation.draw(len(chosen), generator),
            )
            for chosen in (order[begin : begin + BATCH] for begin in range(0, len(order), BATCH))
        )
    end, count = time.process_time(), len(images)
    seen = count * epochs
    return Rates(training=seen / (end - begin), first=count / (decoded - begin), epoch=seen / (end - decoded))


def _consume(batches: Iterable[Tensor]) -> None:
    """Take what a network would be given, and make sure that it is that."""
    for views in batches:
        if views.shape[1:] != (3, SIZE, SIZE) or views.dtype != torch.float32:
            raise AssertionError(f"a batch is {views.dtype} {tuple(views.shape)}")


def main(argv: list[str] | None = None) -> int:
    arguments = _parse(argv)
    torch.set_num_threads(1)
    description = machine(["torch", "torchvision", "pillow"])
    with tempfile.TemporaryDirectory(prefix="kennel-input-pipeline-") as folder:
        root, copy = Path(folder) / "images", Path(folder) / "copy"
        _make_data_set(root, arguments.images, arguments.count)
        shrunk = shrink_data_set(find_data_set(root), copy, side=COPY_SIDE)
        systems: dict[str, Callable[[], Rates]] = {
            "usual": lambda: usual(root, arguments.epochs),
            "ours": lambda: ours(root, arguments.epochs),
            f"usual, {COPY_SIDE} px copy": lambda: usual(copy, arguments.epochs),
            f"ours, {COPY_SIDE} px copy": lambda: ours(copy, arguments.epochs),
        }
        for measure in systems.values():  # imports, first allocations
            measure()
        measured = interleaved(systems, arguments.rounds)

    usual_rates = [rates.training for rates in measured["usual"]]
    ratios = {name: paired_ratio([r.training for r in rounds], usual_rates) for name, rounds in measured.items()}
    console.print(
        f"{arguments.count} images of {shrunk.bytes_before / arguments.count / 1e3:.0f} kB, in the copy "
        f"{shrunk.bytes_after / arguments.count / 1e3:.0f} kB; {arguments.epochs} epochs, {arguments.rounds} rounds, "
        "medians; images per second of one core's time."
    )
    console.print(_table(measured, ratios, arguments.epochs))
    figures: dict[str, Any] = {
        "machine": description,
        "options": {"images": arguments.count, "epochs": arguments.epochs, "drawn": arguments.images is None},
        "bytes": {"originals": shrunk.bytes_before, "copy": shrunk.bytes_after},
        "rates": {name: [asdict(rates) for rates in rounds] for name, rounds in measured.items()},
        "ratios": ratios,
    }
    return finish(arguments, figures, [Goal("ours / usual", ratios["ours"], 2, at_least=True, unit="x")])


def _table(measured: dict[str, list[Rates]], ratios: dict[str, float], epochs: int) -> Any:
    rows = []
    for name, rounds in measured.items():
        first = [rates.first for rates in rounds if rates.first is not None]
        rows.append(
            (
                name,
                f"{statistics.median(first):,.0f}" if first else "",
                f"{statistics.median(rates.epoch for rates in rounds):,.0f}",
                f"{statistics.median(rates.training for rates in rounds):,.0f}",
                f"{ratios[name]:.2f}x",
            )
        )
    columns = ("input pipeline", "decoding once", "each epoch", f"training of {epochs} epochs", "ratio")
    return markdown_table("Images per second and core", columns, rows)


def _make_data_set(root: Path, photographs: Path | None, count: int) -> None:
    """Lay out `count` images for training, drawn or copied from a folder, in turn."""
    if photographs is None:
        write_data_set(root, range(CLASSES), (count // CLASSES, 1, 1), size=PHOTOGRAPH)
        return
    found = sorted(path for path in photographs.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        sys.exit(f"There are no images in {photographs}.")
    for number, path in zip(range(count), itertools.cycle(found), strict=False):
        for split in ("train", "valid") if number < CLASSES else ("train",):  # every data set has a validation split
            target = root / split / f"class {number % CLASSES}" / f"{number}{path.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("input_pipeline", __doc__, rounds=5)
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="photographs to use; without, images of that size are drawn"
    )
    parser.add_argument("--count", type=int, default=128, help=f"images, a multiple of {CLASSES} (%(default)s)")
    parser.add_argument("--epochs", type=positive, default=40, help="of the training (as of train.py, %(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.count < CLASSES or arguments.count % CLASSES:
        parser.error(f"--count must be a multiple of {CLASSES}, not {arguments.count}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
