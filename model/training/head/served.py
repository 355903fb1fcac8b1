"""The precision of features, chosen before they are computed; int8 features come from the graph that is then served.

So the head learns what quantisation does, and the model that ships makes the features that its head was trained on.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import compose
from torch import Tensor, nn

from ...core.predictor import FloatArray, onnx_session, softmax
from ..artifact import changes, quantize
from ..artifact.changes import Changes, Limits
from ..artifact.export import export_onnx
from ..artifact.precision import MIN_SPEEDUP, Comparison, Decision
from ..artifact.quantize import Quantizer
from ..config import Recipe
from ..data.decoded import Images, decode_for_serving
from ..distributed.group import Workers
from ..loop.evaluation import fair_order
from .extraction import BATCH, Extraction, digest, sources
from .feature_store import Features, FeatureStore
from .features import Views, features_of
from .head import fit_head

log = logging.getLogger(__name__)

# So many images are compared, as a share of all that go through the backbone. Float32 takes three times int8's time.
SHARE, FEWEST, MOST = 1 / 25, 100, 2000
# Features are refused when a head on them is worse with so little probability of chance (McNemar's exact test, 1947).
SIGNIFICANT = 0.05
# Half of a class's images train a quick head, the other half are asked. Of many classes a few are enough.
IMAGES_OF_A_CLASS = 8
# An image costs as much as ten with int8. 32 are as good as 128 for ResNet-18 and ShuffleNetV2, not for MobileNetV3
# (docs/measurements/head-training.md); the comparison decides.
CALIBRATION_IMAGES = 32
QUICK = Recipe(epochs=20, batch_size=16, lr=0.01, weight_decay=0.1, label_smoothing=0.0, patience=0, seed=0)


@dataclass(frozen=True)
class Int8Backbone:
    """The graph that made the features, "image" to "logits", and why, in the form of `precision.Decision`."""

    graph: bytes
    decision: dict[str, Any]

    def write_with(self, head: nn.Module, path: Path) -> Callable[[Tensor], Tensor]:
        """Write the graph with a trained head behind it; return what both should answer, one after the other."""
        session = onnx_session(self.graph)
        export_onnx(head, path, *session.get_outputs()[0].shape[1:])
        backbone = compose.add_prefix(onnx.load_from_string(self.graph), "backbone/", rename_inputs=False)
        layers = compose.add_prefix(onnx.load(path), "head/", rename_outputs=False)
        layers.ir_version = backbone.ir_version
        onnx.save(compose.merge_models(backbone, layers, [("backbone/logits", "head/image")]), path)
        return lambda batch: head(torch.from_numpy(session.run(None, {"image": batch.numpy()})[0]))


def choose_features(
    extraction: Extraction,
    head: nn.Module,
    limits: Limits,
    store: FeatureStore,
    workers: Workers,
    should_stop: Callable[[], bool],
) -> tuple[Extraction, Int8Backbone | None]:
    """Return what computes the features on the CPU: int8, bfloat16 where `extraction` has it, or float32.

    Every worker must call this. The main one quantises the backbone and compares the features of some training images;
    what it chose is kept in the store with the graph, where every training on the same data and backbone finds it.
    """
    choice = {"choice": sources(changes, quantize, sys.modules[__name__]), "limits": dataclasses.asdict(limits)}
    name = f"precision/{digest(extraction.plain_facts() | choice)}"
    content = b""
    if workers.is_main:
        content = store.get(name) or b""
        if not content:
            try:
                content = _choose(extraction, head, limits, should_stop)
            except Exception:  # the quantiser raises whatever the graph makes it stumble over
                log.warning("no int8 features", exc_info=True)
            if content:
                store.put(name, content)
    header, _, graph = workers.broadcast(content).partition(b"\n")
    if not header:
        return extraction, None
    decision = json.loads(header)
    log.info("features in %s: %s", decision["precision"], decision["reason"])
    if graph:
        return dataclasses.replace(extraction, int8=graph), Int8Backbone(graph, decision)
    return (dataclasses.replace(extraction, half=None) if decision["precision"] == "fp32" else extraction), None


def _choose(extraction: Extraction, head: nn.Module, limits: Limits, should_stop: Callable[[], bool]) -> bytes:
    """Return the decision, a line of JSON, and after it the graph if that is int8; nothing when told to stop."""
    started = time.perf_counter()
    fp32 = dataclasses.replace(extraction, half=None)
    candidates = {"fp32": fp32, "int8": dataclasses.replace(fp32, int8=quantised(fp32))}
    if extraction.half is not None:
        candidates["bf16"] = extraction
    images = _sample(extraction)
    features = measured(candidates, images, should_stop)
    if features is None:
        return b""
    logits = {name: _quick_logits(head, values, images) for name, (values, _) in features.items()}
    ms = {name: milliseconds for name, (_, milliseconds) in features.items()}
    asked = np.arange(len(images)), images.targets
    right = {name: float(softmax(found)[asked].mean()) for name, found in logits.items()}
    decision = Decision("fp32", "nothing else is faster and as good", limits, None, time.perf_counter() - started)
    for name in sorted(ms.keys() - {"fp32"}, key=ms.__getitem__):
        found = Changes.between(logits["fp32"], logits[name], images.targets)
        speedup, (low, high) = ms["fp32"] / ms[name], found.loss_interval
        reason = (
            f"{speedup:.2f} times as fast as fp32; heads on such features of {len(images)} training images give the "
            f"right class a mean probability of {right[name]:.2%} instead of {right['fp32']:.2%}, and lose "
            f"{100 * low:.2f} to {100 * high:.2f} points of accuracy (95% interval)"
        )
        if speedup < MIN_SPEEDUP or is_worse(found) or right["fp32"] - right[name] > limits.max_accuracy_loss:
            log.info("no features in %s: %s", name, reason)
            continue
        comparison = Comparison.between(
            logits["fp32"], logits[name], images.targets, (Changes(), found), fp32_ms=ms["fp32"], int8_ms=ms[name],
            calibration_images=CALIBRATION_IMAGES, accuracy_of="of heads on training images",
        )  # fmt: skip
        decision = Decision(name, reason, limits, comparison, time.perf_counter() - started)
        break
    graph = candidates[decision.precision].int8 or b""
    return json.dumps(dataclasses.asdict(decision), allow_nan=False).encode() + b"\n" + graph


def is_worse(found: Changes) -> bool:
    """Return whether more right answers are lost than won, which chance rarely explains."""
    changed = found.lost + found.won
    as_many = sum(math.comb(changed, lost) for lost in range(found.lost, changed + 1))
    return bool(as_many / 2**changed < SIGNIFICANT)


def quantised(fp32: Extraction) -> bytes:
    """Return the int8 graph of a backbone."""
    train, preprocessing = fp32.data_set.splits["train"], fp32.augmentation.preprocessing
    some = train.take(fair_order(len(train))[:CALIBRATION_IMAGES])
    with tempfile.TemporaryDirectory(prefix="quantize-") as folder:
        path = Path(folder, "backbone.onnx")
        path.write_bytes(fp32.graph)
        calibration = decode_for_serving(some, preprocessing, fp32.threads)
        return Quantizer(path, Path(folder), calibration, preprocessing).quantize().read_bytes()


def _sample(extraction: Extraction) -> Images:
    """Decode training images, of so few classes that there are several of each."""
    train, valid = (extraction.data_set.splits[name] for name in ("train", "valid"))
    count = min(max(round(SHARE * (extraction.views * len(train) + len(valid))), FEWEST), MOST)
    members: dict[int, list[int]] = {}
    for index, target in enumerate(train.targets):
        members.setdefault(target, []).append(index)
    each = max(IMAGES_OF_A_CLASS, count // len(members))
    classes = list(members.values())
    some = [classes[which] for which in fair_order(len(classes))]
    chosen = [own[place] for own in some for place in fair_order(len(own))[:each]]
    return decode_for_serving(train.take(chosen[:count]), extraction.augmentation.preprocessing, extraction.threads)


def measured(
    candidates: Mapping[str, Extraction], images: Images, should_stop: Callable[[], bool]
) -> dict[str, tuple[FloatArray, float]] | None:
    """Return each candidate's features and its processor time for an image, ms; None when told to stop."""
    engines = {name: candidate.engine() for name, candidate in candidates.items()}
    parts: dict[str, list[FloatArray]] = {name: [] for name in candidates}
    seconds = dict.fromkeys(candidates, 0.0)
    at_once = BATCH * candidates["fp32"].threads
    for start in range(0, len(images), at_once):  # they take turns: a machine's speed drifts
        part = slice(start, start + at_once)
        some = Images(images.pixels[part], images.aspects[part], images.targets[part])
        for name, run in engines.items():
            began = time.process_time()
            values = features_of(some, candidates[name], run, should_stop)
            if values is None:
                return None
            seconds[name] += time.process_time() - began
            parts[name].append(values)
    return {name: (np.concatenate(parts[name]), 1000 * seconds[name] / len(images)) for name in candidates}


def _quick_logits(head: nn.Module, values: FloatArray, images: Images) -> FloatArray:
    """Train two heads, each on every second image, and return their logits for the others."""
    halves = [Features(values[start::2], images.targets[start::2]) for start in (0, 1)]
    answers = []
    for known, asked in (halves[::-1], halves):
        quick = copy.deepcopy(head)
        fit_head(quick, Views([known], asked), recipe=QUICK, should_stop=lambda: False, on_epoch=lambda _: None)
        with torch.inference_mode():
            answers.append(quick.eval()(torch.from_numpy(asked.values)).numpy())
    logits = np.empty((len(values), answers[0].shape[1]), np.float32)
    logits[0::2], logits[1::2] = answers
    return logits
