"""Bytes in, scored labels out, by ONNX Runtime. The server, the packaging's check and notebooks use it."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from .artifact import ONNX_FILE, ArtifactError, ModelCard
from .decoding import MAX_PIXELS, decode
from .transforms import Preprocessing

if TYPE_CHECKING:
    import onnxruntime

FloatArray = npt.NDArray[np.float32]

# The network as a function: normalised images, float32 [N, 3, S, S], to logits, float32 [N, C], and the scores of
# `OOD_OUTPUT`, float32 [N], where the network has them.
Engine = Callable[[FloatArray], list[FloatArray]]

# The output of a graph with the scores. Above 1 an image is probably of none of the labels.
OOD_OUTPUT = "ood_score"

_CPU_INFORMATION = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Prediction:
    """The likeliest labels with their probabilities, the likeliest first, and every label's in the card's order."""

    ranked: list[tuple[str, float]]
    scores: list[float]
    ood_score: float | None = None  # of networks that have it


class Outputs(NamedTuple):
    """Of N images: probabilities, float64 [N, C]; out-of-distribution scores, float32 [N], if the network has them."""

    probabilities: npt.NDArray[np.float64]
    ood_scores: FloatArray | None = None


class Predictor:
    """A loaded model; one predictor serves one thread."""

    def __init__(self, card: ModelCard, engine: Engine, *, max_pixels: int = MAX_PIXELS) -> None:
        self.card = card
        self._engine = engine
        self._max_pixels = max_pixels
        self._preprocess = Preprocessing.of(card)

    @classmethod
    def load(cls, model_dir: Path, threads: int = 1, *, max_pixels: int = MAX_PIXELS) -> Self:
        """Load a model artifact's folder and run the network once.

        Parameters
        ----------
        model_dir
            The folder with `model.json` and the network.
        threads
            CPU threads of one prediction. One, in as many processes as there are vCPUs, gives the highest throughput.
        max_pixels
            The largest JPEG that is decoded, width x height.

        Raises
        ------
        ArtifactError
            If the artifact is damaged, or its network does not do what its card says.
        """
        predictor = cls(ModelCard.load(model_dir), _onnx_engine(model_dir, threads), max_pixels=max_pixels)
        # The first run allocates and optimises; and a network that cannot run must not be reported as loaded.
        predictor.check()
        return predictor

    def check(self) -> None:
        """Run the network once; raise ArtifactError if it does not run or does not fit the model card."""
        try:
            self.run(np.zeros((1, 3, self.card.input_size, self.card.input_size), np.float32))
        except ArtifactError:
            raise
        except Exception as error:  # the engines raise classes of their own
            raise ArtifactError(f"The network of {self.card.name} loads but does not run: {error}") from error

    def predict(self, data: bytes, top_k: int = 5) -> Prediction:
        """Classify one image from its file's bytes and rank `top_k` labels, or all where there are fewer."""
        return self.rank(self.run(self.prepare(data)[np.newaxis]), top_k)

    def prepare(self, data: bytes) -> FloatArray:
        """Decode an image and turn it into the network's input, float32 [3, S, S]; see `decode` for what it refuses."""
        return self._preprocess(decode(data, target_size=self.card.resize_size, max_pixels=self._max_pixels))

    def rank(self, outputs: Outputs, top_k: int) -> Prediction:
        """Return what the outputs for one image say: the `top_k` likeliest labels, and all of them."""
        probabilities, scores = outputs.probabilities[0], outputs.ood_scores
        best = np.argsort(-probabilities, kind="stable")[:top_k]  # ties keep the order of the labels
        return Prediction(
            ranked=[(self.card.display_labels[index], float(probabilities[index])) for index in best],
            scores=probabilities.tolist(),
            ood_score=None if scores is None else float(scores[0]),
        )

    def run(self, images: FloatArray) -> Outputs:
        """Run the network on preprocessed images, float32 [N, 3, S, S]; raise ArtifactError for what is no output."""
        logits, *scores = self._engine(images)
        if logits.shape != (len(images), len(self.card.labels)):
            raise ArtifactError(
                f"The network gives an output of shape {list(logits.shape)} for {len(images)} images, "
                f"but the model card has {len(self.card.labels)} labels."
            )
        if not np.isfinite(logits).all():
            raise ArtifactError(
                "The network's output is not finite: its weights are damaged, or its training diverged."
            )
        for found in scores:
            if (
                found.shape != (len(images),)
                or found.dtype != np.float32
                or not (np.isfinite(found) & (found >= 0)).all()
            ):
                raise ArtifactError(
                    f"The network's output {OOD_OUTPUT} must be one number for each image, finite and at least 0."
                )
        return Outputs(softmax(logits, self.card.temperature), *scores)


def softmax(logits: npt.NDArray[np.floating[Any]], temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Return the classes' probabilities, float64 [N, C], for logits [N, C] that are divided by `temperature` first."""
    scaled = logits.astype(np.float64) / temperature
    # The maximum keeps exp() from overflowing.
    exponentials: npt.NDArray[np.float64] = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    exponentials /= exponentials.sum(axis=1, keepdims=True)
    return exponentials


def onnx_session(graph: Path | bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """Open a graph, a file or its content, as it is served; what measures a graph must not run it in any other way."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads that spin take the CPU from the other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if _int8_overflows():
        # An exact multiplication of int8 by uint8 instead; with VNNI it changes no answer and takes 1.7 times as long.
        options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3  # errors; warnings are about the graph's optimisation and help nobody here
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@functools.cache
def _int8_overflows() -> bool:
    """Return whether int8 by uint8 would give other answers than those that were measured: on x86 without VNNI.

    ONNX Runtime sums pairs of products in 16 bits there, which may not hold them.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        return "vnni" not in _CPU_INFORMATION.read_text(encoding="utf-8")
    except OSError:  # not Linux: exact is never wrong, only slower
        return True


def _onnx_engine(model_dir: Path, threads: int) -> Engine:
    path = model_dir / ONNX_FILE
    if not path.is_file():
        raise ArtifactError(f"The model artifact in {model_dir} has no {ONNX_FILE}.")
    try:
        session = onnx_session(path, threads)
    except Exception as error:  # every fault has a class of its own
        raise ArtifactError(f"{path} is not a network that ONNX Runtime can load: {error}") from error
    inputs, outputs = ([node.name for node in nodes] for nodes in (session.get_inputs(), session.get_outputs()))
    if inputs != ["image"] or "logits" not in outputs:
        raise ArtifactError(f'{path} must have the one input "image" and an output "logits".')
    names = ["logits", OOD_OUTPUT][: 1 + (OOD_OUTPUT in outputs)]
    return lambda images: session.run(names, {"image": images})
