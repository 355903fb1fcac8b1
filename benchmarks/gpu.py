"""Training on a GPU, measured and checked: our loop beside a plain one, head mode, a resumed training, two workers.

    python -m benchmarks.gpu

It takes no arguments, no network and under six minutes on one H100, and needs what an image of PyTorch has: torch,
torchvision, numpy, pillow, onnx, onnxruntime, tqdm. It makes its images itself. The status is 1 when a check fails.
Without a GPU everything is small: that tries the program, and its figures mean nothing.

Our loop is `model.training.loop.engine.fit`. Its first epoch warms up, in the second a profiler sees when the GPU
computes (copies do not count), the median of the others is the speed. The plain loop is torchvision's reference script
with the same images: a `DataLoader` with as many processes as vCPUs and pinned memory, `transforms.v2`, AdamW, the loss
read in every step. Head mode runs twice: the second run finds the features of the first, so what the first took longer
is their time.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing
from torch import nn
from torch.autograd import DeviceType
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.drawn import write_data_set
from model.core.machine import available_vcpus
from model.core.network import build, torchvision_models
from model.core.transforms import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from model.training.config import Recipe
from model.training.data.augment import Augmentation
from model.training.data.decoded import CACHE_MARGIN, Images
from model.training.distributed.group import ALONE, joined
from model.training.loop.checkpoints import Checkpoints
from model.training.loop.engine import fit
from model.training.loop.state import Fit

CLASSES, EPOCHS, PROFILED_EPOCH = 10, 5, 2
# Two trainings of the same weights may differ on a GPU, whose sums have no fixed order. A resumed one must be as near
# to an uninterrupted one as so many times a second uninterrupted one is.
NOISE_TIMES, SMALLEST_NOISE = 10, 1e-5

failed: list[str] = []


def show(text: str) -> None:
    print(text, flush=True)


def check(text: str, right: bool) -> None:
    """Print what was checked, and remember it where it is wrong."""
    show(f"- {'ok' if right else 'FAILED'}: {text}")
    if not right:
        failed.append(text)


class Meter:
    """Asked after every step whether to stop; on a GPU it profiles the steps from `first` to `last`."""

    def __init__(self, device: torch.device, *, first: int = 0, last: int = 0, stop_after: int = 0) -> None:
        self._profiled, self._stop_after = (first, last) if device.type == "cuda" else (0, 0), stop_after
        self._step, self.busy = 0, ""

    def __call__(self) -> bool:
        """Return whether enough steps are made."""
        self._step += 1
        if self._step in self._profiled:
            torch.cuda.synchronize()
            if self._step == self._profiled[0]:
                self._profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
                self._profiler.start()
                self._started = time.perf_counter()
            else:
                seconds = time.perf_counter() - self._started
                self._profiler.stop()
                found = [event for event in self._profiler.events() or [] if event.device_type == DeviceType.CUDA]
                spans = [(e.time_range.start, e.time_range.end) for e in found if not e.name.startswith("Mem")]
                self.busy = f"{covered(spans) / 1e6 / seconds:.0%}"
        return self._step == self._stop_after


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return how long at least one of the spans lasts."""
    total = end = 0.0
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


@functools.cache
def noise(count: int, side: int, seed: int) -> Images:
    """Return noise in which every class has a pattern of its own."""
    patterns = np.random.default_rng(0).integers(0, 160, (CLASSES, 4, 4, 3), dtype=np.uint8)
    targets, cell = np.arange(count) % CLASSES, -(-side // 4)
    pixels = np.random.default_rng(seed).integers(0, 96, (count, side, side, 3), dtype=np.uint8)
    for image, target in zip(pixels, targets, strict=True):
        image += patterns[target].repeat(cell, axis=0).repeat(cell, axis=1)[:side, :side]
    return Images(pixels, np.ones(count, np.float32), targets)


def transformed(side: int, chosen: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch of images, each varied as torchvision's reference script varies it, and their classes."""
    torchvision_models()  # helps the import that follows
    from torchvision.transforms import v2

    vary = v2.Compose([
        v2.RandomResizedCrop(side, antialias=True), v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ])  # fmt: skip
    return torch.stack([vary(image.permute(2, 0, 1)) for image, _ in chosen]), torch.stack([each[1] for each in chosen])


@dataclass(frozen=True)
class Bench:
    """A network by its name, a device, and as many images as an epoch of `steps` batches needs."""

    device: torch.device
    architecture: str
    side: int
    batch: int
    steps: int

    def start(self) -> tuple[nn.Module, Images, Images]:
        """Return a network, always with the same random weights, and images to train and to validate with."""
        torch.manual_seed(0)
        network, whole = build(self.architecture, CLASSES), round(self.side * CACHE_MARGIN)
        return network, noise(self.batch * self.steps, whole, 1), noise(2 * self.batch, self.side, 2)

    def fit(self, meter: Meter, *, epochs: int, clip: float = 0.0, **options: Any) -> tuple[Fit, nn.Module]:
        """Train a new network with our loop."""
        network, train, valid = self.start()
        outcome = fit(
            network, train, valid,
            recipe=Recipe(epochs, self.batch, lr=0.001, weight_decay=0.05, clip_gradient=clip),
            augmentation=Augmentation(Preprocessing(self.side, self.side)),
            device=self.device, should_stop=meter, on_epoch=lambda _: None, **options,
        )  # fmt: skip
        return outcome, network

    def ours(self, name: str, plain: float, **options: Any) -> tuple[str, ...]:
        """Measure our loop; return a row of the table."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        before = (PROFILED_EPOCH - 1) * self.steps
        meter = Meter(self.device, first=before + 1, last=before + self.steps)
        outcome, _ = self.fit(meter, epochs=EPOCHS, **options)
        check(f"{name}: losses are finite and fall", falls([epoch.train_loss for epoch in outcome.history]))
        rate = statistics.median(epoch.images_per_second for epoch in outcome.history[PROFILED_EPOCH:])
        memory = f"{torch.cuda.max_memory_allocated() / 1e9:.1f}" if self.device.type == "cuda" else ""
        return f"our loop, {name}", f"{rate:,.0f}", meter.busy, memory, f"{rate / plain:.2f}x"

    def plain(self, half: torch.dtype | None = None) -> float:
        """Return the images per second of the plain loop."""
        network, train, _ = self.start()
        network.to(self.device)
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.001, weight_decay=0.05)
        loader = DataLoader(
            TensorDataset(torch.from_numpy(train.pixels), torch.from_numpy(train.targets)), self.batch, shuffle=True,
            collate_fn=functools.partial(transformed, self.side), num_workers=available_vcpus(),
            pin_memory=self.device.type == "cuda", persistent_workers=True,
        )  # fmt: skip
        rates = []
        for _ in range(EPOCHS - 1):
            started = time.perf_counter()
            for images, targets in loader:
                images, targets = (part.to(self.device, non_blocking=True) for part in (images, targets))
                with torch.autocast(self.device.type, dtype=half, enabled=half is not None):
                    loss = functional.cross_entropy(network(images), targets, label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()
            rates.append(len(train) / (time.perf_counter() - started))
        return statistics.median(rates[1:])


def falls(losses: list[float]) -> bool:
    return bool(np.isfinite(losses).all()) and losses[-1] < losses[0]


def check_resume(bench: Bench) -> None:
    """Stop a training in the middle of its second epoch and go on; compare with two that nobody stopped."""

    def losses(outcome: Fit) -> Any:
        return np.array([epoch.train_loss for epoch in outcome.history])

    torch.backends.cudnn.benchmark = False  # it may choose other algorithms in every run
    with tempfile.TemporaryDirectory() as folder:
        one, two = (losses(bench.fit(Meter(bench.device), epochs=2)[0]) for _ in range(2))
        for stop_after in (bench.steps + bench.steps // 2, 0):
            state = Checkpoints(Path(folder), {}, workers=ALONE, every=1e9, keep=1)
            meter = Meter(bench.device, stop_after=stop_after)
            outcome, _ = bench.fit(meter, epochs=2, checkpoints=state)
            check(f"a training {'stops' if stop_after else 'goes on'}", outcome.interrupted == bool(stop_after))
    torch.backends.cudnn.benchmark = bench.device.type == "cuda"
    noise, difference = (float(np.abs(other - one).max()) for other in (two, losses(outcome)))
    text = f"resumed, losses differ by {difference:.2g}, and by {noise:.2g} when nobody interrupts"
    check(text, difference <= max(SMALLEST_NOISE, NOISE_TIMES * noise))


def run_rank(rank: int, port: int, folder: str, bench: Bench) -> None:
    both = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= both | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(max(1, available_vcpus() // 2))
    several = torch.cuda.device_count() > 1
    device = torch.device("cuda", rank) if several else bench.device
    # Two that share a GPU talk as CPUs do.
    with joined(gpus=None if several else 0) as workers:
        outcome, network = replace(bench, device=device).fit(Meter(device), epochs=3, accumulate=2, workers=workers)
    weights = b"".join(value.cpu().numpy().tobytes() for value in network.state_dict().values())
    losses = [epoch.train_loss for epoch in outcome.history]
    found = {"losses": losses, "weights": hashlib.sha256(weights).hexdigest()}
    Path(folder, f"{rank}.json").write_text(json.dumps([found, outcome.history[-1].images_per_second]))


def check_two_ranks(bench: Bench) -> tuple[str, ...]:
    """Train with two workers; return a row of the table."""
    how = ("gloo, CPUs", "gloo, one GPU: NCCL refuses two ranks on one device", "NCCL, two GPUs")
    with tempfile.TemporaryDirectory() as folder:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        torch.multiprocessing.spawn(run_rank, (port, folder, bench), nprocs=2)
        (one, rate), (two, _) = (json.loads(Path(folder, f"{rank}.json").read_text()) for rank in (0, 1))
    check("two ranks: losses are finite and fall", falls(one["losses"]))
    check("two ranks have the same losses and weights", one == two)
    return f"two ranks ({how[min(torch.cuda.device_count(), 2)]}), two pieces", f"{rate:,.0f}", "", "", ""


def check_head_mode(bench: Bench) -> tuple[str, ...]:
    """Train a head by the training program, which computes the features on the GPU; return a row of the table."""
    per_class, losses, seconds = (bench.batch, 4, 2), [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data_set(folder / "data", range(4), per_class)
        for run in ("first", "second"):
            started = time.perf_counter()
            subprocess.run(
                [
                    sys.executable, "-m", "model.train", "--mode", "head", "--architecture", bench.architecture,
                    "--input-size", str(bench.side), "--epochs", "10", "--batch-size", "32", "--precision", "fp32",
                    "--processes-per-host", "1", "--data-dir", str(folder / "data"),
                    "--feature-cache", str(folder / "features"), "--model-dir", str(folder / run / "model"),
                    "--output-data-dir", str(folder / run / "output"),
                ],
                check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            seconds.append(time.perf_counter() - started)
            metrics = json.loads((folder / run / "output" / "metrics.json").read_text())
            losses.append([epoch["train_loss"] for epoch in metrics["epochs"]])
    check("head mode: losses are finite and fall", falls(losses[0]))
    check("head mode: the second run repeats the first, with its features", losses[0] == losses[1])
    # Starting the program takes seconds, more or less.
    longer = seconds[0] - seconds[1]
    rate = f"{4 * sum(per_class[:2]) / longer:,.0f}" if longer > 1 else ""
    return f"head mode, features ({seconds[0]:.1f} s, and {seconds[1]:.1f} s with them)", rate, "", "", ""


def main() -> int:
    started, cpu = time.perf_counter(), torch.device("cpu")
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        memory = gpu.total_memory / 1e9
        show(f"{gpu.name}, {memory:.0f} GB, {available_vcpus()} vCPUs, torch {torch.__version__}")
        bench = Bench(torch.device("cuda", 0), "resnet50", 224, 256 if memory > 40 else 64, 16)
        torch.backends.cudnn.benchmark = True  # as the training program sets it
    else:
        show("No GPU: small sizes, which try the program; the figures mean nothing.")
        bench = Bench(cpu, "resnet18", 32, 16, 4)
    show(f"{bench.architecture}, {bench.side} pixels, {EPOCHS} epochs of {bench.steps} batches of {bench.batch} images")
    single, mixed = bench.plain(), bench.plain(torch.bfloat16)
    rows: list[tuple[str, ...]] = [
        ("plain loop, float32", f"{single:,.0f}", "", "", ""),
        ("plain loop, bfloat16", f"{mixed:,.0f}", "", "", ""),
        bench.ours("float32", single),
        bench.ours("bfloat16", mixed, half=torch.bfloat16),
        bench.ours("bfloat16, compiled", mixed, half=torch.bfloat16, compiled=True),
        bench.ours("float16, clipped, two pieces", mixed, half=torch.float16, accumulate=2, clip=1.0),
    ]
    small = replace(bench, batch=bench.batch // 2, steps=4)
    check_resume(small)
    rows += [check_two_ranks(small), check_head_mode(small)]
    show("\n| training | images/s | GPU computes | GPU memory, GB | over the plain loop |\n|---|---|---|---|---|")
    show("\n".join(f"| {' | '.join(row)} |" for row in rows))
    show(f"\n{time.perf_counter() - started:.0f} s; {len(failed)} checks failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
