"""A small network, a small data set that it can learn, a recipe, and a GPU that only remembers."""

from __future__ import annotations

import contextlib
import functools

import numpy as np
import pytest
import torch
from torch import nn

from model.core.transforms import Preprocessing
from model.training.config import Recipe
from model.training.data import ahead as prefetching
from model.training.data import batches
from model.training.data.decoded import Images

PREPROCESSING = Preprocessing(16, 16)
RECIPE = Recipe(epochs=6, batch_size=8, lr=0.01, weight_decay=0.01, label_smoothing=0.0, patience=0, seed=3)
CPU = torch.device("cpu")


def brightness(count: int, seed: int, classes: int = 3) -> Images:
    """Images whose class is how bright they are."""
    random = np.random.default_rng(seed)
    targets = np.arange(count) % classes
    pixels = (targets * 80 + 20)[:, None, None, None] + random.integers(0, 40, (count, 16, 16, 3))
    return Images(pixels.astype(np.uint8), np.ones(count, np.float32), targets.astype(np.int64))


def small_network(seed: int = 0, classes: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes)
    )


class PretendStream:
    """What a stream has been given to do, and what of the other stream is done before."""

    def __init__(self, *_: object) -> None:
        self.given = self.other_done = 0

    def record_event(self) -> int:
        return self.given

    def wait_event(self, event: int) -> None:
        self.other_done = event


def pretend_gpu(monkeypatch: pytest.MonkeyPatch) -> tuple[PretendStream, PretendStream]:
    """Let input on the CPU be made as for a GPU; return the streams of the steps and of the input."""
    main, side = PretendStream(), PretendStream()
    once = iter([side])  # memory that torch has given to one stream is not for another
    monkeypatch.setattr(prefetching, "_side_stream", functools.cache(prefetching._side_stream.__wrapped__))
    for name, value in (("current_stream", lambda _: main), ("Stream", lambda _: next(once)), ("set_device", print)):
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    gpu = torch.device("cuda")
    monkeypatch.setattr(batches, "ahead", lambda items, _: prefetching.ahead(items, gpu))
    return main, side
