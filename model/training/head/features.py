"""The features of a data set: every image goes through the frozen backbone once per view, and never again.

View 0 of an image is the plain one that the server makes; the others are augmented. The work is done in shards that are
kept as soon as they are finished (`feature_store.py`): a training that was killed goes on where it was, one that asks
for more views computes only those, and several workers share the work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..data.augment import Variations
from ..data.dataset import DataSet
from ..data.decoded import Images, decode_for_augmentation, decode_for_serving
from ..data.image_folder import DataSetError
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
    """The images of a split from `start` to `stop`; for each of their views the name of the shard in the store."""

    split: str
    start: int
    stop: int
    shards: dict[int, str]

    def of(self, data_set: DataSet) -> DataSet:
        """Return a data set that has only these images."""
        split = data_set.splits[self.split]
        chosen = slice(self.start, self.stop)
        excerpt = dataclasses.replace(split, paths=split.paths[chosen], targets=split.targets[chosen])
        return dataclasses.replace(data_set, splits={self.split: excerpt})

    def missing_in(self, store: FeatureStore) -> list[int]:
        return [view for view, name in self.shards.items() if name not in store]


def compute(
    extraction: Extraction, store: FeatureStore, workers: Workers, should_stop: Callable[[], bool]
) -> Views | None:
    """Return the features, computing those that the store lacks; None when it was stopped, and beside the main worker.

    Every worker must call this. They share the work; workers of one host may share a store's folder, and what the main
    worker's store lacks is sent to it. `should_stop` is asked after every batch; True on any worker ends the work of
    all, and the finished shards are kept. Raises DataSetError when not one image of a split can be read.
    """
    parts = _parts(extraction)
    missing = workers.broadcast([part for part in parts if part.missing_in(store)])
    total = sum((part.stop - part.start) * len(part.shards) for part in missing)
    if total and workers.is_main:
        log.info("features of %d views of images are to be computed, at most", total)
    done, started = 0, time.monotonic()
    reported = started
    engine = functools.cache(extraction.engine)  # made when the first image needs it
    for first in range(0, len(missing), workers.size):
        turn = missing[first : first + workers.size]
        mine = turn[workers.rank] if workers.rank < len(turn) else None
        if mine is not None:
            for view, features in _features(extraction, mine, mine.missing_in(store), engine, should_stop):
                store.put(mine.shards[view], features)
                done += (mine.stop - mine.start) * workers.size
                now = time.monotonic()
                if workers.is_main and now - reported > PROGRESS_SECONDS:
                    reported, rate = now, done / (now - started)
                    left = max(0.0, total - done) / rate
                    log.info("features: %d of %d views, %.1f/s, %.0f s left", done, total, rate, left)
        if workers.any(should_stop())[0]:
            return None
        _send_to_main(turn, mine, store, workers)
    if not workers.is_main:
        return None
    views: dict[tuple[str, int], list[Features]] = {}
    for part in parts:
        for view, name in part.shards.items():
            views.setdefault((part.split, view), []).append(store.get(name))
    joined = {key: Features.join(shards) for key, shards in views.items()}
    for (split, _), features in joined.items():
        if not len(features):
            name, reason = next(iter(features.skipped.items()))
            raise DataSetError(f"no picture of the {split} split is readable; the first: {name}: {reason}")
    return Views([joined["train", view] for view in range(extraction.views)], joined["valid", 0])


def _parts(extraction: Extraction) -> list[_Part]:
    parts = []
    folders = extraction.folders()
    for name in ("train", "valid"):
        count = len(extraction.data_set.splits[name])
        for start in range(0, count, extraction.shard):
            shards = {view: f"{folder}/{start:08d}" for (split, view), folder in folders.items() if split == name}
            parts.append(_Part(name, start, min(start + extraction.shard, count), shards))
    return parts


def _send_to_main(turn: Sequence[_Part], mine: _Part | None, store: FeatureStore, workers: Workers) -> None:
    """Give the main worker the shards of one turn, unless it finds them all in a store that is shared."""
    if workers.size == 1 or not workers.any(workers.is_main and any(part.missing_in(store) for part in turn))[0]:
        return
    own = {} if mine is None or workers.is_main else {name: store.get_bytes(name) for name in mine.shards.values()}
    for contents in workers.all_gather(own):
        for name, content in contents.items():
            if workers.is_main and content is not None and name not in store:
                store.put_bytes(name, content)


def _features(
    extraction: Extraction,
    part: _Part,
    wanted: Sequence[int],
    engine: Callable[[], Run],
    should_stop: Callable[[], bool],
) -> Iterator[tuple[int, Features]]:
    """Yield the wanted views of a part with their features; end early when told to stop."""
    preprocessing = extraction.augmentation.preprocessing
    images = part.of(extraction.data_set)
    for decode, views in (
        (decode_for_serving, [view for view in wanted if view == 0]),
        (decode_for_augmentation, [view for view in wanted if view > 0]),
    ):
        if not views:
            continue
        decoded = decode(images, part.split, preprocessing, extraction.threads, allow_none=True)
        for view in views:
            values = _values(extraction, engine(), decoded, view, part.start, should_stop)
            if values is None:
                return
            yield view, Features(values, decoded.targets, decoded.skipped)


def _values(
    extraction: Extraction, run: Run, images: Images, view: int, start: int, should_stop: Callable[[], bool]
) -> npt.NDArray[np.float32] | None:
    """Return the features of one view of a part, or None when told to stop."""
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
    """Yield which images of a part one thread computes at once, and how they are varied.

    What is random depends on the seed, the view and the part, not on the worker and the number of its threads.
    """
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
    """Give threads that each compute alone.

    Two that make whole batches beside each other are a tenth faster than two that share each layer of one batch, with
    a ResNet-50 at 224 pixels: none waits for the other, and while one varies images the other multiplies.
    """
    usual = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(usual)  # the last call counts for every thread that begins later
