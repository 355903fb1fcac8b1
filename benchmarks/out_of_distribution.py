"""How well a model tells images of its classes from others, by its own score and by other methods, and what that costs.

    python -m benchmarks.out_of_distribution ARTIFACT DATA [--photographs FOLDER]

ARTIFACT is a folder, DATA a data set. Classes of DATA that the model lacks are near classes: train without them.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper
from PIL import Image
from scipy.stats import mannwhitneyu

from benchmarks.drawn import draw_star
from benchmarks.measuring import interleaved, paired_ratio
from benchmarks.serving_systems import Plan, Served, our_server
from model.core.artifact import ONNX_FILE, ModelCard, file_version
from model.core.decoding import decode
from model.core.predictor import OOD_OUTPUT, onnx_session
from model.core.transforms import Preprocessing
from model.training.data.dataset import discover
from model.training.loop.evaluation import fair_order

Array = npt.NDArray[Any]
SIDE, DRAWN, TRAINING_IMAGES = 200, 60, 1000
IMAGES, ROUNDS, SECONDS = 24, 12, 3

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

    measure_cost(options.artifact, card, plain, [path.read_bytes() for path in files("test", known=True)[:IMAGES]])


def measure_cost(artifact: Path, card: ModelCard, plain: onnx.ModelProto, images: list[bytes]) -> None:
    """Print what a request to the artifact's own server costs with the score, and with a graph without it."""
    plan = Plan(images, clients=(1,), seconds=SECONDS, warm_up_seconds=1, workers=1)
    with tempfile.TemporaryDirectory() as temporary:
        without, log = Path(temporary) / "without", Path(temporary) / "server.log"
        shutil.copytree(artifact, without)
        onnx.save(plain, without / ONNX_FILE)
        dataclasses.replace(card, version=file_version(without / ONNX_FILE)).save(without)
        servers = {
            name: functools.partial(our_server, Served.of(folder, card.precision, images), plan, log)
            for name, folder in (("with", artifact), ("without", without))
        }
        turns = interleaved(servers, ROUNDS)
    for what in ("p50_ms", "cpu_ms"):
        after, before = ([float(turn.loads[1].figures()[what] or 0) for turn in turns[name]] for name in servers)
        print(f"a request, {what}: {np.median(before):.2f} without the score, {np.median(after):.2f} with it", end=", ")
        print(f"ratio {paired_ratio(after, before):.3f}")


if __name__ == "__main__":
    main()
