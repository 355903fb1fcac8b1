"""The out-of-distribution score: an output of the graph that tells images of the model's classes from others.

Two signs are added, each of mean 0 and variance 1 on validation images. One is the energy of the logits (Liu et al.
2020), which is high where no class fits. The other is how unusual the channels of the middle layer are: the logarithm
of their Mahalanobis distance (Lee et al. 2018) from the training images, whatever their class.
docs/measurements/out-of-distribution.md compares other methods, and says why the last layer's features are too late.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from ...core.predictor import OOD_OUTPUT, onnx_session
from ...core.transforms import Preprocessing
from ..data.decoded import Images
from ..loop.evaluation import fair_order, graph_outputs
from ..whole_files import write_whole

log = logging.getLogger(__name__)

# Share of the validation images that are called known; with 0.99 half as many photographs are told from drawings.
KNOWN = 0.95
# Of each split, at most.
FITTED_IMAGES = 1000
# The distance is measured in so many directions at most. To the variance of each this share of the largest is added,
# without which directions of no variance would outweigh all others.
_DIRECTIONS = 128
_RIDGE = 1e-4
_SMALLEST = np.float32(1e-12)
_LEAST_SPREAD = 1e-5  # of a sign: what is smaller is rounding in float32

Array = npt.NDArray[np.floating[Any]]


def add_fitted(model: onnx.ModelProto, features: str, train: Array, valid: Array, logits: Array) -> None:
    """Add the score to a graph, fitted to these features of training and validation images and the latter's logits."""
    mean = train.mean(axis=0, dtype=np.float64)
    _, deviations, directions = np.linalg.svd(train - mean, full_matrices=False)
    variances = deviations**2 / len(train)
    kept = min(_DIRECTIONS, max(1, len(train) // 4))
    whitening = directions[:kept].T / np.sqrt(variances[:kept] + _RIDGE * variances[0] + _SMALLEST)
    lengths = np.log(np.maximum((((valid - mean) @ whitening) ** 2).sum(axis=1), _SMALLEST))
    evidence = np.logaddexp.reduce(logits.astype(np.float64), axis=1)
    far, sure = lengths.std(), evidence.std()
    if not min(far, sure) > _LEAST_SPREAD:  # written so that a NaN fails, too
        raise ValueError("it does not tell the validation images apart")
    constant = evidence.mean() / sure - lengths.mean() / far
    # The quantile of which so many other members are below, too, however few the images are (Weibull 1939).
    threshold = np.quantile(lengths / far - evidence / sure + constant, KNOWN, method="weibull")

    white = _add(model, "Gemm", features, whitening, -mean @ whitening)
    length = _add(model, "Max", _add(model, "ReduceSumSquare", white, axes=[1], keepdims=0), _SMALLEST)
    certainty = _add(model, "ReduceLogSumExp", "logits", axes=[1], keepdims=0)
    signs = _add(model, "Sub", _add(model, "Div", _add(model, "Log", length), far), _add(model, "Div", certainty, sure))
    # Above 0 everywhere, and nearly the sum itself where that is large.
    positive = _add(model, "Softplus", _add(model, "Add", signs, constant))
    _add(model, "Div", positive, np.logaddexp(0, threshold), output=OOD_OUTPUT)
    model.graph.output.append(helper.make_tensor_value_info(OOD_OUTPUT, onnx.TensorProto.FLOAT, ["batch"]))


def with_features(path: Path) -> tuple[onnx.ModelProto, str]:
    """Load a graph and add the mean of each channel of what reaches the middle layer; return also their name."""
    model = onnx.load(path)
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    # Other matrices than the last one may have a row for each part of an image, as in transformers.
    inner = list(dict.fromkeys(node.input[0] for node in layers if node.op_type == "Conv" or node is layers[-1]))[1:]
    if not inner:
        raise ValueError("the network has no layer between the first and the last")
    channels = _add(model, "Reshape", inner[(len(inner) - 1) // 2], np.array([0, 0, -1]))
    return model, _add(model, "ReduceMean", channels, axes=[2], keepdims=0)


def _add(model: onnx.ModelProto, kind: str, *inputs: Any, output: str = "", **attributes: Any) -> str:
    """Append a node; return its output's name. Inputs are names or constants, which become float32 unless int64."""
    graph = model.graph
    output = output or f"ood/{kind}_{len(graph.node)}"
    names = [value if isinstance(value, str) else f"{output}/{index}" for index, value in enumerate(inputs)]
    for name, value in zip(names, inputs, strict=True):
        if not isinstance(value, str):
            array = np.asarray(value)
            array = array if array.dtype == np.int64 else array.astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(array, name))
    graph.node.append(helper.make_node(kind, names, [output], output, **attributes))
    return output


def add_ood_score(
    path: Path,
    *,
    train: Images,
    valid: Images,
    preprocessing: Preprocessing,
    threads: int,
    should_stop: Callable[[], bool],
) -> dict[str, Any] | None:
    """Add the score to a graph, fitted to images of both splits; return what `metrics.json` has of it.

    None is returned when it was stopped, or the network has no fitting features; the graph is left alone then.
    """
    started = time.perf_counter()
    try:
        model, features = with_features(path)
        model.graph.output.append(helper.make_tensor_value_info(features, onnx.TensorProto.FLOAT, ["batch", None]))
        session = onnx_session(model.SerializeToString())
        (inner, _), (inner_valid, logits) = (
            graph_outputs(
                session, [features, "logits"], preprocessing, images.pixels, fair_order(len(images))[:FITTED_IMAGES],
                threads=threads, should_stop=should_stop,
            )
            for images in (train, valid)
        )  # fmt: skip
        if should_stop():
            return None
        model, features = with_features(path)
        add_fitted(model, features, inner, inner_valid, logits)
        onnx.checker.check_model(model, full_check=True)
        write_whole(path, model.SerializeToString())
    except Exception as error:  # whatever the graph makes it stumble over: there is a model that works
        log.warning("no out-of-distribution score: %s", error)
        return None
    counts = {"training_images": len(inner), "validation_images": len(logits)}
    return {"threshold_share": KNOWN, **counts, "seconds": time.perf_counter() - started, "test_known": None}
