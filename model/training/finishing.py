"""From a trained network to its artifact, measured: what is written does not depend on how the network was trained."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import platform
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import PIL
import torch

from ..artifact import ONNX_FILE, WEIGHTS_FILE, ModelCard, file_version
from ..metrics import Evaluation
from ..packaging import add_serving_program, write_metrics
from ..transforms import Preprocessing
from .data import DataSet, Fingerprint, Pictures, decode_for_serving, display_labels
from .engine import Fit
from .evaluation import evaluate_artifact
from .export import ExportCheck, check_export, export_onnx
from .quantize import CALIBRATION_PICTURES, Decision, Limits, choose_precision

log = logging.getLogger(__name__)

# The comparison of the exported graph with the network needs some pictures, not all.
EXPORT_CHECK_PICTURES = 256


@dataclass(frozen=True)
class Trained:
    """A network after its training, and what it was trained on.

    Attributes
    ----------
    network : torch.nn.Module
        With the weights of the best epoch.
    outcome : Fit
        At least one epoch is finished.
    data_set : DataSet
    identity : Fingerprint
        Of the data set.
    preprocessing : Preprocessing
        What the server does to a picture.
    valid : Pictures
        The validation split, as the server sees it.
    skipped : dict of str to str
        Training pictures that could not be read, with the reasons.
    """

    network: torch.nn.Module
    outcome: Fit
    data_set: DataSet
    identity: Fingerprint
    preprocessing: Preprocessing
    valid: Pictures
    skipped: dict[str, str]


def finish(arguments: argparse.Namespace, trained: Trained, *, started: float, should_stop: Callable[[], bool]) -> None:
    """Write the artifact, choose its precision, and measure it on the test split.

    Parameters
    ----------
    arguments : argparse.Namespace
        From `parse_arguments`.
    trained : Trained
    started : float
        `time.perf_counter()` when the training began.
    should_stop : callable
        True leaves out what is not done yet; the artifact is whole all the same.

    Raises
    ------
    ExportError, ArtifactError, DataSetError, OSError
        With a message for a person.
    """
    data_set, identity, preprocessing, valid = trained.data_set, trained.identity, trained.preprocessing, trained.valid
    outcome = trained.outcome
    assert outcome.best is not None
    model_dir: Path = arguments.model_dir
    model_dir.mkdir(parents=True, exist_ok=True)
    check = _write_network(trained.network, model_dir, preprocessing, valid)
    card = ModelCard(
        name=arguments.model_name or data_set.root.resolve().name,
        version=file_version(model_dir / ONNX_FILE),
        architecture=arguments.architecture,
        labels=data_set.labels,
        display_labels=tuple(display_labels(data_set.labels)),
        **dataclasses.asdict(preprocessing),
        metrics={"valid_accuracy": outcome.best.accuracy, "valid_loss": outcome.best.loss},
        training_job=arguments.job_name,
        code_revision=arguments.code_revision,
        dataset={"fingerprint": identity.digest, "counts": data_set.counts},
    )
    metrics: dict[str, Any] = {
        "labels": list(data_set.labels),
        "epochs": [dataclasses.asdict(epoch) for epoch in outcome.history],
        "best_epoch": outcome.best_epoch,
        "interrupted": outcome.interrupted,
        "images_per_second": _throughput(outcome),
        "valid": _measured(outcome.best),
        "test": None,
        "data_set": {
            "fingerprint": identity.digest,
            "counts": data_set.counts,
            "skipped": trained.skipped | valid.skipped,
            "also_in_training": list(identity.leaked),
        },
        "export": dataclasses.asdict(check),
        "quantization": None,
        "arguments": {
            name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()
        },
        "versions": _versions(),
        "seconds": time.perf_counter() - started,
    }
    # A whole artifact first: whatever happens after this, the training is not lost.
    add_serving_program(model_dir)
    _write_reports(arguments, card, metrics)
    if arguments.precision == "auto" and not should_stop():
        calibration = _calibration_pictures(data_set, preprocessing, trained.skipped, arguments.num_cpus)
        decision = _choose_precision(arguments, calibration, valid, preprocessing, should_stop)
        metrics["quantization"] = dataclasses.asdict(decision)
        metrics["seconds"] = time.perf_counter() - started
        card = _with_precision(card, decision, model_dir)
        _write_reports(arguments, card, metrics)
    if "test" not in data_set.splits or should_stop():
        return
    test, skipped = evaluate_artifact(model_dir, data_set, "test")
    print(test.test_line(), flush=True)  # noqa: T201 - the log is how SageMaker reads metrics
    tested = {"test_accuracy": test.accuracy, "test_loss": test.loss}
    metrics["test"] = _measured(test)
    metrics["data_set"]["skipped"] |= skipped
    metrics["seconds"] = time.perf_counter() - started
    _write_reports(arguments, dataclasses.replace(card, metrics=card.metrics | tested), metrics)


def _write_network(
    network: torch.nn.Module, model_dir: Path, preprocessing: Preprocessing, valid: Pictures
) -> ExportCheck:
    network = network.to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    torch.save(network.state_dict(), model_dir / WEIGHTS_FILE)
    export_onnx(network, model_dir / ONNX_FILE, input_size=preprocessing.input_size)
    images = preprocessing.normalise(valid.pixels[:EXPORT_CHECK_PICTURES])
    return check_export(network, model_dir / ONNX_FILE, images)


def _calibration_pictures(
    data_set: DataSet, preprocessing: Preprocessing, unreadable: Container[str], threads: int
) -> Pictures:
    """Decode training pictures as the server would; the ones that are decoded for training have another shape."""
    split = data_set.splits["train"]
    readable = [pair for pair in split.pictures() if str(pair[0].relative_to(data_set.root)) not in unreadable]
    # They are sorted by class, so that pictures at even distances are a fair share of every class.
    count = min(CALIBRATION_PICTURES, len(readable))
    chosen = [readable[index * len(readable) // count] for index in range(count)]
    sample = dataclasses.replace(
        split, paths=tuple(path for path, _ in chosen), targets=tuple(target for _, target in chosen)
    )
    return decode_for_serving(
        dataclasses.replace(data_set, splits={split.name: sample}), split.name, preprocessing, threads
    )


def _choose_precision(
    arguments: argparse.Namespace,
    calibration: Pictures,
    valid: Pictures,
    preprocessing: Preprocessing,
    should_stop: Callable[[], bool],
) -> Decision:
    decision = choose_precision(
        arguments.model_dir / ONNX_FILE,
        calibration=calibration,
        valid=valid,
        preprocessing=preprocessing,
        limits=Limits(arguments.int8_max_accuracy_loss, arguments.int8_min_agreement),
        should_stop=should_stop,
    )
    log.info("ships as %s after %.1f s: %s", decision.precision, decision.seconds, decision.reason)
    return decision


def _with_precision(card: ModelCard, decision: Decision, model_dir: Path) -> ModelCard:
    metrics = card.metrics
    if decision.precision == "int8" and decision.comparison is not None:  # the figures are those of what ships
        compared = decision.comparison
        metrics = metrics | {"valid_accuracy": compared.int8_accuracy, "valid_loss": compared.int8_loss}
    return dataclasses.replace(
        card,
        version=file_version(model_dir / ONNX_FILE),
        precision=decision.precision,
        quantization=dataclasses.asdict(decision),
        metrics=metrics,
    )


def _write_reports(arguments: argparse.Namespace, card: ModelCard, metrics: dict[str, Any]) -> None:
    card.save(arguments.model_dir)
    arguments.output_data_dir.mkdir(parents=True, exist_ok=True)
    for folder in (arguments.model_dir, arguments.output_data_dir):
        write_metrics(folder, metrics)


def _throughput(outcome: Fit) -> float:
    """Return the pictures per second over all epochs, which is the harmonic mean of the epochs' figures."""
    return len(outcome.history) / sum(1 / epoch.images_per_second for epoch in outcome.history)


def _measured(evaluation: Evaluation) -> dict[str, Any]:
    return dataclasses.asdict(evaluation) | {"per_class_accuracy": evaluation.per_class_accuracy()}


def _versions() -> dict[str, str]:
    modules = {"torch": torch, "onnxruntime": onnxruntime, "numpy": np, "pillow": PIL}
    return {"python": platform.python_version()} | {name: module.__version__ for name, module in modules.items()}
