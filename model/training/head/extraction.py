"""Which features a training wants, what they depend on, and what computes them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import onnxruntime
import PIL
import torch
from torch import Tensor, nn

from ...core import transforms
from ...core.decoding import containers, decoder
from ...core.predictor import onnx_session
from ..artifact.export import check_export, export_onnx
from ..data import augment, decoded
from ..data.augment import Augmentation
from ..data.dataset import Fingerprint
from ..data.image_folder import ImageFolder

# Views are drawn for so many images at a time. A GPU takes them at once.
BATCH = 32

Run = Callable[[Tensor], npt.NDArray[np.float32]]
"""From preprocessed images, float32 [N, 3, S, S], to their features, float32 [N, D]."""


@dataclass(frozen=True)
class Extraction:
    """Which features are wanted, and what computes them."""

    backbone: nn.Module  # frozen, in evaluation mode: float32 [N, 3, S, S] to [N, D]
    data_set: ImageFolder
    identity: Fingerprint
    augmentation: Augmentation  # makes the views but the first; its `preprocessing` makes that one
    views: int  # of each training image, at least 1
    seed: int  # of the augmented views
    device: torch.device  # with torch on a GPU, on the CPU with ONNX Runtime, which is the faster in float32
    threads: int  # for decoding and, on the CPU, computing
    half: torch.dtype | None = None  # what torch computes in, also on the CPU (`engine.half_type`); None: float32
    shard: int = 128  # images in a shard, which is what a kill can cost: three seconds of a ResNet-50 on two cores
    int8: bytes | None = None  # the backbone's quantised graph, which then computes in its place

    @property
    def engine_threads(self) -> int:
        """How many threads give images to the engine: a GPU takes those of one."""
        return self.threads if self.device.type == "cpu" else 1

    def plain_facts(self) -> dict[str, object]:
        """Return what the features of the plain view depend on."""
        engine = f"torch {torch.__version__} {self.device.type}{f' {self.half}' if self.half else ''}"
        return {
            "data": self.identity.digest,
            "backbone": hashlib.sha256(self.int8).hexdigest() if self.int8 else _weights_digest(self.backbone),
            "preprocessing": dataclasses.asdict(self.augmentation.preprocessing),
            "engine": f"ort {onnxruntime.__version__}" if self._by_onnx else engine,
            "pillow": PIL.__version__,
            "program": sources(decoder, containers, transforms, decoded),
            "shard": self.shard,
        }

    def folders(self) -> dict[tuple[str, int], str]:
        """Return the folder's name for every split and view: the hash of all that its features depend on."""
        common = self.plain_facts()
        varied = common | {
            "augmentation": dataclasses.asdict(self.augmentation),
            "augmenting program": sources(augment),
            "torch": torch.__version__,
            "batch": BATCH,
            "seed": self.seed,
        }
        wanted = [("valid", 0)] + [("train", view) for view in range(self.views)]
        facts = {key: varied if key[1] else common for key in wanted}
        return {(split, view): digest(facts[split, view] | {"split": split, "view": view}) for split, view in wanted}

    def engine(self) -> Run:
        """Return what computes features; several threads may call it. Raises ExportError when ONNX cannot do it."""
        if self._by_onnx:
            session = onnx_session(self.int8 or self.graph)  # each thread that uses it computes alone
            return lambda batch: session.run(None, {"image": np.ascontiguousarray(batch.numpy())})[0]
        device, half = self.device, self.half
        backbone = self.backbone.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

        @torch.inference_mode()
        def run(batch: Tensor) -> npt.NDArray[np.float32]:
            with torch.autocast(device.type, dtype=half, enabled=half is not None):
                features: Tensor = backbone(batch.to(device, memory_format=torch.channels_last))
                return features.float().cpu().numpy()

        return run

    @functools.cached_property
    def graph(self) -> bytes:
        """The backbone as an ONNX graph in float32. Raises ExportError when there can be none."""
        side = self.augmentation.preprocessing.input_size
        with tempfile.TemporaryDirectory(prefix="backbone-") as folder:
            path = Path(folder) / "backbone.onnx"
            export_onnx(self.backbone, path, 3, side, side)
            check_export(self.backbone, path, np.random.default_rng(0).standard_normal((2, 3, side, side), np.float32))
            return path.read_bytes()

    @property
    def _by_onnx(self) -> bool:
        return self.int8 is not None or (self.device.type == "cpu" and self.half is None)


def digest(facts: Mapping[str, object]) -> str:
    """Hash what JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _weights_digest(backbone: nn.Module) -> str:
    """Hash what a backbone computes: its layers and their weights."""
    whole = hashlib.sha256(str(backbone).encode())
    for name, value in backbone.state_dict().items():
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        whole.update(value.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()


def sources(*modules: ModuleType) -> dict[str, str]:
    """Hash the source of modules: a version that makes other features must not find the old ones."""
    return {module.__name__: hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest() for module in modules}
