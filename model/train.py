"""Train a picture classifier: one entry point for a laptop, an EC2 instance and a SageMaker training job.

On a laptop::

    python -m model.train --data-dir data/sample --model-dir build/model

As a SageMaker training job the same file is run as a script (`python train.py --lr 0.002 …`): the places come from the
SM_* variables, the hyperparameters from the command line. `docs/training.md` lists them all, what is written where, and
the exit codes.
"""

from __future__ import annotations

if not __package__:
    # SageMaker unpacks this folder's files to /opt/ml/code and runs train.py as a script, so the folder has another
    # name there and Python does not know that it is a package. Register it under its own name, and take it off the
    # path: modules called `data` or `metrics` there would shadow those of libraries.
    import importlib.util
    import sys
    from pathlib import Path

    _folder = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _folder]
    _spec = importlib.util.spec_from_file_location(
        "model", _folder / "__init__.py", submodule_search_locations=[str(_folder)]
    )
    assert _spec is not None and _spec.loader is not None
    sys.modules["model"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["model"])
    __package__ = "model"

import os

# OpenMP's threads spin while they wait for one another; torch's read this when they are started. On two cores that
# another process uses, too, training is four to nine times as fast when they sleep; on idle ones it is 0.9 times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import dataclasses
import logging
import platform
import signal
import sys
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import onnxruntime
import PIL
import torch

from .arguments import ArgumentsError, parse_arguments
from .artifact import ONNX_FILE, WEIGHTS_FILE, ArtifactError, ModelCard, file_version
from .augment import Augmentation
from .data import DataSet, DataSetError, Pictures, discover, display_labels, fingerprint, load, whole_picture
from .engine import DivergedError, Fit, Recipe, fit
from .evaluation import evaluate_artifact
from .export import ExportCheck, ExportError, check_export, export_onnx
from .metrics import EpochMetrics, Evaluation
from .network import NetworkError, build, check_input_size
from .packaging import add_serving_program, write_metrics
from .quantize import CALIBRATION_PICTURES, Decision, Limits, choose_precision
from .transforms import Preprocessing

log = logging.getLogger("model.train")

# The decoded training pictures are this much larger than the network's input, so that a crop of a part of one still
# has as many pixels as the network sees.
CACHE_MARGIN = 1.25
# The shorter side is resized to this much more than the input before the centre is cut: 72 for 64, as 256 for the 224
# of the published networks.
RESIZE_MARGIN = 1.125
# The comparison of the exported graph with the network needs some pictures, not all.
EXPORT_CHECK_PICTURES = 256
# SageMaker shows this much of the failure file as the job's FailureReason.
FAILURE_LENGTH = 1024


class Stop:
    """Remembers that SIGTERM (StopTrainingJob, the end of a spot instance) or Ctrl-C asked the training to end."""

    def __init__(self) -> None:
        self._signal: int | None = None

    def __call__(self) -> bool:
        """Return whether the training was asked to end."""
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """0, or the shell's convention for an end by signal: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + self._signal if self._signal is not None else 0

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Listen to the signals. A second one of the same kind ends the program at once."""

        def remember(number: int, _: FrameType | None) -> None:
            log.warning("%s: ending the training with the best weights so far", signal.Signals(number).name)
            self._signal = number
            signal.signal(number, signal.SIG_DFL)

        previous = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def train(arguments: argparse.Namespace, stop: Stop) -> None:
    """Train a network, write the artifact of its best epoch, and measure the artifact on the test split.

    Parameters
    ----------
    arguments : argparse.Namespace
        From `parse_arguments`.
    stop : Stop
        Asked after every step. The training then ends with the best weights so far, or without a model when not even
        one epoch is finished.

    Raises
    ------
    DataSetError, NetworkError, DivergedError, ExportError, ArtifactError, OSError
        With a message for a person.
    """
    started = time.perf_counter()
    torch.set_num_threads(arguments.num_cpus)
    torch.manual_seed(arguments.seed)
    preprocessing = Preprocessing(arguments.input_size, round(arguments.input_size * RESIZE_MARGIN))

    data_set = discover(arguments.data_dir)
    identity = fingerprint(data_set)
    log.info("%d classes, %s pictures, %s", len(data_set.labels), data_set.counts, identity.digest)
    network = build(arguments.architecture, len(data_set.labels), weights=arguments.weights)
    check_input_size(network, arguments.architecture, arguments.input_size)
    pictures, valid = _decode(data_set, preprocessing, arguments.num_cpus)
    log.info("decoded %d + %d pictures in %.1f s", len(pictures), len(valid), time.perf_counter() - started)

    outcome = fit(
        network,
        pictures,
        valid,
        recipe=Recipe(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Recipe)}),
        augmentation=Augmentation(preprocessing),
        device=_device(arguments.num_gpus),
        should_stop=stop,
        on_epoch=_print_epoch,
    )
    if outcome.best is None:
        log.error("stopped before the first epoch was finished: there is no model")
        return

    model_dir: Path = arguments.model_dir
    model_dir.mkdir(parents=True, exist_ok=True)
    check = _write_network(network, model_dir, preprocessing, valid)
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
            "skipped": pictures.skipped | valid.skipped,
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
    if arguments.precision == "auto" and not stop():
        calibration = _calibration_pictures(data_set, preprocessing, pictures.skipped, arguments.num_cpus)
        decision = _choose_precision(arguments, calibration, valid, preprocessing, stop)
        metrics["quantization"] = dataclasses.asdict(decision)
        metrics["seconds"] = time.perf_counter() - started
        card = _with_precision(card, decision, model_dir)
        _write_reports(arguments, card, metrics)
    if "test" not in data_set.splits or stop():
        return
    test, skipped = evaluate_artifact(model_dir, data_set, "test")
    print(test.test_line(), flush=True)  # noqa: T201 - the log is how SageMaker reads metrics
    tested = {"test_accuracy": test.accuracy, "test_loss": test.loss}
    metrics["test"] = _measured(test)
    metrics["data_set"]["skipped"] |= skipped
    metrics["seconds"] = time.perf_counter() - started
    _write_reports(arguments, dataclasses.replace(card, metrics=card.metrics | tested), metrics)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the training's command line and return the exit code; see docs/training.md."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    stop = Stop()
    try:
        arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
        with stop.on_signals():
            train(arguments, stop)
    except ArgumentsError as error:
        return _fail(str(error), 2)
    except (DataSetError, NetworkError, DivergedError, ExportError, ArtifactError, OSError) as error:
        return _fail(str(error), 1)
    except Exception as error:  # a bug: its stack trace belongs in the log, its first line in the job's FailureReason
        log.exception("the training failed")
        return _fail(f"{type(error).__name__}: {error}", 1)
    return stop.exit_code


def _fail(message: str, exit_code: int) -> int:
    log.error("%s", message)
    output = os.environ.get("SM_OUTPUT_DIR")
    if output and Path(output).is_dir():
        (Path(output) / "failure").write_text(message[:FAILURE_LENGTH], encoding="utf-8")
    return exit_code


def _device(gpus: int | None) -> torch.device:
    if gpus is None:
        gpus = torch.cuda.device_count()
    if gpus > 1:
        log.warning("%d GPUs: only the first is used", gpus)
    return torch.device("cuda" if gpus else "cpu")


def _decode(data_set: DataSet, preprocessing: Preprocessing, threads: int) -> tuple[Pictures, Pictures]:
    side = round(preprocessing.input_size * CACHE_MARGIN)
    pictures = load(
        data_set,
        "train",
        prepare=lambda image: whole_picture(image, side),
        side=side,
        shorter_side=side,
        threads=threads,
    )
    return pictures, _decode_for_serving(data_set, "valid", preprocessing, threads)


def _decode_for_serving(data_set: DataSet, split: str, preprocessing: Preprocessing, threads: int) -> Pictures:
    return load(
        data_set,
        split,
        prepare=preprocessing.crop,
        side=preprocessing.input_size,
        shorter_side=preprocessing.resize_size,
        threads=threads,
    )


def _print_epoch(epoch: EpochMetrics) -> None:
    print(epoch.line(), flush=True)  # noqa: T201 - the log is how SageMaker reads metrics


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
    return _decode_for_serving(
        dataclasses.replace(data_set, splits={split.name: sample}), split.name, preprocessing, threads
    )


def _choose_precision(
    arguments: argparse.Namespace, calibration: Pictures, valid: Pictures, preprocessing: Preprocessing, stop: Stop
) -> Decision:
    decision = choose_precision(
        arguments.model_dir / ONNX_FILE,
        calibration=calibration,
        valid=valid,
        preprocessing=preprocessing,
        limits=Limits(arguments.int8_max_accuracy_loss, arguments.int8_min_agreement),
        should_stop=stop,
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


if __name__ == "__main__":
    sys.exit(main())
