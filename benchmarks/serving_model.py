"""What is served: images, and a network with random weights that tells them apart, exported as every model is."""

from __future__ import annotations

import dataclasses
import io
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from benchmarks.drawn import draw_star
from benchmarks.serving_systems import ModelError, Served
from model.core.artifact import ONNX_FILE, WEIGHTS_FILE, ModelCard, file_version
from model.core.decoding import decode
from model.core.network import build, check_input_size, made_for
from model.core.packaging import add_serving_program
from model.training.artifact.changes import Limits
from model.training.artifact.export import check_export, export_onnx
from model.training.artifact.precision import Decision, choose_precision
from model.training.data.dataset import display_labels
from model.training.data.decoded import Images

CLASSES = 133
IMAGES = 24
SIZE = (500, 375)
IMAGE_BYTES = 124_000
SEED = 4
# A trained network's logits are of the order of 10.
_OWN_LOGIT = 10.0
# Standard deviation of a pixel's brightness, of 255.
_GRAIN = 6.0
# With random weights there is no accuracy to lose, so the guard is opened as wide as it goes.
_ANY = Limits(max_accuracy_loss=1.0, min_agreement=0.0)


def draw_images() -> list[bytes]:
    """Draw JPEG files of 500 x 375 pixels and nearly 124 KB each, as photographs of that size have."""
    images = []
    for index in range(IMAGES):
        random = np.random.default_rng([SEED, index])
        pixels = np.asarray(draw_star(index, random, SIZE), np.float32)
        # A camera's grain, which is most of what a good JPEG stores, and what its decoder spends its time on.
        grainy = pixels + random.normal(0, _GRAIN, (*pixels.shape[:2], 1))
        images.append(_encode(Image.fromarray(grainy.clip(0, 255).astype(np.uint8))))
    return images


def _encode(image: Image.Image) -> bytes:
    for quality in range(100, 0, -1):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= IMAGE_BYTES:
            break
    return buffer.getvalue()


def read_images(folder: Path) -> list[bytes]:
    """Read the JPEG files of a folder; a ModelError when there are none, or more than there are classes."""
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not 1 <= len(paths) <= CLASSES:
        raise ModelError(f"{folder} has {len(paths)} JPEG images; 1 to {CLASSES} are needed.")
    return [path.read_bytes() for path in paths]


def make_artifacts(
    folder: Path, architecture: str, input_size: int, images: list[bytes]
) -> tuple[Served, Served | None, Decision]:
    """Make the artifacts of a network in a folder: fp32, int8 where it can be quantised; and how that was decided."""
    preprocessing = made_for(architecture).at(input_size)
    decoded = [decode(image, target_size=preprocessing.resize_size) for image in images]
    pixels = np.stack([preprocessing.crop(image) for image in decoded])
    inputs = preprocessing.normalise(pixels)
    network = distinguishing_network(architecture, inputs)
    fp32 = folder / "fp32"
    shutil.rmtree(fp32, ignore_errors=True)
    fp32.mkdir(parents=True)
    torch.save(network.state_dict(), fp32 / WEIGHTS_FILE)
    export_onnx(network, fp32 / ONNX_FILE, 3, input_size, input_size)
    check_export(network, fp32 / ONNX_FILE, inputs)
    labels = tuple(f"{index + 1:03d}.Class_{index + 1}" for index in range(CLASSES))
    card = ModelCard(
        name=f"{architecture}-benchmark",
        version=file_version(fp32 / ONNX_FILE),
        architecture=architecture,
        labels=labels,
        display_labels=tuple(display_labels(labels)),
        **dataclasses.asdict(preprocessing),
    )
    card.save(fp32)
    add_serving_program(fp32)

    int8 = folder / "int8"
    shutil.rmtree(int8, ignore_errors=True)
    shutil.copytree(fp32, int8)
    aspects = np.array([image.width / image.height for image in decoded], np.float32)
    data = Images(pixels, aspects, np.arange(len(pixels), dtype=np.int64))
    decision = choose_precision(
        int8 / ONNX_FILE,
        calibration=data,
        valid=data,
        training=data,
        preprocessing=preprocessing,
        limits=_ANY,
        threads=1,
        should_stop=lambda: False,
    )
    served = _served(fp32, card, images)
    if decision.precision != "int8":
        shutil.rmtree(int8)
        return served, None, decision
    quantised = dataclasses.replace(card, version=file_version(int8 / ONNX_FILE), precision="int8")
    quantised.save(int8)
    return served, _served(int8, quantised, images), decision


def _served(folder: Path, card: ModelCard, images: list[bytes]) -> Served:
    served = Served.of(folder, card.precision, images)
    # int8 costs a random network more than it costs a trained one, so not every image keeps a class of its own.
    if 2 * len({one.label for one in served.expected}) < len(images):
        raise ModelError(f"The {card.precision} network cannot tell the images apart; take others with --images.")
    return served


def distinguishing_network(architecture: str, inputs: npt.NDArray[np.float32]) -> nn.Module:
    """Make a network whose weights are random but whose answers depend on the image.

    Plain random weights give every image nearly the same answer, by which a server that never runs the network
    could not be told from one that does. So batch normalisation takes its statistics from the images, and the last
    layer has for each image one class, which points from the mean image's features to this image's. The nth input, of
    float32 [N, 3, S, S] and at most `CLASSES`, has the nth class.
    """
    torch.manual_seed(SEED)
    network = build(architecture, CLASSES, input_size=inputs.shape[-1]).eval()
    check_input_size(network, architecture, inputs.shape[-1])
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear or linear[-1].out_features != CLASSES:
        raise ModelError(f"{architecture} does not end in a linear layer; take another --network.")
    head = linear[-1]
    features: list[torch.Tensor] = []
    with torch.inference_mode():
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all that is seen, here one batch
            norm.train()
        network(torch.from_numpy(inputs))
        network.eval()
        hook = head.register_forward_pre_hook(lambda _, arguments: features.append(arguments[0]))
        network(torch.from_numpy(inputs))
        hook.remove()
        mean = features[0].mean(dim=0)
        centred = features[0] - mean
        length = centred.norm(dim=1, keepdim=True)
        rows = torch.cat([centred / length, nn.functional.normalize(torch.randn(CLASSES - len(inputs), len(mean)))])
        head.weight.copy_(rows * (_OWN_LOGIT / length.mean()))
        if head.bias is not None:
            head.bias.copy_(-head.weight @ mean)
    return network
