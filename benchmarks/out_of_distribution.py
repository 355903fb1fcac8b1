"""How well a model tells images of its classes from others, by its own score and by other methods, and what that costs.

    python -m benchmarks.out_of_distribution ARTIFACT DATA [--photographs FOLDER]

ARTIFACT is a folder, DATA a data set. Classes of DATA that the model lacks are near classes: train without them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper
from PIL import Image
from scipy.stats import mannwhitneyu

from benchmarks.drawn import draw_star
from model.core.artifact import ONNX_FILE, ModelCard
from model.core.decoding import decode
from model.core.predictor import OOD_OUTPUT, onnx_session
from model.core.transforms import Preprocessing
from model.training.data.dataset import discover
from model.training.loop.evaluation import fair_order

Array = npt.NDArray[Any]
SIDE, DRAWN, TRAINING_IMAGES, RUNS = 200, 60, 1000, 1000

FAR: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "noise": lambda random: Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)),
    "stars": lambda random: draw_star(int(random.integers(8)), random, (320, 240)),
}


def auroc(members: Array, others: Array) -> float:
    """Return the probability that a member has a lower score than another image."""
    return float(mannwhitneyu(others, members).statistic / (len(others) * len(members)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("artifact", "data", "--photographs"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    card, splits = ModelCard.load(options.artifact), discover(options.data)
    model = onnx.load(options.artifact / ONNX_FILE)
    plain = onnx.load(options.artifact / ONNX_FILE)
    del plain.graph.node[:], plain.graph.output[1:]
    plain.graph.node.extend(node for node in model.graph.node if not node.output[0].startswith("ood"))
    last = [node.input[0] for node in plain.graph.node if node.op_type in ("Conv", "Gemm")][-1]
    model.graph.output.append(helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    session, prepare = onnx_session(model.SerializeToString()), Preprocessing.of(card)

    def run(images: Iterable[Image.Image]) -> list[Array]:
        found = [session.run(["logits", last, OOD_OUTPUT], {"image": prepare(image)[None]}) for image in images]
        logits, features, scores = (np.concatenate(parts).astype(np.float64) for parts in zip(*found, strict=True))
        return [logits, features.reshape(*features.shape[:2], -1).mean(axis=2), scores]

    def read(paths: Iterable[Path]) -> list[Array]:
        return run(decode(path.read_bytes(), target_size=card.resize_size) for path in paths)

    def files(name: str, *, known: bool) -> list[Path]:
        one = splits.splits[name]
        return [one.paths[i] for i, of in enumerate(one.targets) if (splits.labels[of] in card.labels) == known]

    train, members = files("train", known=True), read(files("test", known=True))
    _, fitted, _ = read(train[index] for index in fair_order(len(train))[:TRAINING_IMAGES])
    sets = {of: run(draw(np.random.default_rng([7, i])) for i in range(DRAWN)) for of, draw in FAR.items()}
    if near := files("test", known=False) + files("valid", known=False):
        sets["near classes"] = read(near)
    if options.photographs:
        sets["photographs"] = read(sorted(options.photographs.glob("*.jpg")))

    unit = fitted / np.linalg.norm(fitted, axis=1, keepdims=True)
    scores: dict[str, Callable[..., Array]] = {
        "energy": lambda logits, *_: -np.logaddexp.reduce(logits, axis=1),
        "nearest neighbour, last layer": lambda _, own, __: -(own @ unit.T).max(1) / np.linalg.norm(own, axis=1),
        "the artifact's score": lambda *found: found[2],
    }
    print(f"{card.architecture}, {card.precision}, {len(card.labels)} classes, {len(members[0])} members")
    print("| AUROC | " + " | ".join(f"{of} ({len(found[0])})" for of, found in sets.items()) + " |")
    print("|---" * (len(sets) + 1) + "|")
    for name, score in scores.items():
        values = [auroc(score(*members), score(*found)) for found in sets.values()]
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    print("| called known | " + " | ".join(f"{(found[2] <= 1).mean():.0%}" for found in sets.values()) + " |")
    print(f"members called known: {(members[2] <= 1).mean():.1%}")

    image = files("test", known=True)[0].read_bytes()
    sessions = [onnx_session(graph) for graph in (plain.SerializeToString(), options.artifact / ONNX_FILE)]

    def milliseconds(one: onnxruntime.InferenceSession) -> float:
        started = time.thread_time()
        one.run(None, {"image": prepare(decode(image, target_size=card.resize_size))[None]})
        return 1000 * (time.thread_time() - started)

    before, after = np.median([[milliseconds(one) for one in sessions] for _ in range(RUNS)], axis=0)
    print(f"decoding and network: {before:.3f} ms without the score, {after:.3f} with it, ratio {after / before:.3f}")


if __name__ == "__main__":
    main()
