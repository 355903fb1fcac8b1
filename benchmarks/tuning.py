"""What a search for the best learning rate costs: the old way, and on features that are computed once.

The old way runs every image through the frozen backbone, in training mode and float32, in every epoch of every trial.
`--mode head --search` runs it through once. Both have the same images, backbone, validation set, head, optimiser and
schedule; benchmarks/README.md says how each is measured.

    python -m benchmarks.tuning                        # ResNet-50 at 224 pixels; 5 minutes on two cores
    python -m benchmarks.tuning --quick                # fewer images
    python -m benchmarks.tuning --weights build/model/weights.pt --data DIR --architecture resnet9 --input-size 64

Two questions, two measurements:

- Cost, without weights: ours is run; of the old way whole epochs over some images are run and extrapolated to the
  whole search.
- Accuracy, of a backbone with `--weights` on the images of `--data`, small enough that the old way can be run for real:
  `--old-trials` whole trials, with the values of the first trials of our search.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.drawn import write_data_set
from benchmarks.measuring import Goal, finish, machine, make_parser, markdown_table
from cli.console import console
from model.core.network import build, classifier_name, made_for
from model.core.predictor import FloatArray
from model.training.artifact.changes import Changes, Limits
from model.training.config import Recipe, TrainingConfig
from model.training.data.augment import Augmentation
from model.training.data.dataset import discover, fingerprint
from model.training.data.decoded import Images, decode_for_augmentation, decode_for_serving
from model.training.data.image_folder import ImageFolder
from model.training.distributed.group import ALONE
from model.training.head.backbone import split
from model.training.head.extraction import Extraction
from model.training.head.feature_store import FeatureStore
from model.training.head.features import Views, compute
from model.training.head.head import Search, search
from model.training.head.served import choose_features
from model.training.loop.engine import evaluate, fit
from model.training.loop.metrics import Trial

CPU = torch.device("cpu")
DATA_DIR = Path("build/benchmarks/tuning")
LR, BATCH_SIZES = (0.001, 0.1), (32, 64, 128, 256, 512)
OLD_BATCH = 32
# The old way is measured on so many images at a time; its speed does not depend on how many there are.
OLD_IMAGES = 4 * OLD_BATCH
MANY_VIEWS = 10
# A search draws its first ten trials at random, from the seed alone.
SHARED_TRIALS = 10
LIMITS = Limits(TrainingConfig.int8_max_accuracy_loss, TrainingConfig.int8_min_agreement)
PRECISIONS = {"fp32": "float32", "auto": "the chosen precision"}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One backbone, at so many pixels, on one data set; `precision` is as train.py's."""

    architecture: str
    size: int
    data_set: ImageFolder
    weights: Path | None
    precision: str = "fp32"

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(made_for(self.architecture).at(self.size))

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return build(self.architecture, len(self.data_set.labels), weights=self.weights, input_size=self.size)

    def images(self, count: int | None = None) -> tuple[Images, Images]:
        """Return the training images (`count` of them, spread over all classes) and the validation images, decoded."""
        threads, preprocessing = torch.get_num_threads(), self.augmentation.preprocessing
        train, valid = (self.data_set.splits[name] for name in ("train", "valid"))
        if count is not None:
            train = train.take(range(0, len(train), max(1, len(train) // count))[:count])
        return (
            decode_for_augmentation(train, preprocessing, threads),
            decode_for_serving(valid, preprocessing, threads),
        )

    def extraction(self, backbone: nn.Module, views: int) -> Extraction:
        data_set, identity, threads = self.data_set, fingerprint(self.data_set), torch.get_num_threads()
        return Extraction(backbone, data_set, identity, self.augmentation, views, 0, CPU, threads)


def recipe(arguments: argparse.Namespace, **values: Any) -> Recipe:
    fixed = {"lr": 0.01, "batch_size": OLD_BATCH, "weight_decay": 0.1, "label_smoothing": 0.0, "patience": 0, "seed": 0}
    return Recipe(**({"epochs": arguments.epochs} | fixed | values))


def old_network(setting: Setting) -> nn.Module:
    """Freeze the weights as the old way does: the backbone stays in training mode, its statistics follow the data."""
    network = setting.network().requires_grad_(False)
    network.get_submodule(classifier_name(network)).requires_grad_(True)
    return network


def old_epoch(setting: Setting, arguments: argparse.Namespace) -> tuple[float, float]:
    """Run an epoch of the old way; return seconds per training and per validation image, without decoding."""
    network = old_network(setting)
    train, valid = setting.images(OLD_IMAGES)
    few = Images(valid.pixels[:OLD_BATCH], valid.aspects[:OLD_BATCH], valid.targets[:OLD_BATCH])
    warm = Images(train.pixels[:OLD_BATCH], train.aspects[:OLD_BATCH], train.targets[:OLD_BATCH])
    train_it(network, warm, few, setting, recipe(arguments, epochs=1))
    history = train_it(network, train, few, setting, recipe(arguments, epochs=1)).history
    started = time.perf_counter()
    evaluate(network, few, setting.augmentation.preprocessing, CPU)
    return 1 / history[0].images_per_second, (time.perf_counter() - started) / len(few)


def train_it(network: nn.Module, train: Images, valid: Images, setting: Setting, how: Recipe) -> Any:
    quietly: Any = {"should_stop": lambda: False, "on_epoch": lambda _: None}
    return fit(network, train, valid, recipe=how, augmentation=setting.augmentation, device=CPU, **quietly)


def features(setting: Setting, views: int, folder: Path) -> tuple[nn.Module, Views, float]:
    """Compute features from nothing; return the head, the features and the seconds, of which decoding is a part."""
    started = time.perf_counter()
    backbone, head = split(setting.network(), setting.architecture, setting.size)
    extraction, store = setting.extraction(backbone, views), FeatureStore(folder)
    if setting.precision == "auto":
        extraction, _ = choose_features(extraction, head, LIMITS, store, ALONE, lambda: False)
    made = compute(extraction, store, ALONE, lambda: False)
    assert made is not None
    return head, made, time.perf_counter() - started


def run_search(head: nn.Module, views: Views, arguments: argparse.Namespace) -> tuple[Search, float]:
    """Search on features, which trains the head; return what was found and the seconds."""
    started = time.perf_counter()
    space: Any = {"lr": LR, "batch_sizes": BATCH_SIZES, "trials": arguments.trials}
    found = search(head, views, recipe=recipe(arguments), **space, should_stop=lambda: False, on_trial=lambda _: None)
    assert found is not None
    return found, time.perf_counter() - started


def measure_cost(setting: Setting, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure what a search costs both ways, in seconds."""
    counts, ours = setting.data_set.counts, []
    # Half of the rounds before and half after ours: a machine's speed drifts.
    before = (arguments.rounds + 1) // 2
    say(f"the old way, {OLD_IMAGES} images")
    old = [old_epoch(setting, arguments) for _ in range(before)]
    with tempfile.TemporaryDirectory(prefix="features-") as name:
        spent = 0.0
        for views, made in ((1, counts["train"] + counts["valid"]), (MANY_VIEWS, (MANY_VIEWS - 1) * counts["train"])):
            say(f"ours: {made} more views, {arguments.trials} trials")
            head, known, seconds = features(setting, views, Path(name))  # finds those of before there
            _, search_seconds = run_search(head, known, arguments)
            spent += seconds
            ours.append(
                {
                    "views": views,
                    "views_per_second": made / seconds,
                    "search_seconds": search_seconds,
                    "seconds": spent + search_seconds,
                }
            )
    say(f"the old way again, {OLD_IMAGES} images")
    old += [old_epoch(setting, arguments) for _ in range(arguments.rounds - before)]
    step, check = (statistics.mean(column) for column in zip(*old, strict=True))
    old_seconds = arguments.trials * arguments.epochs * (counts["train"] * step + counts["valid"] * check)
    return {
        "old_images_per_second": 1 / step,
        "old_validation_images_per_second": 1 / check,
        "old_seconds": old_seconds,
        "ours": [way | {"ratio": old_seconds / way["seconds"]} for way in ours],
    }


def measure_accuracy(setting: Setting, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run both ways for real and return the best trial of each; of ours also among those that the old way has, too.

    The exact interval of what our chosen precision loses against float32 is that of the best heads, image by image.
    """
    rows: list[dict[str, Any]] = []
    shared: list[Trial] = []
    expected: dict[int, FloatArray] = {}
    with tempfile.TemporaryDirectory(prefix="features-") as name:
        for precision, views in itertools.product(PRECISIONS, (1, MANY_VIEWS)):
            way = f"{views} view{'s' * (views > 1)}, {PRECISIONS[precision]}"
            say(f"accuracy, ours: {arguments.trials} trials with {way}")
            head, made, _ = features(dataclasses.replace(setting, precision=precision), views, Path(name))
            found, _ = run_search(head, made, arguments)
            with torch.inference_mode():
                logits = head.eval()(torch.from_numpy(made.valid.values)).numpy()
            loss = Changes.between(expected.setdefault(views, logits), logits, made.valid.targets).loss_interval
            shared = found.trials[: arguments.old_trials]
            best_shared = min(shared, key=lambda trial: math.inf if trial.objective is None else trial.objective)
            for trials, best in ((len(shared), best_shared), (len(found.trials), found.best)):
                rows.append({"way": way, "trials": trials, "loss": best.objective, "accuracy": best.accuracy})
            rows[-1]["lost"] = " to ".join(f"{100 * end:+.2f}" for end in loss)
    images = setting.images()
    evaluations = []
    for index, trial in enumerate(shared, start=1):
        say(f"accuracy, the old way: trial {index} of {len(shared)}")
        network = old_network(setting)
        values = {name.replace("-", "_"): value for name, value in trial.hyperparameters.items()}
        evaluations.append(train_it(network, *images, setting, recipe(arguments, **values)).best)
    best_old = min(evaluations, key=lambda evaluation: evaluation.loss)
    old = {"way": "the old way", "trials": len(shared), "loss": best_old.loss, "accuracy": best_old.accuracy}
    return [old, *rows]


def draw(count: int) -> ImageFolder:
    kinds = range(1, 16, 2)
    per_class = max(1, count // len(kinds))
    say(f"drawing {count} images, and some to validate")
    write_data_set(DATA_DIR / f"images-{per_class}", kinds, (per_class, max(10, per_class // 6), 1))
    return discover(DATA_DIR / f"images-{per_class}")


def report_cost(cost: dict[str, Any], arguments: argparse.Namespace) -> None:
    title = (
        f"Cost of {arguments.trials} trials of {arguments.epochs} epochs: {arguments.architecture}, "
        f"{arguments.input_size} pixels"
    )
    rows = [("the old way, extrapolated", cost["old_images_per_second"], cost["old_seconds"], 1.0)]
    rows += [(f"{w['views']} views, run", w["views_per_second"], w["seconds"], w["ratio"]) for w in cost["ours"]]
    texts = [(way, f"{speed:.1f}", f"{seconds:,.1f}", f"{ratio:.0f}x") for way, speed, seconds, ratio in rows]
    console.print(markdown_table(title, ("way", "images/s", "seconds", "cheaper"), texts))
    console.print(f"Of one view's seconds the trials take {cost['ours'][0]['search_seconds']:.1f}.")


def report_accuracy(accuracy: list[dict[str, Any]], arguments: argparse.Namespace) -> list[Goal]:
    """Print how good the best trials are; return the goals."""
    title = f"Best validation: {arguments.architecture}, {arguments.input_size} pixels"
    rows = [
        (r["way"], str(r["trials"]), f"{r['loss']:.4f}", f"{r['accuracy']:.1%}", r.get("lost", "")) for r in accuracy
    ]
    columns = ("way", "trials", "loss, nats", "accuracy", "points lost against float32, 95%")
    console.print(markdown_table(title, columns, rows))
    old, ours = accuracy[0]["accuracy"], [row for row in accuracy[1:] if row["trials"] == accuracy[0]["trials"]]
    return [
        Goal(f"{row['way']}: accuracy over the old way's, same trials", 100 * (row["accuracy"] - old), 0, True, " %")
        for row in ours
    ]


def parse_arguments() -> argparse.Namespace:
    parser = make_parser("tuning", __doc__, rounds=2)
    parser.add_argument("--data", type=Path, help="a folder with train/ and valid/; without it drawn stars")
    parser.add_argument("--images", type=int, help="drawn training images (2000, quick: 400)")
    parser.add_argument("--architecture", default="resnet50", help="of the backbone (%(default)s)")
    parser.add_argument("--input-size", type=int, default=224, help="pixels (%(default)s)")
    parser.add_argument("--weights", type=Path, help="the backbone's; with them the accuracy is measured, not the cost")
    parser.add_argument(
        "--precision", choices=tuple(PRECISIONS), default="auto", help="of our features, as train.py's (%(default)s)"
    )
    parser.add_argument("--trials", type=int, default=20, help="of a search (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="of a trial (%(default)s)")
    parser.add_argument("--old-trials", type=int, help="that the old way runs for real, at most 10 (6, quick: 2)")
    parser.add_argument("--quick", action="store_true", help="fewer images and trials; accuracies mean little then")
    arguments = parser.parse_args()
    arguments.images = arguments.images or (400 if arguments.quick else 2000)
    arguments.old_trials = arguments.old_trials or (2 if arguments.quick else 6)
    if not 1 <= arguments.old_trials <= min(SHARED_TRIALS, arguments.trials):
        parser.error(f"--old-trials goes from 1 to {min(SHARED_TRIALS, arguments.trials)}")
    if arguments.weights is not None and arguments.data is None:
        parser.error("--weights are of a backbone that knows such images as --data has: name a folder")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    where = machine(("torch", "torchvision", "onnxruntime", "optuna"))
    DATA_DIR.mkdir(parents=True, exist_ok=True)
    images = draw(arguments.images) if arguments.data is None else discover(arguments.data)
    setting = Setting(arguments.architecture, arguments.input_size, images, arguments.weights, arguments.precision)
    cost: dict[str, Any] | None = None
    accuracy: list[dict[str, Any]] = []
    if arguments.weights is None:
        cost = measure_cost(setting, arguments)
        report_cost(cost, arguments)
        goals = [
            Goal(f"{way['views']} views: the old way's cost over ours", way["ratio"], limit, True, "x")
            for way, limit in zip(cost["ours"], (600, 80), strict=True)
        ]
    else:
        accuracy = measure_accuracy(setting, arguments)
        goals = report_accuracy(accuracy, arguments)
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    return finish(arguments, {"machine": where, "arguments": asked, "cost": cost, "accuracy": accuracy}, goals)


def say(what: str) -> None:
    console.print(f"{what} …", style="dim")


if __name__ == "__main__":
    raise SystemExit(main())
