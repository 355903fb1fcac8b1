"""Networks by name, torchvision's and one of ours, with a classifier for our classes.

This is also the only place that imports torchvision, because that import may need help: see `torchvision_models`.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from .artifact import file_version
from .resnet9 import resnet9
from .transforms import Preprocessing

# What resnet9 is made for.
_RESNET9_INPUT = Preprocessing(input_size=64, resize_size=72)

# These two return a tuple of three outputs while they train, unless told not to build the auxiliary classifiers. And
# their published weights were trained with another normalisation, which they turn ImageNet's into when told to.
_EXTRA_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True, "transform_input": True},
    "inception_v3": {"aux_logits": False, "init_weights": True, "transform_input": True},
}


class NetworkError(ValueError):
    """An unknown architecture, or weights that do not fit it. The message is for a person."""


@functools.cache
def torchvision_models() -> ModuleType:
    """Import `torchvision.models`, also beside a torch that torchvision was not built for.

    The torchvision that PyPI serves is linked against the CUDA build of torch. Beside a CPU-only torch its operators
    `nms` and `qnms` are missing, and the import dies when it describes them to torch. Declaring their schemas is
    enough: no classification network calls them.
    """
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    # What the failed attempt left behind believes that there are no operators; start again from nothing.
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared_operators.append(library)
    return importlib.import_module("torchvision.models")


# torch forgets the declarations of a library that is garbage-collected.
_declared_operators: list[torch.library.Library] = []


def architectures() -> list[str]:
    """Return the names that `build` takes: our "resnet9" and torchvision's classification networks."""
    models = torchvision_models()
    return ["resnet9", *models.list_models(module=models)]


def published(architecture: str) -> Any:
    """Return torchvision's enumeration of the weights of one of its networks; raise NetworkError for other names."""
    known = architectures()
    if architecture == "resnet9":
        raise NetworkError(
            "nobody publishes weights of resnet9; name a file of weights, or start without: --weights none"
        )
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=3) or known[:3]
        raise NetworkError(
            f"unknown architecture {architecture!r}; did you mean {' or '.join(near)}? "
            "resnet9 and all of torchvision's classification networks are allowed."
        )
    return torchvision_models().get_model_weights(architecture)


def made_for(architecture: str, weights: Path | None = None) -> Preprocessing:
    """Return the preprocessing that a network is published with.

    `weights` may be a file: torchvision publishes weights of one network for several sizes, and names each file by the
    beginning of its hash. Other weights count as the best published ones, and so do random ones.
    """
    if architecture == "resnet9":
        return _RESNET9_INPUT
    entry = (entries := published(architecture)).DEFAULT
    if weights is not None:
        digest = file_version(weights).removeprefix("sha256:")
        hashes = {found[1]: each for each in entries if (found := torch.hub.HASH_REGEX.search(each.url))}
        entry = next((each for beginning, each in hashes.items() if digest.startswith(beginning)), entry)
    transforms = entry.transforms()
    (input_size,), (resize_size,) = transforms.crop_size, transforms.resize_size
    return Preprocessing(
        input_size, resize_size, tuple(transforms.mean), tuple(transforms.std), transforms.interpolation.value
    )


def build(
    architecture: str, classes: int, *, weights: Path | None = None, input_size: int | None = None
) -> torch.nn.Module:
    """Make a network in training mode: float32 [N, 3, H, W] in, logits float32 [N, classes] out.

    Parameters
    ----------
    architecture
        One of `architectures()`.
    classes
        Number of outputs.
    weights
        A plain state dictionary to start from, as torchvision publishes them. A last layer of another number of
        classes is left out and stays random. Without it all weights are random.
    input_size
        Side of the images in pixels, without it what the network is made for. Only Vision Transformers depend on it:
        their weights for another size are interpolated, as far as they belong to positions (Dosovitskiy et al. 2021).

    Raises
    ------
    NetworkError
        For a name that torchvision does not know, weights that belong to another network or a size that it cannot have.
    """
    if architecture == "resnet9":  # without torchvision, whose import takes a second
        network: torch.nn.Module = resnet9(classes)
    else:
        published(architecture)  # refuses other names
        extra = _EXTRA_ARGUMENTS.get(architecture, {})
        if architecture.startswith("vit_"):
            extra = {"image_size": input_size or made_for(architecture).input_size}
        try:
            network = torchvision_models().get_model(architecture, weights=None, num_classes=classes, **extra)
        except AssertionError as error:
            raise _wrong_size(architecture, extra["image_size"], error) from error
    if weights is not None:
        _load_weights(network, architecture, weights)
    return network


def classifier_name(network: torch.nn.Module) -> str:
    """Return the name of the layer that makes the logits, such as "fc": the last one with parameters."""
    return list(network.state_dict())[-1].rpartition(".")[0]


def check_input_size(network: torch.nn.Module, architecture: str, input_size: int) -> None:
    """Try a network on images of one size; raise NetworkError when it does not take them."""
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            network(torch.zeros(2, 3, input_size, input_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise _wrong_size(architecture, input_size, error) from error
    finally:
        network.train(training)


def _wrong_size(architecture: str, input_size: int, error: Exception) -> NetworkError:
    made = made_for(architecture).input_size
    return NetworkError(
        f"{architecture} does not take images of {input_size} x {input_size} pixels ({error}); it is made for "
        f"{made} x {made}: leave out --input-size"
    )


def _load_weights(network: torch.nn.Module, architecture: str, path: Path) -> None:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise NetworkError(f"no weights at {path}") from None
    except Exception as error:  # torch.load raises a different class for every kind of wrong file
        raise NetworkError(f"{path} is not a plain state dictionary: {type(error).__name__}") from error
    own = network.state_dict()
    names = loaded if isinstance(loaded, dict) else ()
    # The published DenseNets have names from before dots had a meaning in them.
    loaded = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2", str(name)): loaded[name] for name in names}
    if not loaded.keys() & own.keys():
        raise NetworkError(
            f"{path} holds no weights of a {architecture}: it begins with {next(iter(loaded), None)!r}, and not with "
            f"{next(iter(own))!r}. It takes what torch.save(network.state_dict(), FILE) writes: no whole checkpoint, "
            "and no network inside another, such as DataParallel"
        )
    if "encoder.pos_embedding" in own and "encoder.pos_embedding" in loaded:
        interpolate = torchvision_models().vision_transformer.interpolate_embeddings
        with contextlib.suppress(ValueError):  # what has another form does not fit, as is said below
            loaded = interpolate(network.image_size, network.patch_size, loaded)
    fitting = {
        name: value
        for name, value in loaded.items()
        if name in own and isinstance(value, torch.Tensor) and value.shape == own[name].shape
    }
    # The head is for other classes, and torch had no counter of batches when some networks were published.
    free = (classifier_name(network) + ".", "num_batches_tracked")
    unfit = sorted(name for name in own.keys() - fitting.keys() if not name.startswith(free[0]) and free[1] not in name)
    if unfit:
        raise NetworkError(
            f"{path} does not fit a {architecture}: {len(unfit)} tensors differ, the first is {unfit[0]}"
        )
    own.update(fitting)  # and keep its versions, without which MNASNet refuses to load
    network.load_state_dict(own)
