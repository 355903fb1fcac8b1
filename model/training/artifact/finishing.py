"""From a trained network to its artifact, measured: what is written does not depend on how the network was trained."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
import os
import platform
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...core.artifact import ONNX_FILE, WEIGHTS_FILE, ModelCard, file_version
from ...core.machine import available_vcpus
from ...core.packaging import BEST_FILE, add_serving_program, write_metrics
from ...core.predictor import onnx_session, softmax
from ...core.transforms import Preprocessing
from ..config import TrainingConfig
from ..data.dataset import DataSet, Fingerprint, display_labels
from ..data.decoded import Images, decode_for_serving
from ..loop.calibration import at_temperature, fit_temperature, reliability
from ..loop.evaluation import Answers, evaluate_artifact, graph_logits, worst_mistakes
from ..loop.metrics import print_metrics
from ..loop.state import NOTHING, Fit
from ..report.report import MISTAKES, write_report
from .export import ExportCheck, check_export, export_onnx
from .quantize import CALIBRATION_IMAGES, Limits, choose_precision, cpu_model

log = logging.getLogger(__name__)

# The comparison of the exported graph with the network needs some images, not all.
EXPORT_CHECK_IMAGES = 256
# What the report says of the model; the rest is in the model's card.
REPORTED = (
    "name", "version", "architecture", "display_labels", "input_size", "precision", "training_job", "code_revision",
)  # fmt: skip
# By their packages' names. None is imported for its version: beside some builds of torch, torchvision fails then.
_LIBRARIES = ("torch", "torchvision", "onnxruntime", "numpy", "pillow")


@dataclass(frozen=True)
class Trained:
    """A network after its training, with the weights of the best epoch, and what it was trained on.

    `valid` is the validation split as the server sees it, `skipped` has the training images that could not be read,
    with the reasons.
    """

    network: torch.nn.Module
    data_set: DataSet
    identity: Fingerprint
    preprocessing: Preprocessing
    valid: Images
    outcome: Fit = NOTHING
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)


def finish(config: TrainingConfig, trained: Trained, *, started: float, should_stop: Callable[[], bool]) -> None:
    """Write the artifact, choose its precision, calibrate it, measure it on the test split, and report.

    `started` is `time.perf_counter()` when the training began. `should_stop` leaves out the choice of the precision and
    the test, as far as they are not done yet; the artifact is whole all the same.
    """
    data_set, valid, model_dir = trained.data_set, trained.valid, config.model_dir
    model_dir.mkdir(parents=True, exist_ok=True)
    add_serving_program(model_dir)
    card, metrics = write_model(config, trained, model_dir, started=started)

    def write() -> None:
        config.output_data_dir.mkdir(parents=True, exist_ok=True)
        _write_records(model_dir, card, metrics, started)
        write_metrics(config.output_data_dir, metrics)

    write()  # a whole artifact first: whatever happens after this, the training is not lost
    if config.precision == "auto" and not should_stop():
        decision = choose_precision(
            model_dir / ONNX_FILE,
            calibration=_calibration_images(data_set, trained.preprocessing, trained.skipped, config.num_cpus),
            valid=valid,
            preprocessing=trained.preprocessing,
            limits=Limits(config.int8_max_accuracy_loss, config.int8_min_agreement),
            should_stop=should_stop,
        )
        log.info("ships as %s after %.1f s: %s", decision.precision, decision.seconds, decision.reason)
        metrics["quantization"] = dataclasses.asdict(decision)
        card = dataclasses.replace(
            card,
            version=file_version(model_dir / ONNX_FILE),
            precision=decision.precision,
            quantization=metrics["quantization"],
        )
        write()  # the card must name the graph beside it, whenever the program is killed
    # Of the graph that ships, and so the figures of the validation split are from here on.
    temperature, answers, before = _calibrate(model_dir, trained, config.num_cpus)
    evaluation = answers.evaluation()
    card = dataclasses.replace(
        card, temperature=temperature, metrics={"valid_accuracy": evaluation.accuracy, "valid_loss": evaluation.loss}
    )
    metrics["valid"] = evaluation.recorded()
    metrics["calibration"] = {"temperature": temperature, "valid": _reliability(before, answers), "test": None}
    write()
    if "test" in data_set.splits and not should_stop():
        answers, skipped = evaluate_artifact(model_dir, data_set, "test")
        evaluation = answers.evaluation()
        print_metrics(evaluation.test_line())
        card = dataclasses.replace(
            card, metrics=card.metrics | {"test_accuracy": evaluation.accuracy, "test_loss": evaluation.loss}
        )
        metrics["test"] = evaluation.recorded()
        metrics["calibration"]["test"] = _reliability(at_temperature(answers.probabilities, 1 / temperature), answers)
        metrics["data_set"]["skipped"] |= skipped
    metrics["mistakes"] = worst_mistakes(answers, data_set, MISTAKES)
    write()
    (model_dir / BEST_FILE).unlink(missing_ok=True)
    write_report(config.output_data_dir, metrics, data_set.root)


def write_model(
    config: TrainingConfig, trained: Trained, folder: Path, *, started: float, checked_images: int = EXPORT_CHECK_IMAGES
) -> tuple[ModelCard, dict[str, Any]]:
    """Write a model that can be packaged into a folder, the card last; return the card and the metrics."""
    network = trained.network.to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    torch.save(network.state_dict(), folder / WEIGHTS_FILE)
    export_onnx(network, folder / ONNX_FILE, input_size=trained.preprocessing.input_size)
    images = trained.preprocessing.normalise(trained.valid.pixels[:checked_images])
    check = check_export(network, folder / ONNX_FILE, images)
    card, metrics = _first_card(config, trained, folder), _first_metrics(config, trained, check)
    _write_records(folder, card, metrics, started)
    return card, metrics


def _write_records(folder: Path, card: ModelCard, metrics: dict[str, Any], started: float) -> None:
    metrics["model"] = {name: getattr(card, name) for name in REPORTED}
    metrics["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    metrics["seconds"] = time.perf_counter() - started
    write_metrics(folder, metrics)
    card.save(folder)


def _first_card(config: TrainingConfig, trained: Trained, folder: Path) -> ModelCard:
    """Return the card of the network as it was trained."""
    data_set, best = trained.data_set, trained.outcome.best
    assert best is not None
    return ModelCard(
        name=config.model_name or data_set.root.resolve().name,
        version=file_version(folder / ONNX_FILE),
        architecture=config.architecture,
        labels=data_set.labels,
        display_labels=tuple(display_labels(data_set.labels)),
        **dataclasses.asdict(trained.preprocessing),
        metrics={"valid_accuracy": best.accuracy, "valid_loss": best.loss},
        training_job=config.job_name,
        code_revision=config.code_revision,
        dataset={"fingerprint": trained.identity.digest, "counts": data_set.counts},
    )


def _first_metrics(config: TrainingConfig, trained: Trained, check: ExportCheck) -> dict[str, Any]:
    """Return what `metrics.json` holds before the model is measured; docs/training-results.md explains the keys."""
    data_set, outcome = trained.data_set, trained.outcome
    assert outcome.best is not None
    return {
        "labels": list(data_set.labels),
        "epochs": [dataclasses.asdict(epoch) for epoch in outcome.history],
        "best_epoch": outcome.best_epoch,
        "interrupted": outcome.interrupted,
        "images_per_second": outcome.images_per_second,
        "workers": outcome.workers,
        "valid": outcome.best.recorded(),
        "test": None,
        "calibration": None,
        "mistakes": [],
        "data_set": {
            "fingerprint": trained.identity.digest,
            "counts": data_set.counts,
            "absent_classes": data_set.absent_classes,
            "skipped": trained.skipped | trained.valid.skipped,
            "also_in_training": list(trained.identity.leaked),
        },
        "export": dataclasses.asdict(check),
        "quantization": None,
        "arguments": config.recorded(),
        "environment": {
            "instance_type": os.environ.get("SM_CURRENT_INSTANCE_TYPE"),
            "cpu": cpu_model(),
            "vcpus": available_vcpus(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "versions": {
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in _LIBRARIES},
            },
        },
    }


def _calibration_images(
    data_set: DataSet, preprocessing: Preprocessing, unreadable: Container[str], threads: int
) -> Images:
    """Decode training images as the server would; the ones that are decoded for training have another shape."""
    readable = _readable(data_set, "train", unreadable)
    # They are sorted by class, so that images at even distances are a fair share of every class.
    count = min(CALIBRATION_IMAGES, len(readable))
    paths, targets = zip(*(readable[index * len(readable) // count] for index in range(count)), strict=True)
    sample = dataclasses.replace(data_set.splits["train"], paths=paths, targets=targets)
    return decode_for_serving(dataclasses.replace(data_set, splits={"train": sample}), "train", preprocessing, threads)


def _calibrate(model_dir: Path, trained: Trained, threads: int) -> tuple[float, Answers, npt.NDArray[np.float64]]:
    """Return the temperature for the graph that ships, its answers to the validation split, and those without it."""
    valid = trained.valid
    logits = graph_logits(onnx_session(model_dir / ONNX_FILE, threads), trained.preprocessing, valid.pixels)
    temperature = fit_temperature(logits, valid.targets)
    paths = tuple(path for path, _ in _readable(trained.data_set, "valid", valid.skipped))
    log.info("temperature %.3f", temperature)
    return temperature, Answers(paths, valid.targets, softmax(logits, temperature)), softmax(logits)


def _reliability(before: npt.NDArray[np.float64], answers: Answers) -> dict[str, Any]:
    return {
        "before": reliability(before, answers.targets),
        "after": reliability(answers.probabilities, answers.targets),
    }


def _readable(data_set: DataSet, split: str, unreadable: Container[str]) -> list[tuple[Path, int]]:
    return [
        pair for pair in data_set.splits[split].images() if str(pair[0].relative_to(data_set.root)) not in unreadable
    ]
