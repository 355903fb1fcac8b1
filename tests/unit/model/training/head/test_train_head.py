"""`--mode head` from the command line to the artifact."""

from __future__ import annotations

import csv
import importlib.util
import json

import pytest
import torch
from training_fixtures import LABELS, write_data_set

from model.core.artifact import WEIGHTS_FILE, ModelCard, verify_files
from model.core.network import build
from model.train import main
from model.training.arguments import ArgumentsError, parse_arguments
from model.training.head import features
from model.training.head import mode as head_mode
from model.training.loop import stopping

HEAD = ["--mode", "head", "--input-size", "32", "--epochs", "5", "--num-cpus", "2", "--precision", "fp32"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data") / "sample")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of a network for other classes, whose batch normalisation has seen pictures."""
    torch.manual_seed(5)
    network = build("resnet9", 7)
    network(torch.randn(64, 3, 32, 32))
    path = tmp_path_factory.mktemp("weights") / "weights.pt"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def job(data, weights, tmp_path, monkeypatch):
    """Run a training in this process; give its exit code."""
    for variable in ("SM_MODEL_DIR", "SM_OUTPUT_DATA_DIR", "SM_CHECKPOINT_DIR", "SM_HOSTS", "TRAINING_JOB_NAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SM_OUTPUT_DIR", str(tmp_path))

    def run(*arguments: str) -> int:
        places = ["--data-dir", data, "--weights", weights, "--model-dir", tmp_path / "model"]
        places += ["--output-data-dir", tmp_path / "output", "--feature-cache", tmp_path / "features"]
        return main([*HEAD, *map(str, places), *arguments])

    return run


def test_a_search_ends_with_the_artifact_of_the_best_trial(job, data, weights, tmp_path, capsys):
    assert job("--search", "6", "--views", "2", "--search-lr", "0.0001,0.1", "--search-batch-sizes", "4,12") == 0
    lines = capsys.readouterr().out.splitlines()
    kinds = [line.partition("=")[0] for line in lines]
    assert kinds == ["trial"] * 6 + ["epoch"] * 5 + ["best_epoch", "test_loss"]

    verify_files(tmp_path / "model")
    metrics = json.loads((tmp_path / "output" / "metrics.json").read_text())
    found = json.loads((tmp_path / "output" / "search.json").read_text())
    rows = list(csv.DictReader((tmp_path / "output" / "trials.csv").open(encoding="utf-8")))
    best = min((row for row in rows if row["status"] == "Completed"), key=lambda row: float(row["objective"]))
    assert found["best"]["hyperparameters"] == {"lr": float(best["lr"]), "batch-size": int(best["batch-size"])}
    # What is recorded is what the model was trained with, and its loss is that trial's.
    assert (metrics["arguments"]["lr"], metrics["arguments"]["batch_size"]) == (
        float(best["lr"]),
        int(best["batch-size"]),
    )
    untempered = metrics["calibration"]["valid"]["before"]["loss"]
    assert untempered == pytest.approx(float(best["objective"]), abs=1e-4)
    assert min(epoch["valid_loss"] for epoch in metrics["epochs"]) == float(best["objective"])


def test_only_the_last_layer_differs_from_the_weights_it_started_from(job, weights, tmp_path):
    assert job() == 0
    before = torch.load(weights, weights_only=True)
    after = torch.load(tmp_path / "model" / WEIGHTS_FILE, weights_only=True)
    differing = {name for name in after if not torch.equal(after[name], before[name])}
    assert differing == {"12.weight", "12.bias"}
    assert after["12.weight"].shape[0] == len(LABELS)


def test_the_same_command_again_computes_no_features_and_gives_the_same_model(job, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    assert job("--views", "3") == 0
    version = ModelCard.load(tmp_path / "model").version
    assert "features of 120 views" in caplog.text

    def none_is_needed(_: object) -> None:
        raise AssertionError("the features are there")

    monkeypatch.setattr(features, "_engine", none_is_needed)
    assert job("--views", "3") == 0
    assert ModelCard.load(tmp_path / "model").version == version


def test_mixed_precision_is_that_of_the_features(job, tmp_path, monkeypatch):
    # As on a CPU that has instructions for it; others are slow at it, but right.
    monkeypatch.setattr(head_mode, "half_type", lambda choice, _: torch.bfloat16 if choice == "on" else None)
    assert job() == 0
    kept = set((tmp_path / "features").iterdir())
    assert job("--mixed-precision", "on") == 0
    assert len(set((tmp_path / "features").iterdir()) - kept) == len(kept) == 2
    metrics = json.loads((tmp_path / "output" / "metrics.json").read_text())
    # What ships computes in float32, and is measured so.
    in_half = min(epoch["valid_loss"] for epoch in metrics["epochs"])
    assert metrics["calibration"]["valid"]["before"]["loss"] == pytest.approx(in_half, rel=0.02)


def test_a_backbone_of_chance_is_said_to_be_one(job, caplog):
    assert job("--weights", "none") == 0
    assert "the backbone has random weights" in caplog.text
    caplog.clear()
    assert job() == 0
    assert "random weights" not in caplog.text


def test_a_training_that_is_stopped_before_its_head_leaves_no_model_but_its_features(
    job, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO")
    monkeypatch.setattr(stopping.Stop, "__call__", lambda _: True)
    job()
    assert not (tmp_path / "model").exists()
    assert "the same command goes on from there" in caplog.text


def parse(*arguments: str, **environment: str):
    return parse_arguments(["--data-dir", "data", *arguments], environment)


def test_features_are_kept_with_the_checkpoints_where_there_are_any(tmp_path):
    assert parse(SM_CHECKPOINT_DIR=str(tmp_path)).feature_cache == tmp_path / "features"
    assert str(parse().feature_cache) == "build/features"
    assert str(parse("--checkpoint-dir", "x").feature_cache) == "x/features"
    given = parse("--mode", "head", "--feature-cache", "y", SM_CHECKPOINT_DIR=str(tmp_path))
    assert str(given.feature_cache) == "y"


def test_what_every_job_is_given_is_taken_in_both_modes(tmp_path):
    job = ("--model-name=sample", "--code-revision=abc", "--job-name=job-1", "--lr=0.02", "--batch-size=32")
    for mode in ("finetune", "head"):
        assert parse(f"--mode={mode}", *job, SM_CHECKPOINT_DIR=str(tmp_path)).mode == mode
    assert parse("--mode=head", "--search=3", *job).search == 3


def test_search_ranges_are_read_as_a_job_passes_them():
    arguments = parse("--mode=head", "--search=3", "--search_lr=1e-4,0.5", "--search_batch_sizes", "64,8,64")
    assert (arguments.search_lr, arguments.search_batch_sizes) == ((1e-4, 0.5), (8, 64))
    defaults = parse()
    assert (defaults.search_lr, defaults.search_batch_sizes) == ((0.001, 0.1), (32, 64, 128, 256, 512))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--search", "3"], "--search means nothing to --mode finetune"),
        (["--views", "2"], "--views means nothing to --mode finetune"),
        (["--search-lr", "0.01,0.1"], "--search-lr means nothing to --mode finetune"),
        (["--search-batch-sizes", "8,64"], "--search-batch-sizes means nothing to --mode finetune"),
        (["--feature-cache", "x"], "--feature-cache means nothing to --mode finetune"),
        (["--mode", "head", "--train-stages", "1"], "--train-stages means nothing to --mode head"),
        (["--mode", "head", "--lr-decay", "0.8"], "--lr-decay means nothing to --mode head"),
        (["--mode", "head", "--mixup", "0.2"], "--mixup means nothing to --mode head"),
        (["--mode", "head", "--cutmix", "1"], "--cutmix means nothing to --mode head; leave it out"),
        (["--mode", "head", "--compile", "on"], "--compile means nothing to --mode head"),
        (["--mode", "head", "--sync-batch-norm", "on"], "--sync-batch-norm means nothing to --mode head"),
        (["--mode", "head", "--scale-with-workers", "on"], "--scale-with-workers means nothing to --mode head"),
        (["--mode", "head", "--checkpoint-minutes", "1"], "--checkpoint-minutes means nothing to --mode head"),
        (["--mode", "head", "--checkpoint-keep", "1"], "--checkpoint-keep means nothing to --mode head"),
        (["--mode", "head", "--search-lr", "0.01,0.1"], "--search-lr means nothing without --search"),
        (["--mode", "head", "--search-batch-sizes", "8"], "--search-batch-sizes means nothing without --search"),
        (["--mode", "head", "--views", "0"], "'0' is not a whole number from 1 to 1000"),
        (["--mode", "head", "--search-lr", "0.1"], "'' is not a number"),
        (["--mode", "head", "--search-lr", "0.1,0.001"], "'0.1,0.001' is not a lower and a higher number"),
        (["--mode", "head", "--search-lr", "0,1"], "'0' is not a number from 1e-08"),
        (["--mode", "head", "--search-batch-sizes", "32,many"], "'many' is not a whole number from 2"),
        (["--mode", "heads"], "invalid choice: 'heads'"),
    ],
)
def test_values_that_make_no_search_are_refused(argv, message):
    with pytest.raises(ArgumentsError) as error:
        parse(*argv)
    assert message in str(error.value)


def test_without_optuna_a_search_is_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert parse("--mode", "head").mode == "head"
    with pytest.raises(ArgumentsError, match="--search needs optuna"):
        parse("--mode", "head", "--search", "1")
