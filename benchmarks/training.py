"""Training against the usual ways: the step with `torch.compile`, and two processes against one.

    python -m benchmarks.training [--quick] [--rounds N] [--skip step processes] [--json FILE]

Two comparisons, each a ratio with its goal; benchmarks/README.md says what is compared, and why so. What trains in the
step's comparison has a process of its own, with its own settings of OpenMP and of the allocator, as
`model/train.py` makes them; they take turns, and an epoch of `fit` is one turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.drawn import write_data_set
from benchmarks.measuring import Goal, finish, interleaved, machine, make_parser, markdown_table, paired_ratio
from cli.console import console

PARTS = ("step", "processes")
SIZE, BATCH, CLASSES = 224, 32, 133
ARCHITECTURE = "resnet18"
# How ours makes its steps: --mixed-precision, and whether with --compile. The last one that a CPU can has the goal.
OURS = {
    "float32, compiled": ("off", True),
    "mixed precision": ("on", False),
    "mixed precision, compiled": ("on", True),
}
# Of the trainings with one and with two processes.
PROCESSES_SIZE, PROCESSES_BATCH, PROCESSES_IMAGES = SIZE, 32, 128


@contextmanager
def _taking_turns(kind: str, steps: int, environment: dict[str, str]) -> Iterator[Callable[[], float]]:
    """Give what has a training, in a process of its own, make so many steps and returns its images per second."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.training", "--turns", kind, str(steps)],
        env={name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    requests, answers = process.stdin, process.stdout

    def turn() -> float:
        requests.write("\n")
        requests.flush()
        if answer := answers.readline():
            return float(answer)
        raise RuntimeError(f"a measured training ended with status {process.wait()}")

    try:
        yield turn
    finally:
        process.kill()
        process.communicate()


def plain_turns(steps: int) -> None:
    """Train as tutorials do, `steps` steps for every turn."""
    import torch

    from model.core.network import torchvision_models

    torch.manual_seed(0)
    network = torchvision_models().resnet18(num_classes=CLASSES)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.001)
    criterion = torch.nn.CrossEntropyLoss()
    images, targets = torch.randn(BATCH, 3, SIZE, SIZE), torch.randint(0, CLASSES, (BATCH,))
    network.train()
    for _ in sys.stdin:
        started = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            loss = criterion(network(images), targets)
            loss.backward()
            optimizer.step()
        print(steps * BATCH / (time.perf_counter() - started), flush=True)


def our_turns(steps: int, mixed_precision: str, compiled: bool) -> None:
    """Train with `fit`, an epoch of `steps` steps for every turn."""
    import numpy as np
    import torch

    from model.core.machine import keep_freed_memory
    from model.core.network import build
    from model.core.transforms import Preprocessing
    from model.training.config import Recipe
    from model.training.data.augment import Augmentation
    from model.training.data.decoded import CACHE_MARGIN, Images
    from model.training.loop.engine import fit, half_type
    from model.training.loop.metrics import EpochMetrics

    random = np.random.default_rng(0)

    def images(count: int, side: int) -> Images:
        return Images(
            pixels=random.integers(0, 256, (count, side, side, 3), dtype=np.uint8),
            aspects=np.ones(count, dtype=np.float32),
            targets=random.integers(0, CLASSES, count),
        )

    def on_epoch(metrics: EpochMetrics) -> None:
        print(metrics.images_per_second, flush=True)
        sys.stdin.readline()  # waits for the next turn

    sys.stdin.readline()
    torch.manual_seed(0)
    keep_freed_memory()  # as the training program does
    fit(
        build(ARCHITECTURE, CLASSES),
        images(steps * BATCH, round(SIZE * CACHE_MARGIN)),
        images(1, SIZE),
        recipe=Recipe(10_000, BATCH, lr=0.001, weight_decay=0.05, label_smoothing=0.1, patience=0, seed=0),
        augmentation=Augmentation(Preprocessing(SIZE, SIZE)),
        device=torch.device("cpu"),
        should_stop=lambda: False,
        on_epoch=on_epoch,
        half=half_type(mixed_precision, torch.device("cpu")),
        compiled=compiled,
    )


def measure_step(rounds: int, steps: int, *, cached: bool) -> dict[str, Any]:
    """Return images per second of the loops, a value per round, and the seconds that compiling took.

    `cached` takes what an earlier run has compiled; otherwise all is compiled anew.
    """
    import torch

    from model.training.loop.engine import half_type

    cpu = torch.device("cpu")
    ways = ["plain", *(way for way, (half, _) in OURS.items() if half == "off" or half_type(half, cpu) is not None)]
    with ExitStack() as stack:
        environment = {"OMP_WAIT_POLICY": "PASSIVE"}  # as model/train.py sets it
        if not cached:
            environment["TORCHINDUCTOR_CACHE_DIR"] = stack.enter_context(tempfile.TemporaryDirectory())
        turns = {
            way: stack.enter_context(_taking_turns(way, steps, {} if way == "plain" else environment)) for way in ways
        }
        first = {way: turn() for way, turn in turns.items()}  # allocates and compiles
        rates = interleaved(turns, rounds)
    images = steps * BATCH
    compiled = "float32, compiled"
    return {**rates, "compile_seconds": images / first[compiled] - images / statistics.median(rates[compiled])}


def measure_processes(rounds: int, epochs: int) -> dict[str, list[float]]:
    """Return images per second of one process, of two together, and of two apart, a value per round."""
    with tempfile.TemporaryDirectory(prefix="kennel-training-benchmark-") as name:
        folder = Path(name)
        write_data_set(folder / "data", range(4), (PROCESSES_IMAGES // 4, 2, 1))

        def train(processes: int, name: str = "output") -> float:
            output = folder / name
            subprocess.run(
                [
                    sys.executable, "-m", "model.train", "--data-dir", str(folder / "data"),
                    "--model-dir", str(folder / f"{name}-model"), "--output-data-dir", str(output),
                    "--architecture", ARCHITECTURE, "--input-size", str(PROCESSES_SIZE), "--epochs", str(epochs),
                    "--batch-size", str(PROCESSES_BATCH * processes), "--processes-per-host", str(processes),
                    "--num-cpus", str(processes), "--num-gpus", "0", "--precision", "fp32",
                ],
                check=True, capture_output=True,
            )  # fmt: skip
            metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
            return float(statistics.median(epoch["images_per_second"] for epoch in metrics["epochs"][1:]))

        def train_apart() -> float:
            with ThreadPoolExecutor(2) as pool:
                return sum(pool.map(lambda number: train(1, name=f"apart-{number}"), (1, 2)))

        return interleaved({"one": lambda: train(1), "two": lambda: train(2), "apart": train_apart}, rounds)


def main(argv: list[str] | None = None) -> int:
    arguments = _parse(argv)
    if arguments.turns:
        way, steps = arguments.turns[0], int(arguments.turns[1])
        plain_turns(steps) if way == "plain" else our_turns(steps, *OURS[way])
        return 0
    rounds = 3 if arguments.quick else arguments.rounds
    figures: dict[str, Any] = {
        "machine": machine(["torch", "torchvision"]),
        "options": {"quick": arguments.quick, "rounds": rounds},
    }
    ratios: dict[str, float] = {}
    rows: list[tuple[str, str, str]] = []
    if "step" not in arguments.skip:
        step = figures["step"] = measure_step(rounds, steps=1 if arguments.quick else 2, cached=arguments.quick)
        for way in (way for way in OURS if way in step):
            ratios["step"] = paired_ratio(step[way], step["plain"])
            console.print(f"Our step, {way}, over the plain one: {ratios['step']:.2f}x.")
            rows.append((f"training step, {way}, images/s", _median(step["plain"]), _median(step[way])))
        reuse = ", less what an earlier run has left" if arguments.quick else ""
        console.print(f"Compiling the step took {step['compile_seconds']:.0f} s{reuse}.")
    if "processes" not in arguments.skip:
        processes = figures["processes"] = measure_processes(max(1, rounds // 2), epochs=3)
        ratios["processes"] = paired_ratio(processes["two"], processes["one"]) / 2
        alone = _median(processes["one"])
        rows.append(("one process, two processes, images/s", alone, _median(processes["two"])))
        rows.append(("two trainings apart at the same time", alone, _median(processes["apart"])))
        possible = paired_ratio(processes["apart"], processes["one"]) / 2
        console.print(
            f"Two processes apart reach {possible:.2f} of twice one: this machine's limit, of which two together reach "
            f"{ratios['processes'] / possible:.2f}."
        )
    console.print(markdown_table("Medians", ("", "the usual", "ours"), rows))
    return finish(
        arguments,
        figures,
        [
            Goal("training step, compiled / plain eager", ratios.get("step"), 1.8, at_least=True, unit="x"),
            Goal("efficiency of two processes", ratios.get("processes"), 0.9, at_least=True),
        ],
    )


def _median(rates: list[float]) -> str:
    return f"{statistics.median(rates):,.1f}"


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("training", __doc__, rounds=6)
    parser.add_argument("--quick", action="store_true", help="shorter, with what an earlier run has compiled")
    parser.add_argument("--skip", nargs="+", choices=PARTS, default=[], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--turns", nargs=2, help=argparse.SUPPRESS)  # how this program starts what it measures
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
