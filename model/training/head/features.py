"""The features of a data set: every image goes through the frozen backbone once per view, and never again.

View 0 of an image is the plain one that the server makes; the others are augmented. The work is done in shards that are
kept as soon as they are finished (`feature_store.py`), and several workers share it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..data.augment import Variations
from ..data.decoded import Images, decode_for_augmentation, decode_for_serving
from ..data.image_folder import Split
from ..distributed.group import Workers
from .extraction import BATCH, Extraction, Run, digest
from .feature_store import Features, FeatureStore

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class Views:
    """The features of the training split, one per view, the plain one first, and of the validation split."""

    train: list[Features]
    valid: Features

    @property
    def skipped(self) -> dict[str, str]:
        """The training images that could not be read, with the reasons."""
        return {name: reason for view in self.train for name, reason in view.skipped.items()}


@dataclass(frozen=True)
class _Part:
    """Images of a split, the first of which is number `start` there; for each of their views the shard's name."""

    images: Split
    start: int
    shards: dict[int, str]

    def without(self, names: Collection[str]) -> _Part:
        return _Part(self.images, self.start, {view: name for view, name in self.shards.items() if name not in names})


def compute(
    extraction: Extraction, store: FeatureStore, workers: Workers, should_stop: Callable[[], bool]
) -> Views | None:
    """Return the features, computing those that the store lacks; None when it was stopped, and beside the main worker.

    Every worker must call this. They share the work; the main one keeps what they make. `should_stop` is asked after
    every batch; True on any worker ends the work of all, and the finished shards are kept. Raises DataSetError when
    not one image of a split can be read.
    """
    parts = _parts(extraction)
    made: dict[str, Features] = {}
    if workers.is_main:
        names = (name for part in parts for name in part.shards.values())
        made = {name: Features.unpacked(content) for name in names if (content := store.get(name)) is not None}
    known = workers.broadcast(set(made))
    missing = [part for part in (part.without(known) for part in parts) if part.shards]
    if missing and workers.is_main:
        total = sum(len(part.images) * len(part.shards) for part in missing)
        log.info("features of %d views are to be computed", total)
    engine = functools.cache(extraction.engine)  # made when the first image needs it
    started = reported = time.monotonic()
    for first in range(0, len(missing), workers.size):
        turn = missing[first : first + workers.size]
        own: dict[str, Features] = {}
        if workers.rank < len(turn):
            for name, features in _features(extraction, turn[workers.rank], engine(), should_stop):
                own[name] = features
                if workers.is_main:
                    store.put(name, features.packed())  # at once: so a kill costs one shard
        for shards in workers.all_gather(own):
            if workers.is_main:
                for name in shards.keys() - own.keys():
                    store.put(name, shards[name].packed())
                made |= shards
        if workers.any(should_stop())[0]:
            return None
        now, share = time.monotonic(), (first + len(turn)) / len(missing)
        if workers.is_main and now - reported > PROGRESS_SECONDS:
            reported = now
            log.info("features: %.0f%%, %.0f s left", 100 * share, (now - started) * (1 / share - 1))
    if not workers.is_main:
        return None
    views: dict[tuple[str, int], list[Features]] = {}
    for part in parts:
        for view, name in part.shards.items():
            views.setdefault((part.images.name, view), []).append(made[name])
    joined = {key: Features.join(shards) for key, shards in views.items()}
    for (split, _), features in joined.items():
        extraction.data_set.splits[split].refuse_unreadable(features.skipped)
    return Views([joined["train", view] for view in range(extraction.views)], joined["valid", 0])


def _parts(extraction: Extraction) -> list[_Part]:
    parts = []
    folders = extraction.folders()
    for name in ("train", "valid"):
        split = extraction.data_set.splits[name]
        for start in range(0, len(split), extraction.shard):
            shards = {view: f"{folder}/{start:08d}" for (of, view), folder in folders.items() if of == name}
            images = split.take(range(start, min(start + extraction.shard, len(split))))
            parts.append(_Part(images, start, shards))
    return parts


def _features(
    extraction: Extraction, part: _Part, run: Run, should_stop: Callable[[], bool]
) -> Iterator[tuple[str, Features]]:
    """Yield the shards of a part with their names; end early when told to stop."""
    preprocessing = extraction.augmentation.preprocessing
    for decode, views in (
        (decode_for_serving, [view for view in part.shards if view == 0]),
        (decode_for_augmentation, [view for view in part.shards if view > 0]),
    ):
        if not views:
            continue
        decoded = decode(part.images, preprocessing, extraction.threads)
        for view in views:
            values = features_of(decoded, extraction, run, should_stop, view, part.start)
            if values is None:
                return
            yield part.shards[view], Features(values, decoded.targets, decoded.skipped)


def features_of(
    images: Images, extraction: Extraction, run: Run, should_stop: Callable[[], bool], view: int = 0, start: int = 0
) -> npt.NDArray[np.float32] | None:
    """Return the features of one view of images, the first of which is number `start`, or None when told to stop."""
    augmentation = extraction.augmentation
    preprocessing = augmentation.preprocessing
    if not len(images):  # features of the right length, but none
        return run(torch.zeros(1, 3, preprocessing.input_size, preprocessing.input_size))[:0]

    def compute_some(task: tuple[slice, Variations | None]) -> npt.NDArray[np.float32]:
        chosen, variations = task
        if variations is None:
            return run(torch.from_numpy(preprocessing.normalise(images.pixels[chosen])))
        pixels = torch.from_numpy(images.pixels[chosen]).to(extraction.device)
        return run(augmentation(pixels, torch.from_numpy(images.aspects[chosen]), variations))

    values = []
    with _threads(extraction.engine_threads) as pool:
        for value in pool.map(compute_some, _tasks(extraction, len(images), view, start)):
            values.append(value)
            if should_stop():
                pool.shutdown(cancel_futures=True)
                return None
    return np.concatenate(values)


def _tasks(extraction: Extraction, count: int, view: int, start: int) -> Iterator[tuple[slice, Variations | None]]:
    """Yield which images of a part one thread computes at once, and how they are varied: on no worker or thread."""
    seed = digest({"seed": extraction.seed, "view": view, "start": start})
    generator = torch.Generator().manual_seed(int(seed[:15], 16))
    # Enough tasks to keep all threads busy with the images of one shard.
    at_once = max(1, min(BATCH, extraction.shard // extraction.engine_threads))
    for first in range(0, count, BATCH):
        size = min(BATCH, count - first)
        variations = extraction.augmentation.draw(size, generator) if view else None
        for offset in range(0, size, at_once):
            piece = slice(offset, min(offset + at_once, size))
            yield slice(first + piece.start, first + piece.stop), variations and variations[piece]


@contextlib.contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Give threads that each compute alone: two are a tenth faster so than where they share each layer of one batch."""
    usual = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(usual)  # the last call counts for every thread that begins later
