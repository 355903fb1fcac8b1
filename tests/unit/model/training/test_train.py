"""The training program as SageMaker runs it: a script in a folder of any name, told by its environment."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from training_fixtures import FAST, LABELS, draw, write_data_set
from training_job import Job

from model.core.artifact import ArtifactError, ModelCard, file_version, verify_files
from model.core.packaging import package
from model.train import main
from model.training import pipeline
from model.training.artifact import finishing, precision
from model.training.artifact.export import ExportError
from model.training.data.dataset import discover
from model.training.loop.evaluation import evaluate_artifact
from model.training.loop.state import DivergedError, TrainingState
from model.training.loop.stopping import Stop


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write_data_set(tmp_path_factory.mktemp("data") / "sample")
    (root / "train" / LABELS[0] / "broken.jpg").write_bytes(draw(0, 0)[:300])
    (root / "test" / LABELS[0] / "broken.jpg").write_text("no image")
    return root


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A container around this process, for `main` to run in."""
    job = Job(tmp_path, tmp_path)
    for name, value in job.environment.items():
        monkeypatch.setenv(name, value)
    return job


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    job = Job(tmp_path_factory.mktemp("job"), data)
    code, output, errors = job.run(*FAST, "--model-name", "shapes", "--code-revision", "abc123")
    assert code == 0, errors
    return job, output, errors


def test_every_epoch_the_best_one_and_the_test_are_one_line_each(trained):
    _, output, _ = trained
    names = [[pair.split("=")[0] for pair in line.split()] for line in output.splitlines()]
    valid = ["valid_loss", "valid_accuracy", "valid_macro_f1"]
    epoch = ["epoch", "train_loss", *valid, "images_per_second"]
    assert names == [epoch, epoch, ["best_epoch", "select", *valid], ["test_loss", "test_accuracy"]]


def test_the_artifact_is_whole_and_says_where_it_comes_from(trained):
    job, _, errors = trained
    card = verify_files(job.model)
    assert (card.name, card.training_job, card.code_revision) == ("shapes", "job-1", "abc123")
    assert card.labels == tuple(sorted(LABELS))
    assert "Disc hound" in card.display_labels
    assert (card.input_size, card.resize_size, card.architecture) == (32, 36, "resnet9")
    assert card.metrics.keys() == {"valid_accuracy", "valid_loss", "test_accuracy", "test_loss"}
    assert card.dataset["counts"] == {"train": 37, "valid": 12, "test": 13}
    assert (job.model / "code" / "model" / "serving" / "server.py").is_file()
    assert os.access(job.model / "code" / "serve", os.X_OK)
    assert card.precision == "fp32"
    assert card.quantization["reason"].startswith(
        "30 validation and training images cannot show that int8 stays within"
    )
    assert card.quantization == job.metrics["quantization"]
    assert card.quantization["reason"] in errors


def test_metrics_hold_what_a_report_needs(trained):
    job, _, errors = trained
    metrics = job.metrics
    assert metrics == json.loads((job.model / "metrics.json").read_text())
    best = min(metrics["epochs"], key=lambda epoch: epoch["valid_loss"])
    assert metrics["best_epoch"] == best["epoch"]
    calibration = metrics["calibration"]
    assert calibration["valid"]["before"]["loss"] == pytest.approx(best["valid_loss"], abs=1e-4)
    assert metrics["valid"]["loss"] == pytest.approx(calibration["valid"]["after"]["loss"])
    assert metrics["test"]["loss"] == pytest.approx(calibration["test"]["after"]["loss"])
    assert ModelCard.load(job.model).temperature == calibration["temperature"] != 1
    cells = [metrics[split]["confusion_cells"] for split in ("valid", "test")]
    assert [sum(count for _, _, count in found) for found in cells] == [12, 12]
    assert set(metrics["data_set"]["skipped"]) == {f"{split}/{LABELS[0]}/broken.jpg" for split in ("train", "test")}
    assert all(name in errors for name in metrics["data_set"]["skipped"])
    assert [image.keys() >= {"predicted", "confidence", "size"} for image in metrics["reference"]] == [True] * 12
    assert metrics["export"]["agreement"] == 1.0
    assert not metrics["interrupted"]


def test_the_same_seed_gives_the_same_model_and_another_seed_another(trained, data, here):
    job, _, _ = trained
    assert main([*FAST, "--data-dir", str(data)]) == 0
    assert ModelCard.load(here.model).version == ModelCard.load(job.model).version
    assert (here.metrics["valid"], here.metrics["test"]) == (job.metrics["valid"], job.metrics["test"])
    assert main([*FAST, "--data-dir", str(data), "--seed", "1"]) == 0
    assert ModelCard.load(here.model).version != ModelCard.load(job.model).version


def test_a_training_that_diverges_ships_its_best_epoch_and_says_so(data, here, monkeypatch, caplog):
    monkeypatch.setattr(TrainingState, "is_lost", property(lambda state: state.epoch == 2))
    assert main([*FAST, "--data-dir", str(data)]) == 0
    assert (
        "the training diverged in epoch 2: the model is that of epoch 1; use a learning rate below 0.01" in caplog.text
    )
    metrics, card = here.metrics, verify_files(here.model)
    assert (metrics["diverged_epoch"], metrics["best_epoch"], metrics["interrupted"]) == (2, 1, False)
    assert (card.metrics["diverged_epoch"], card.metrics["best_epoch"]) == (2, 1)


def test_an_int8_artifact_is_whole_and_its_figures_are_its_own(data, here, monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "MIN_SPEEDUP", 0.0)  # what it gains depends on the machine
    limits = ["--int8-max-accuracy-loss", "1", "--int8-min-agreement", "0"]
    assert main([*FAST, "--data-dir", str(data), *limits]) == 0
    card, metrics = verify_files(here.model), here.metrics
    assert card.precision == "int8"
    compared = card.quantization["comparison"]
    # All but the broken one, each once.
    assert (compared["calibration_images"], compared["training"]["images"], compared["valid"]["images"]) == (18, 18, 12)
    assert card.metrics["valid_accuracy"] == metrics["valid"]["accuracy"] == compared["int8_accuracy"]
    # The temperature is the int8 graph's own.
    assert metrics["calibration"]["valid"]["before"]["loss"] == pytest.approx(compared["int8_loss"])
    package(here.model, tmp_path / "model.tar.gz")
    shutil.unpack_archive(tmp_path / "model.tar.gz", tmp_path / "unpacked")
    answers, _ = evaluate_artifact(tmp_path / "unpacked", discover(data).splits["test"])
    evaluation = answers.evaluation()
    assert (evaluation.accuracy, evaluation.loss) == (metrics["test"]["accuracy"], metrics["test"]["loss"])
    weights = torch.load(here.model / "weights.pt", weights_only=True)  # those beside it are still the fp32 ones
    assert {value.dtype for value in weights.values()} <= {torch.float32, torch.int64}


@pytest.mark.parametrize("calls", [0, 1, 4, 9])
def test_a_stop_at_any_moment_after_the_last_epoch_leaves_a_whole_artifact(data, here, monkeypatch, calls):
    asked = itertools.count()
    monkeypatch.setattr(Stop, "__call__", lambda _: next(asked) >= calls)
    monkeypatch.setattr(precision, "MIN_SPEEDUP", 0.0)
    limits = ["--int8-max-accuracy-loss", "1", "--int8-min-agreement", "0"]
    assert main([*FAST, "--data-dir", str(data), *limits]) == 0
    assert verify_files(here.model).precision == "fp32"
    metrics = here.metrics
    assert metrics["test"] is None
    assert metrics["calibration"]["images"] == 12  # so few are measured all the same
    assert (metrics["quantization"] is None) == (calls == 0)
    assert "Nothing was tested" in (here.output / "data" / "report.html").read_text()


@pytest.mark.parametrize("good", [0, 1])
def test_an_export_that_fails_after_the_training_leaves_weights_card_and_metrics(data, here, caplog, monkeypatch, good):
    compared, check = itertools.count(), finishing.check_export

    def fail(*arguments):
        if next(compared) < good:
            return check(*arguments)
        raise ValueError("logits differ")  # of whatever kind

    monkeypatch.setattr(finishing, "check_export", fail)
    assert main([*FAST, "--data-dir", str(data)]) == 0
    assert good or "the best model so far is not written: logits differ" in caplog.text
    assert "the model cannot be served: logits differ; its weights are in weights.pt" in caplog.text
    assert ModelCard.load(here.model).version == file_version(here.model / "weights.pt")
    assert here.metrics == json.loads((here.model / "metrics.json").read_text())
    assert here.metrics["export"] == {"error": "logits differ"}
    refused = pytest.raises(ArtifactError, match=r"has no model\.onnx: .* no graph to serve; its metrics\.json says")
    with nullcontext() if good else refused:  # the model of the first epoch is still there
        package(here.model, here.model.parent / "model.tar.gz")


def test_the_export_is_tried_before_the_images_are_decoded_and_every_worker_hears_of_it(data, here, monkeypatch):
    def fail(*_):
        raise ExportError("vgg16 at 64 x 64 pixels: no; --input-size 224 works")

    monkeypatch.setattr(pipeline, "try_export", fail)
    monkeypatch.setattr(pipeline, "decode_for_serving", lambda *_: pytest.fail("decoded before"))
    assert main([*FAST, "--data-dir", str(data)]) == 1
    assert here.failure == "vgg16 at 64 x 64 pixels: no; --input-size 224 works"
    other = SimpleNamespace(is_main=False, broadcast=lambda _: here.failure)
    with pytest.raises(ExportError, match="vgg16 at 64 x 64"):
        pipeline._check_export(None, "vgg16", 64, other)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["--data-dir", "nowhere"], 1, "There is no data set at nowhere"),
        (["--architecture", "alexnet"], 1, "alexnet does not take images of 32 x 32 pixels"),
        (["--weights", "nowhere.pt"], 1, "no weights at nowhere.pt"),
        (["--model-dir", "/dev/null/model"], 1, "Not a directory"),
        (["--num-gpus", "0", "--sync-batch-norm", "on"], 2, "--sync-batch-norm on needs GPUs, and this training runs"),
        (["--num-gpus", "64", "--processes-per-host", "1"], 2, "--num-gpus (SM_NUM_GPUS) is 64, but torch finds "),
        (["--unknown-" + "x" * 5000], 2, "unrecognized arguments"),
    ],
)
def test_every_failure_has_its_reason(data, here, caplog, arguments, exit_code, message):
    assert main([*FAST, "--data-dir", str(data), *arguments]) == exit_code
    assert message in here.failure
    assert here.failure in caplog.text
    assert len(here.failure) <= 1024, "SageMaker shows no more"
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("mode", ["finetune", "head"])
def test_a_class_that_nobody_can_read_fails_the_training_before_its_first_epoch(here, tmp_path, capsys, mode):
    data = write_data_set(tmp_path / "data", train=4, valid=2, test=2)
    for path in (data / "train" / LABELS[2]).iterdir():
        path.write_bytes(path.read_bytes()[:100])
    assert main([*FAST, "--data-dir", str(data), "--mode", mode]) == 1
    assert f"no image of '{LABELS[2]}' in the train split is readable; the first: train/plain/000.png:" in here.failure
    assert "epoch=" not in capsys.readouterr().out


FULL = OSError(errno.ENOSPC, "No space left on device", "model.onnx")


@pytest.mark.parametrize(
    ("step", "error", "failure"),
    [
        ("fit", DivergedError("the training diverged"), "the training diverged"),
        ("_build", IndexError("list index out of range"), "IndexError: list index out of range"),
        ("finish", FULL, f"the disk is full: {FULL}; give the training a larger volume (volume_gb in the settings)"),
    ],
)
def test_an_error_of_a_step_is_the_reason_and_only_a_bug_has_a_stack_trace(
    data, here, caplog, monkeypatch, step, error, failure
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(pipeline, step, fail)
    assert main([*FAST, "--data-dir", str(data)]) == 1
    assert here.failure == failure
    assert ("Traceback" in caplog.text) == isinstance(error, IndexError)


@pytest.mark.parametrize(("augment", "side"), [("standard", 40), ("trivial", 40), ("none", 32)])
def test_without_augmentation_training_sees_what_is_served(data, here, monkeypatch, augment, side):
    seen = []

    def fit(network, images, *_, augmentation, **__):
        seen.append((images.pixels.shape[1], augmentation.policy))
        raise DivergedError("enough")

    monkeypatch.setattr(pipeline, "fit", fit)
    main([*FAST, "--data-dir", str(data), "--augment", augment])
    assert seen == [(side, augment)]


def test_a_finished_training_is_not_repeated_and_another_one_is_refused(data, here, tmp_path, capsys):
    again = [*FAST, "--data-dir", str(data), "--checkpoint-dir", str(tmp_path / "checkpoints")]
    assert main([*again, "--checkpoint-minutes", "0"]) == 0
    first = here.metrics
    capsys.readouterr()
    assert main(again) == 0
    assert "epoch=1 " not in capsys.readouterr().out.replace("best_epoch=1", "")
    assert (here.metrics["epochs"][0], here.metrics["valid"]) == (first["epochs"][0], first["valid"])
    assert main([*again, "--lr", "0.005"]) == 1
    assert "are of another training: lr 0.01 instead of 0.005. Give the same arguments" in here.failure
    assert main([*again, "--input-size", "48"]) == 1
    assert "input_size 32 instead of 48, resize_size 36 instead of 54" in here.failure
