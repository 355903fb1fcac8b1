"""The model artifact's card (`model.json`): what a trained model is, in words that both people and programs read.

An artifact is a folder, and the `model.tar.gz` made from it. Everything that serves, packages or describes a model
reads its card through `ModelCard`, so that a damaged artifact is refused in one place, with every fault named at
once. Standard library only: the command line imports this module.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = 1
CARD_FILE = "model.json"
ONNX_FILE = "model.onnx"
WEIGHTS_FILE = "weights.pt"
PRECISIONS = ("fp32", "int8")
INTERPOLATIONS = ("bilinear", "bicubic")
MAX_INPUT_SIZE = 4096


class ArtifactError(Exception):
    """The model artifact is missing, damaged or does not fit this program; the message is meant for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What `model.json` says about a model.

    Attributes
    ----------
    name
        The model's name, shown with every response.
    version
        `sha256:` and the digest of `model.onnx`: two artifacts with the same version give the same predictions. Of
        `weights.pt` in an artifact without graph, whose network could not be exported.
    architecture
        torchvision's name of the network, or "resnet9".
    labels, display_labels
        One per class in the order of the network's outputs: the data set's folder names, and as people read them.
    input_size, resize_size
        Pixels: the shorter side is resized to `resize_size`; the network sees the centre of `input_size`.
    mean, std
        Per channel (red, green, blue) of pixel values in 0…1.
    interpolation
        How images are resized, one of `INTERPOLATIONS`.
    temperature
        Logits are divided by it before the softmax.
    precision, quantization
        The arithmetic of `model.onnx`, and what int8 costs and gains; empty where int8 was not considered.
    metrics, training_job, code_revision, dataset
        Where the model came from and how good it was then; no program acts on them.
    """

    name: str
    version: str
    architecture: str
    labels: tuple[str, ...]
    display_labels: tuple[str, ...]
    input_size: int
    resize_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"
    temperature: float = 1.0
    precision: str = "fp32"
    quantization: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    training_job: str | None = None
    code_revision: str | None = None
    dataset: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {_shown(getattr(self, name))}; it must be {kind.allowed}"
            for name, kind in _KINDS.items()
            if not kind.admits(getattr(self, name))
        ]
        if not faults:
            rules = {
                "labels holds the same label twice": len(set(self.labels)) == len(self.labels),
                "labels and display_labels must be of the same length": len(self.labels) == len(self.display_labels),
                "resize_size must not be smaller than input_size": self.resize_size >= self.input_size,
            }
            faults = [rule for rule, holds in rules.items() if not holds]
        if faults:
            raise ArtifactError("; ".join(faults))
        for name in ("labels", "display_labels", "mean", "std"):  # lists come from JSON; a frozen card holds tuples
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @classmethod
    def load(cls, model_dir: Path) -> ModelCard:
        """Read and check `model.json` in an artifact's folder, or raise ArtifactError."""
        path = model_dir / CARD_FILE
        try:
            return cls._from_document(json.loads(path.read_bytes()))
        except FileNotFoundError:
            raise ArtifactError(
                f"There is no {CARD_FILE} in {model_dir}: this is not a model artifact, or it was not unpacked there."
            ) from None
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from None
        except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
            raise ArtifactError(f"{path} is not valid JSON: {error}.") from None
        except ArtifactError as error:
            raise ArtifactError(f"{path} is not a valid model card: {error}.") from None

    def save(self, model_dir: Path) -> Path:
        """Write `model.json` into an artifact's folder; the same card always gives the same bytes."""
        path = model_dir / CARD_FILE
        document = {"format": FORMAT, **dataclasses.asdict(self)}
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
        return path

    @classmethod
    def _from_document(cls, document: object) -> ModelCard:
        if not isinstance(document, dict):
            raise ArtifactError(f"it holds {_shown(document)}; it must be an object of keys and values")
        form = document.pop("format", None)
        if form != FORMAT:
            raise ArtifactError(f"format is {_shown(form)}; this program reads format {FORMAT}")
        document.setdefault("interpolation", INTERPOLATIONS[0])  # cards of earlier versions do not name it
        faults = [f"{name} is missing" for name in _KINDS if name not in document]
        faults += [f"{_shown(name)} is not a key of format {FORMAT}" for name in document if name not in _KINDS]
        if faults:
            raise ArtifactError("; ".join(faults))
        return cls(**document)


def file_version(path: Path) -> str:
    """Return the version that a file's bytes give it: `sha256:` and the digest in hexadecimal."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def verify_files(model_dir: Path) -> ModelCard:
    """Check that an artifact's folder holds an intact model: a valid card, both networks, and the graph it names."""
    card = ModelCard.load(model_dir)
    missing = [name for name in (ONNX_FILE, WEIGHTS_FILE) if not (model_dir / name).is_file()]
    if missing:
        raise ArtifactError(
            f"The model artifact in {model_dir} has no {' and no '.join(missing)}: it is incomplete. "
            + 'It has no graph to serve; its metrics.json says under "export" whether it could not be exported.'
            * (ONNX_FILE in missing)
        )
    try:
        found = file_version(model_dir / ONNX_FILE)
    except OSError as error:
        raise ArtifactError(f"{model_dir / ONNX_FILE} cannot be read: {error.strerror}.") from None
    if found != card.version:
        raise ArtifactError(
            f"{model_dir / ONNX_FILE} is damaged or belongs to another model: "
            f"{CARD_FILE} names {card.version}, the file is {found}."
        )
    return card


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class _Kind(NamedTuple):
    allowed: str
    admits: Callable[[Any], bool]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: object, above: float = -math.inf) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > above


def _are(values: object, admits: Callable[[Any], bool], *, least: int, most: float = math.inf) -> bool:
    return isinstance(values, list | tuple) and least <= len(values) <= most and all(map(admits, values))


_NAME = _Kind("a text that is not empty", _is_text)
_NOTE = _Kind("a text or null", lambda value: value is None or _is_text(value))
_LABELS = _Kind("a list of at least two texts", lambda value: _are(value, _is_text, least=2))
_SIZE = _Kind(
    f"a whole number of pixels from 1 to {MAX_INPUT_SIZE}",
    lambda value: isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_INPUT_SIZE,
)
_OBJECT = _Kind("an object", lambda value: isinstance(value, dict))
_KINDS: dict[str, _Kind] = {
    "name": _NAME,
    "version": _Kind(
        "'sha256:' and 64 hexadecimal digits",
        lambda value: isinstance(value, str) and re.fullmatch("sha256:[0-9a-f]{64}", value) is not None,
    ),
    "architecture": _Kind("the name of a torchvision network", _is_text),
    "labels": _LABELS,
    "display_labels": _LABELS,
    "input_size": _SIZE,
    "resize_size": _SIZE,
    "mean": _Kind("three numbers", lambda value: _are(value, _is_number, least=3, most=3)),
    "std": _Kind("three numbers above 0", lambda value: _are(value, lambda one: _is_number(one, 0), least=3, most=3)),
    "interpolation": _Kind(f"one of {', '.join(INTERPOLATIONS)}", lambda value: value in INTERPOLATIONS),
    "temperature": _Kind("a number above 0", lambda value: _is_number(value, 0)),
    "precision": _Kind(f"one of {', '.join(PRECISIONS)}", lambda value: value in PRECISIONS),
    "quantization": _OBJECT,
    "metrics": _OBJECT,
    "training_job": _NOTE,
    "code_revision": _NOTE,
    "dataset": _OBJECT,
}
