"""From a trained network to its artifact, measured: what is written does not depend on how the network was trained."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...core.artifact import ONNX_FILE, WEIGHTS_FILE, ModelCard, file_version
from ...core.machine import available_vcpus, memory_bytes
from ...core.packaging import BEST_FILE, add_serving_program, write_metrics
from ...core.predictor import OOD_OUTPUT, Predictor, onnx_session, softmax
from ...core.transforms import Preprocessing
from ..config import TrainingConfig
from ..data.dataset import Fingerprint, display_labels
from ..data.decoded import Images, decode_for_serving
from ..data.image_folder import ImageFolder
from ..head.backbone import split
from ..head.served import Int8Backbone
from ..loop.calibration import at_temperature, fit_temperature, reliability
from ..loop.evaluation import Answers, evaluate_artifact, fair_order, graph_outputs
from ..loop.metrics import print_metrics
from ..loop.state import NOTHING, Fit
from ..report.report import MISTAKES, write_report
from .changes import Limits
from .export import check_export, export_onnx
from .ood import FITTED_IMAGES, add_ood_score
from .precision import COMPARED_IMAGES, Decision, choose_precision, cpu_model
from .quantize import CALIBRATION_IMAGES
from .reference import reference

log = logging.getLogger(__name__)

# The comparison of the exported graph with the network needs some images, not all.
EXPORT_CHECK_IMAGES = 64
# A training that was asked to stop measures its model on so many validation images all the same: a few seconds.
MEASURED_ANYWAY = 256
# What the report says of the model; the rest is in the model's card.
REPORTED = (
    "name", "version", "architecture", "display_labels", "input_size", "precision", "training_job", "code_revision",
)  # fmt: skip
# By their packages' names. None is imported for its version: beside some builds of torch, torchvision fails then.
_LIBRARIES = ("torch", "torchvision", "onnxruntime", "numpy", "pillow")


@dataclass(frozen=True)
class Trained:
    """A network after its training, with the weights of the best epoch, and what it was trained on.

    `valid` is the validation split as the server sees it, `skipped` the unreadable training images. `int8` has made the
    features that the head was trained on, and is served in place of the network's own backbone.
    """

    network: torch.nn.Module
    data_set: ImageFolder
    identity: Fingerprint
    preprocessing: Preprocessing
    valid: Images
    outcome: Fit = NOTHING
    skipped: dict[str, str] = field(default_factory=dict)
    int8: Int8Backbone | None = None


def finish(config: TrainingConfig, trained: Trained, *, started: float, should_stop: Callable[[], bool]) -> None:
    """Write the artifact, choose its precision, add its score, calibrate it, measure it on the test split, and report.

    `should_stop` is asked after every few images and leaves out the precision's choice, the out-of-distribution score,
    the test, and validation images beyond a few; the artifact is whole all the same. One that cannot be exported has
    weights and no graph.
    """
    splits, valid, model_dir = trained.data_set.splits, trained.valid, config.model_dir
    model_dir.mkdir(parents=True, exist_ok=True)
    config.output_data_dir.mkdir(parents=True, exist_ok=True)
    add_serving_program(model_dir)
    metrics = write_model(config, trained, model_dir, started=started)
    if metrics["export"].get("error"):
        write_metrics(config.output_data_dir, metrics)
        log.warning("the model cannot be served: %s; its weights are in %s", metrics["export"]["error"], WEIGHTS_FILE)
        return

    def write() -> None:
        _write_records(config, trained, metrics, model_dir, started)
        write_metrics(config.output_data_dir, metrics)

    write()  # a whole artifact first: whatever happens after this, the training is not lost
    if config.precision == "auto" and trained.int8 is None and not should_stop():
        metrics["quantization"] = dataclasses.asdict(_choose_precision(config, trained, should_stop))
        write()  # the card must name the graph beside it, whenever the program is killed
    if not should_stop():
        metrics["ood"] = add_ood_score(
            model_dir / ONNX_FILE, train=_served_images(config, trained, slice(FITTED_IMAGES)), valid=valid,
            preprocessing=trained.preprocessing, threads=config.num_cpus, should_stop=should_stop,
        )  # fmt: skip
        write()
    # Of the graph that ships, and so the figures of the validation split are from here on.
    order = fair_order(len(valid))
    logits, *scores = graph_outputs(
        onnx_session(model_dir / ONNX_FILE), ["logits", *[OOD_OUTPUT] * bool(metrics["ood"])], trained.preprocessing,
        valid.pixels, order, threads=config.num_cpus, should_stop=should_stop, least=MEASURED_ANYWAY,
    )  # fmt: skip
    order = order[: len(logits)]
    temperature = fit_temperature(logits, valid.targets[order])
    log.info("temperature %.3f, on %d validation images", temperature, len(order))
    answers = Answers(splits["valid"].without(valid.skipped).take(order), softmax(logits, temperature), *scores)
    metrics["valid"] = answers.evaluation().recorded()
    metrics["calibration"] = {
        "temperature": temperature, "images": len(order),
        "valid": _reliability(softmax(logits), answers), "test": None,
    }  # fmt: skip
    metrics["ood"] = metrics["ood"] and metrics["ood"] | {"valid_known": answers.share_known}
    write()
    if not should_stop():
        metrics["reference"] = reference(Predictor.load(model_dir), answers.images.paths, config.num_cpus)
    if "test" in splits and not should_stop():
        tested = evaluate_artifact(model_dir, splits["test"], threads=config.num_cpus, should_stop=should_stop)
        if tested is not None:
            answers, skipped = tested
            evaluation = answers.evaluation()
            print_metrics(test_loss=evaluation.loss, test_accuracy=evaluation.accuracy)
            metrics["test"] = evaluation.recorded()
            before = at_temperature(answers.probabilities, 1 / temperature)
            metrics["calibration"]["test"] = _reliability(before, answers)
            metrics["data_set"]["skipped"] |= skipped
            metrics["ood"] = metrics["ood"] and metrics["ood"] | {"test_known": answers.share_known}
    metrics["mistakes"] = answers.worst_mistakes(trained.data_set.labels, MISTAKES)
    write()
    (model_dir / BEST_FILE).unlink(missing_ok=True)
    write_report(config.output_data_dir, metrics, trained.data_set.root)


def _choose_precision(config: TrainingConfig, trained: Trained, should_stop: Callable[[], bool]) -> Decision:
    """Replace the graph by its int8 form where that has earned its place."""
    known = min(CALIBRATION_IMAGES, (len(trained.data_set.splits["train"]) - len(trained.skipped)) // 2)
    calibration, compared = (
        _served_images(config, trained, part) for part in (slice(known), slice(known, known + COMPARED_IMAGES))
    )
    decision = choose_precision(
        config.model_dir / ONNX_FILE,
        calibration=calibration,
        valid=trained.valid,
        training=compared,
        preprocessing=trained.preprocessing,
        limits=Limits(config.int8_max_accuracy_loss, config.int8_min_agreement),
        threads=config.num_cpus,
        should_stop=should_stop,
    )
    log.info("ships as %s after %.1f s: %s", decision.precision, decision.seconds, decision.reason)
    return decision


def _served_images(config: TrainingConfig, trained: Trained, part: slice) -> Images:
    """Decode a part of the training images, in fair order: those that were decoded for training have another shape."""
    train = trained.data_set.splits["train"].without(trained.skipped)
    return decode_for_serving(train.take(fair_order(len(train))[part]), trained.preprocessing, config.num_cpus)


def write_model(
    config: TrainingConfig, trained: Trained, folder: Path, *, started: float, checked_images: int = EXPORT_CHECK_IMAGES
) -> dict[str, Any]:
    """Write a model that can be packaged, the card last; return its metrics (docs/training-results.md).

    The graph is left out when the export failed; `export` in the metrics has the error then.
    """
    data_set, outcome = trained.data_set, trained.outcome
    assert outcome.best is not None
    network = trained.network.to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    torch.save(network.state_dict(), folder / WEIGHTS_FILE)
    sample = fair_order(len(trained.valid))[:checked_images]
    input_size, int8, answers = trained.preprocessing.input_size, trained.int8, network
    try:
        if int8 is None:
            export_onnx(network, folder / ONNX_FILE, 3, input_size, input_size)
        else:
            answers = int8.write_with(split(network, config.architecture, input_size)[1], folder / ONNX_FILE)
        images = trained.preprocessing.normalise(trained.valid.pixels[sample])
        export = dataclasses.asdict(check_export(answers, folder / ONNX_FILE, images))
    except Exception as error:  # whatever it is, the weights are worth keeping
        (folder / ONNX_FILE).unlink(missing_ok=True)
        export = {"error": str(error) or repr(error)}
    metrics = {
        "labels": list(data_set.labels),
        "epochs": [dataclasses.asdict(epoch) for epoch in outcome.history],
        "best_epoch": outcome.best_epoch,
        "interrupted": outcome.interrupted,
        "diverged_epoch": outcome.diverged_epoch or None,
        "images_per_second": outcome.images_per_second,
        "workers": outcome.workers,
        "valid": outcome.best.recorded(),
        "test": None,
        "calibration": None,
        "ood": None,
        "mistakes": [],
        "reference": None,
        "data_set": {
            "fingerprint": trained.identity.digest,
            "counts": data_set.counts,
            "absent_classes": data_set.absent_classes,
            "skipped": trained.skipped | trained.valid.skipped,
            "left_out": data_set.left_out,
            "held_out": list(data_set.held_out),
            **trained.identity.copies,
        },
        "export": export,
        "quantization": int8.decision if int8 else None,
        "arguments": config.recorded(),
        "environment": _environment(),
    }
    _write_records(config, trained, metrics, folder, started)
    return metrics


def _write_records(
    config: TrainingConfig, trained: Trained, metrics: dict[str, Any], folder: Path, started: float
) -> None:
    """Write `metrics.json` and the card, which says what the metrics say so far."""
    measured = {split: metrics[split] for split in ("valid", "test") if metrics[split]}
    quantization, calibration = metrics["quantization"], metrics["calibration"]
    card = ModelCard(
        name=config.model_name or trained.data_set.root.resolve().name,
        version=file_version(graph if (graph := folder / ONNX_FILE).exists() else folder / WEIGHTS_FILE),
        architecture=config.architecture,
        labels=trained.data_set.labels,
        display_labels=tuple(display_labels(trained.data_set.labels)),
        **dataclasses.asdict(trained.preprocessing),
        temperature=calibration["temperature"] if calibration else 1.0,
        precision=quantization["precision"] if quantization else "fp32",
        quantization=quantization or {},
        metrics={f"{split}_{name}": found[name] for split, found in measured.items() for name in ("accuracy", "loss")}
        | ({name: metrics[name] for name in ("best_epoch", "diverged_epoch")} if metrics["diverged_epoch"] else {}),
        training_job=config.job_name,
        code_revision=config.code_revision,
        dataset={"fingerprint": trained.identity.digest, "counts": trained.data_set.counts},
    )
    metrics["model"] = {name: getattr(card, name) for name in REPORTED}
    metrics["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
    metrics["seconds"] = time.perf_counter() - started
    write_metrics(folder, metrics)
    card.save(folder)


def _environment() -> dict[str, Any]:
    used = torch.cuda.is_initialized()
    return {
        "instance_type": os.environ.get("SM_CURRENT_INSTANCE_TYPE"),
        "cpu": cpu_model(),
        "vcpus": available_vcpus(),
        "memory_gb": round(memory_bytes() / 1e9, 1),
        # Asking a GPU that the training leaves alone would take memory there.
        "gpus": [torch.cuda.get_device_name(gpu) for gpu in range(torch.cuda.device_count() if used else 0)],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        },
    }


def _reliability(before: npt.NDArray[np.float64], answers: Answers) -> dict[str, Any]:
    return {
        "before": reliability(before, answers.targets),
        "after": reliability(answers.probabilities, answers.targets),
    }
