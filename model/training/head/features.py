"""The features of a data set: every picture goes through the frozen backbone once per view, and never again.

View 0 of a picture is the plain one that the server makes; the others are augmented. The work is done in shards that
are kept as soon as they are finished (`feature_store.py`): what was killed goes on where it was, asking for more views
computes only those, and several workers share it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import onnxruntime
import PIL
import torch
from torch import Tensor, nn

from ...core import decoding, transforms
from ...core.predictor import onnx_session
from ..artifact.export import check_export, export_onnx
from ..data import augment, decoded
from ..data.augment import Augmentation, Variations
from ..data.dataset import DataSet, Fingerprint
from ..data.decoded import Pictures, decode_for_augmentation, decode_for_serving
from ..data.image_folder import DataSetError
from ..distributed.group import Workers
from .feature_store import Features, FeatureStore

log = logging.getLogger(__name__)

# A shard is what a kill can cost, and what one worker takes at a time: three seconds of a ResNet-50 on two cores.
SHARD_PICTURES = 128
# Views are drawn for so many pictures at a time. A GPU takes them at once.
BATCH = 32
PROGRESS_SECONDS = 10.0

Run = Callable[[Tensor], npt.NDArray[np.float32]]
"""From preprocessed pictures, float32 [N, 3, S, S], to their features, float32 [N, D]."""


@dataclass(frozen=True)
class Views:
    """The features of a training and a validation split.

    Attributes
    ----------
    train : list of Features
        One per view, the plain one first.
    valid : Features
        Of the plain view.
    """

    train: list[Features]
    valid: Features

    @property
    def skipped(self) -> dict[str, str]:
        """The training pictures that could not be read, with the reasons."""
        return {name: reason for view in self.train for name, reason in view.skipped.items()}


@dataclass(frozen=True)
class _Part:
    """Consecutive pictures of a split, and in which shards their views are kept."""

    split: str
    start: int
    shards: dict[int, str]


@dataclass(frozen=True)
class Extraction:
    """Which features are wanted.

    Attributes
    ----------
    backbone : nn.Module
        Frozen, in evaluation mode: float32 [N, 3, S, S] to [N, D].
    data_set : DataSet
    identity : Fingerprint
        Of the data set.
    augmentation : Augmentation
        Makes the views but the first; its `preprocessing` makes that one.
    views : int
        Of each training picture, at least 1.
    seed : int
        Of the augmented views.
    device : torch.device
        What computes: on the CPU ONNX Runtime, which in float32 is the faster there, torch on a GPU.
    threads : int
        For decoding and, on the CPU, computing.
    half : torch.dtype or None
        What torch computes in, on the CPU, too, where the result allows it (`mixed_precision.half_type`); None: float32
        throughout.
    """

    backbone: nn.Module
    data_set: DataSet
    identity: Fingerprint
    augmentation: Augmentation
    views: int
    seed: int
    device: torch.device
    threads: int
    half: torch.dtype | None = None

    @property
    def engine(self) -> str:
        """What computes, as far as the features depend on it."""
        if self.device.type == "cpu" and self.half is None:
            return f"ort {onnxruntime.__version__}"
        return f"torch {torch.__version__} {self.device.type}{f' {self.half}' if self.half else ''}"

    @property
    def engine_threads(self) -> int:
        """How many threads give pictures to the engine: a GPU takes those of one."""
        return self.threads if self.device.type == "cpu" else 1

    def folders(self) -> dict[tuple[str, int], str]:
        """Return the folder's name for every split and view: the hash of all that its features depend on."""
        common = {
            "data": self.identity.digest,
            "backbone": _digest(self.backbone),
            "preprocessing": dataclasses.asdict(self.augmentation.preprocessing),
            "engine": self.engine,
            "pillow": PIL.__version__,
            "program": _program(decoding, transforms, decoded),
            "shard": SHARD_PICTURES,
        }
        varied = common | {
            "augmentation": dataclasses.asdict(self.augmentation),
            "augmenting program": _program(augment),
            "torch": torch.__version__,
            "batch": BATCH,
            "seed": self.seed,
        }
        wanted = [("valid", 0)] + [("train", view) for view in range(self.views)]
        return {
            (split, view): _hash((varied if view else common) | {"split": split, "view": view})
            for split, view in wanted
        }


def compute(
    extraction: Extraction, store: FeatureStore, workers: Workers, should_stop: Callable[[], bool]
) -> Views | None:
    """Return the features, computing those that the store lacks.

    Parameters
    ----------
    extraction : Extraction
    store : FeatureStore
        The workers of one host may share its folder; those of other hosts need not.
    workers : Workers
        Every one of them must call this. They share the work; what the main worker's store lacks is sent to it.
    should_stop : callable
        Asked after every batch. True on any worker ends the work of all; the finished shards are kept.

    Returns
    -------
    Views or None
        None when it was stopped, and on all workers but the main one.

    Raises
    ------
    DataSetError
        When not one picture of a split can be read.
    ExportError
        When the backbone cannot be exported to ONNX.
    """
    parts = _parts(extraction)
    missing = workers.broadcast([part for part in parts if any(name not in store for name in part.shards.values())])
    worker = _Worker(extraction, store, should_stop, _Progress(missing, extraction, workers))
    for first in range(0, len(missing), workers.size):
        turn = missing[first : first + workers.size]
        mine = turn[workers.rank] if workers.rank < len(turn) else None
        if mine is not None:
            worker.compute(mine)
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
    folders = extraction.folders()
    return [
        _Part(
            split,
            start,
            {view: f"{folder}/{start:08d}" for (name, view), folder in folders.items() if name == split},
        )
        for split in ("train", "valid")
        for start in range(0, len(extraction.data_set.splits[split]), SHARD_PICTURES)
    ]


def _send_to_main(turn: Sequence[_Part], mine: _Part | None, store: FeatureStore, workers: Workers) -> None:
    """Give the main worker the shards of one turn, unless it finds them all in a store that is shared."""
    if workers.size == 1:
        return
    lacks = workers.is_main and any(name not in store for part in turn for name in part.shards.values())
    if not workers.any(lacks)[0]:
        return
    own = {} if mine is None or workers.is_main else {name: store.get_bytes(name) for name in mine.shards.values()}
    for contents in workers.all_gather(own):
        for name, content in contents.items():
            if workers.is_main and content is not None and name not in store:
                store.put_bytes(name, content)


class _Worker:
    """Computes parts; the engine is made when the first picture needs it."""

    def __init__(
        self, extraction: Extraction, store: FeatureStore, should_stop: Callable[[], bool], progress: _Progress
    ) -> None:
        self._extraction, self._store, self._should_stop, self._progress = extraction, store, should_stop, progress
        self._run: Run | None = None

    def compute(self, part: _Part) -> None:
        """Compute and keep the shards of a part that the store lacks; stop in between when told to."""
        wanted = [view for view, name in part.shards.items() if name not in self._store]
        extraction = self._extraction
        chosen = _excerpt(extraction.data_set, part)
        for decode, views in ((decode_for_serving, [0]), (decode_for_augmentation, range(1, extraction.views))):
            views = [view for view in views if view in wanted]
            if not views:
                continue
            preprocessing = extraction.augmentation.preprocessing
            pictures = decode(chosen, part.split, preprocessing, extraction.threads, allow_none=True)
            self._run = self._run or _engine(extraction)
            for view in views:
                features = self._features(self._run, pictures, view, part.start)
                if features is None:
                    return
                self._store.put(part.shards[view], Features(features, pictures.targets, pictures.skipped))
                self._progress.add(len(chosen.splits[part.split]))

    def _features(self, run: Run, pictures: Pictures, view: int, start: int) -> npt.NDArray[np.float32] | None:
        """Return the features of one view of a part, or None when told to stop."""
        augmentation = self._extraction.augmentation
        preprocessing = augmentation.preprocessing
        if not len(pictures):  # features of the right length, but none
            return run(torch.zeros(1, 3, preprocessing.input_size, preprocessing.input_size))[:0]

        def compute(task: tuple[slice, Variations | None]) -> npt.NDArray[np.float32]:
            chosen, variations = task
            if variations is None:
                return run(torch.from_numpy(preprocessing.normalise(pictures.pixels[chosen])))
            pixels = torch.from_numpy(pictures.pixels[chosen]).to(self._extraction.device)
            return run(augmentation(pixels, torch.from_numpy(pictures.aspects[chosen]), variations))

        values = []
        with _threads(self._extraction.engine_threads) as pool:
            for value in pool.map(compute, self._tasks(len(pictures), view, start)):
                values.append(value)
                if self._should_stop():
                    pool.shutdown(cancel_futures=True)
                    return None
        return np.concatenate(values)

    def _tasks(self, count: int, view: int, start: int) -> Iterator[tuple[slice, Variations | None]]:
        """Yield which pictures of a part one thread computes at once, and how they are varied.

        What is random depends on the seed, the view and the part, not on the worker and the number of its threads.
        """
        extraction = self._extraction
        seed = _hash({"seed": extraction.seed, "view": view, "start": start})
        generator = torch.Generator().manual_seed(int(seed[:15], 16))
        # Enough tasks to keep all threads busy with the pictures of one shard.
        at_once = max(1, min(BATCH, SHARD_PICTURES // extraction.engine_threads))
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
    a ResNet-50 at 224 pixels: none waits for the other, and while one varies pictures the other multiplies.
    """
    usual = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(usual)  # the last call counts for every thread that begins later


def _excerpt(data_set: DataSet, part: _Part) -> DataSet:
    """Return a data set that has only the pictures of a part."""
    split = data_set.splits[part.split]
    chosen = slice(part.start, part.start + SHARD_PICTURES)
    excerpt = dataclasses.replace(split, paths=split.paths[chosen], targets=split.targets[chosen])
    return dataclasses.replace(data_set, splits={part.split: excerpt})


def _engine(extraction: Extraction) -> Run:
    backbone, device, half = extraction.backbone, extraction.device, extraction.half
    if device.type == "cuda" or half is not None:
        backbone = backbone.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

        @torch.inference_mode()
        def run_torch(batch: Tensor) -> npt.NDArray[np.float32]:
            with torch.autocast(device.type, dtype=half, enabled=half is not None):
                return backbone(batch.to(device, memory_format=torch.channels_last)).float().cpu().numpy()

        return run_torch
    side = extraction.augmentation.preprocessing.input_size
    with tempfile.TemporaryDirectory(prefix="backbone-") as folder:
        path = Path(folder) / "backbone.onnx"
        export_onnx(backbone, path, input_size=side)
        check_export(backbone, path, np.random.default_rng(0).standard_normal((2, 3, side, side), np.float32))
        session = onnx_session(path)  # may be used by several threads, each of which then computes alone

    def run_onnx(batch: Tensor) -> npt.NDArray[np.float32]:
        return session.run(None, {"image": np.ascontiguousarray(batch.numpy())})[0]

    return run_onnx


class _Progress:
    """Says now and then how far all workers are, judged by one of them."""

    def __init__(self, missing: Sequence[_Part], extraction: Extraction, workers: Workers) -> None:
        splits = extraction.data_set.splits
        sizes = [min(SHARD_PICTURES, len(splits[part.split]) - part.start) * len(part.shards) for part in missing]
        self._total, self._workers = sum(sizes), workers
        self._done, self._started = 0, time.monotonic()
        self._next = self._started + PROGRESS_SECONDS
        if self._total and workers.is_main:
            log.info("features of %d views of pictures are to be computed, at most", self._total)

    def add(self, views: int) -> None:
        self._done += views * self._workers.size
        now = time.monotonic()
        if now < self._next or not self._workers.is_main:
            return
        self._next = now + PROGRESS_SECONDS
        rate = self._done / (now - self._started)
        left = max(0.0, self._total - self._done) / rate
        log.info("features: %d of %d views, %.1f/s, %.0f s left", self._done, self._total, rate, left)


def _digest(backbone: nn.Module) -> str:
    """Hash what a backbone computes: its layers and their weights."""
    whole = hashlib.sha256(str(backbone).encode())
    for name, value in backbone.state_dict().items():
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        whole.update(value.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()


def _program(*modules: ModuleType) -> dict[str, str]:
    """Hash the source of modules: a version that makes other features must not find the old ones."""
    sources = {module.__name__: Path(str(module.__file__)).read_bytes() for module in modules}
    return {name: hashlib.sha256(source).hexdigest() for name, source in sources.items()}


def _hash(facts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
