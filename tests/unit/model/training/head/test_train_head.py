"""`--mode head` from the command line to the artifact."""

from __future__ import annotations

import json

import pytest
import torch
from training_fixtures import LABELS, write_data_set

from model.core.artifact import WEIGHTS_FILE, ModelCard, verify_files
from model.core.network import build
from model.train import main
from model.training.head.extraction import Extraction

HEAD = ["--mode", "head", "--input-size", "32", "--epochs", "5", "--num-cpus", "2", "--precision", "fp32"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data") / "sample")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of a network for other classes, whose batch normalisation has seen images."""
    torch.manual_seed(5)
    network = build("resnet9", 7)
    network(torch.randn(64, 3, 32, 32))
    path = tmp_path_factory.mktemp("weights") / "weights.pt"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def job(data, weights, tmp_path, monkeypatch):
    """Run a training in this process; give its exit code."""
    monkeypatch.setenv("SM_OUTPUT_DIR", str(tmp_path))

    def run(*arguments: str) -> int:
        places = ["--data-dir", data, "--weights", weights, "--model-dir", tmp_path / "model"]
        places += ["--output-data-dir", tmp_path / "output", "--feature-cache", tmp_path / "features"]
        return main([*HEAD, *map(str, places), *arguments])

    return run


def test_a_search_ends_with_the_artifact_of_the_best_trial(job, tmp_path, capsys):
    assert job("--search", "6", "--views", "2", "--search-lr", "0.0001,0.1", "--search-batch-sizes", "4,12") == 0
    kinds = [line.partition("=")[0] for line in capsys.readouterr().out.splitlines()]
    assert kinds == ["trial"] * 6 + ["epoch"] * 5 + ["best_epoch", "test_loss"]

    verify_files(tmp_path / "model")
    metrics = json.loads((tmp_path / "output" / "metrics.json").read_text())
    found = json.loads((tmp_path / "output" / "search.json").read_text())
    best, loss = found["best"]["hyperparameters"], found["best"]["objective"]
    # What is recorded is what the model was trained with, and its loss is that trial's.
    assert (metrics["arguments"]["lr"], metrics["arguments"]["batch_size"]) == (best["lr"], best["batch-size"])
    assert metrics["calibration"]["valid"]["before"]["loss"] == pytest.approx(loss, abs=1e-4)
    assert min(epoch["valid_loss"] for epoch in metrics["epochs"]) == loss


def test_the_same_command_again_computes_no_features_and_gives_the_same_model(
    job, weights, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO")
    assert job("--views", "3") == 0
    version = ModelCard.load(tmp_path / "model").version
    assert "features of 120 views" in caplog.text
    assert "random weights" not in caplog.text

    before = torch.load(weights, weights_only=True)
    after = torch.load(tmp_path / "model" / WEIGHTS_FILE, weights_only=True)
    assert {name for name in after if not torch.equal(after[name], before[name])} == {"12.weight", "12.bias"}
    assert after["12.weight"].shape[0] == len(LABELS)

    def none_is_needed(_: object) -> None:
        raise AssertionError("the features are there")

    monkeypatch.setattr(Extraction, "engine", none_is_needed)
    assert job("--views", "3") == 0
    assert ModelCard.load(tmp_path / "model").version == version
