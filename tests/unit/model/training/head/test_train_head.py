"""`--mode head` from the command line to the artifact, and once more."""

from __future__ import annotations

import json

import pytest
import torch
from training_fixtures import write_data_set

from model.core.artifact import WEIGHTS_FILE, ModelCard, verify_files
from model.core.network import build
from model.train import main
from model.training.head.extraction import Extraction


def test_a_search_ends_with_the_artifact_of_the_best_trial_and_again_without_computing_features(
    tmp_path, monkeypatch, capsys
):
    torch.manual_seed(5)
    before = build("resnet9", 7)  # for other classes
    before(torch.randn(64, 3, 32, 32))  # the statistics of batch normalisation
    torch.save(before.state_dict(), tmp_path / "weights.pt")
    places = {"data-dir": write_data_set(tmp_path / "data"), "weights": tmp_path / "weights.pt"}
    places |= {name: tmp_path / name for name in ("model-dir", "output-data-dir", "feature-cache")}
    command = [*(f"--{name}={path}" for name, path in places.items()), "--mode=head", "--input-size=32", "--epochs=5"]
    command += ["--num-cpus=2", "--precision=fp32", "--views=2"]
    command += ["--search=6", "--search-lr=0.0001,0.1", "--search-batch-sizes=4,12"]
    assert main(command) == 0
    kinds = [line.partition("=")[0] for line in capsys.readouterr().out.splitlines()]
    assert kinds == ["trial"] * 6 + ["epoch"] * 5 + ["best_epoch", "test_loss"]

    version = verify_files(tmp_path / "model-dir").version
    metrics, found = (
        json.loads((tmp_path / "output-data-dir" / f"{n}.json").read_text()) for n in ("metrics", "search")
    )
    best, loss = found["best"]["hyperparameters"], found["best"]["objective"]
    # What is recorded is what the model was trained with, and its loss is that trial's.
    assert (metrics["arguments"]["lr"], metrics["arguments"]["batch_size"]) == (best["lr"], best["batch-size"])
    assert metrics["calibration"]["valid"]["before"]["loss"] == pytest.approx(loss, abs=1e-4)
    assert min(epoch["valid_loss"] for epoch in metrics["epochs"]) == loss
    after = torch.load(tmp_path / "model-dir" / WEIGHTS_FILE, weights_only=True)
    old = before.state_dict()
    assert {name for name in after if not torch.equal(after[name], old[name])} == {"12.weight", "12.bias"}

    def none_is_needed(_: object) -> None:
        raise AssertionError("the features are there")

    monkeypatch.setattr(Extraction, "engine", none_is_needed)
    assert main(command) == 0
    assert ModelCard.load(tmp_path / "model-dir").version == version
