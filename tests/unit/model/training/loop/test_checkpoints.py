"""A training that ends in its middle goes on from a checkpoint as if nothing had happened."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_fixtures import CPU, PREPROCESSING, RECIPE, brightness, pretend_gpu
from training_fixtures import fill_disk

from model.core.resnet9 import resnet9
from model.training.data.augment import Augmentation
from model.training.distributed.group import ALONE
from model.training.loop.checkpoints import Checkpoints
from model.training.loop.engine import fit
from model.training.loop.metrics import Evaluation
from model.training.loop.state import DivergedError, Fit, TrainingState
from model.training.whole_files import read_hashed, write_hashed

EVERYTHING = {"mixup": 0.3, "cutmix": 1.0, "ema": 0.9, "class_weights": "sampler", "lr_decay": 0.8, "train_stages": 3}
STEPS = 3
EPOCHS = 4


def train(folder: Path | None, *, stop_after=0, changes=None, keep_best=lambda _: None, half=None, **options: Any):
    """Train until so many steps are made; our own network draws for its dropout, too."""
    torch.manual_seed(0)
    network, steps = resnet9(3), itertools.count(1)
    options = {"every": 1e9, "keep": 2, **options}
    outcome = fit(
        network,
        brightness(45, 0),
        brightness(30, 1),
        recipe=dataclasses.replace(RECIPE, batch_size=16, epochs=EPOCHS, **(changes or {})),
        augmentation=Augmentation(PREPROCESSING),
        device=CPU,
        should_stop=lambda: next(steps) == stop_after,
        on_epoch=lambda _: None,
        keep_best=keep_best,
        half=half,
        checkpoints=folder and Checkpoints(folder, {"batch_size": 16}, workers=ALONE, **options),
    )
    return network.state_dict(), outcome, next(steps) - 1


def same(one: tuple[dict[str, torch.Tensor], Fit, int], two: tuple[dict[str, torch.Tensor], Fit, int]) -> bool:
    timeless = [[dataclasses.replace(e, images_per_second=0) for e in fitted[1].history] for fitted in (one, two)]
    return (
        timeless[0] == timeless[1]
        and (one[1].best, one[1].best_epoch) == (two[1].best, two[1].best_epoch)
        and all(torch.equal(value, two[0][name]) for name, value in one[0].items())
    )


@pytest.mark.parametrize("gpu", [False, True], ids=["", "with a thread that is one batch ahead"])
def test_a_training_that_is_stopped_at_every_step_goes_on_to_the_same_weights_bit_for_bit(tmp_path, gpu, monkeypatch):
    undisturbed, kept = train(None, changes=EVERYTHING), []
    if gpu:
        pretend_gpu(monkeypatch)
    for _ in range(EPOCHS * STEPS - 1):
        _, stopped, steps = train(tmp_path, stop_after=1, changes=EVERYTHING)
        assert (stopped.interrupted, steps) == (True, 1)
    resumed = train(tmp_path, changes=EVERYTHING, keep_best=lambda outcome: kept.append(len(outcome.history)))
    assert not resumed[1].interrupted
    assert kept == [EPOCHS - 1, EPOCHS], "the best model so far is written before the first step"
    assert same(resumed, undisturbed)


def test_a_checkpoint_moves_between_machines_that_compute_in_different_types(tmp_path):
    for half in [torch.float16, None, torch.bfloat16, torch.float16]:
        assert train(tmp_path, stop_after=1, half=half)[2] == 1
    assert not train(tmp_path)[1].interrupted


def test_the_scale_of_gradients_is_in_a_checkpoint(tmp_path):
    undisturbed = train(None, half=torch.float16)
    train(tmp_path, stop_after=5, half=torch.float16)
    assert same(train(tmp_path, half=torch.float16), undisturbed)


def test_a_loss_that_is_no_number_gets_into_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingState, "is_lost", False)  # as on a GPU, where it is looked at after some steps only
    with pytest.raises(DivergedError):
        train(tmp_path, every=0, keep=9, changes={"lr": 1e20})
    states = [torch.load(io.BytesIO(read_hashed(path)))["state"] for path in tmp_path.iterdir()]
    assert states
    assert all(math.isfinite(state["total_loss"]) for state in states)


def test_neither_checkpoints_nor_metrics_grow_with_the_square_of_the_classes():
    def sizes(classes: int) -> np.ndarray:
        state, content = TrainingState(torch.nn.Linear(1, 1), RECIPE, steps=9), io.BytesIO()
        state.seconds = 1.0
        state.finish_epoch(1.0, 1, Evaluation.of(np.ones(classes), range(classes), range(classes)[::-1], classes))
        torch.save(state.capture(ALONE), content)
        return np.array([len(content.getvalue()), len(json.dumps(state.best.recorded()))])

    assert (sizes(3000) < 12 * sizes(300)).all()


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, caplog):
    undisturbed = train(None)
    train(tmp_path, every=0, stop_after=5)
    newest = max(tmp_path.iterdir())
    content = newest.read_bytes()
    newest.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    resumed = train(tmp_path)
    assert resumed[2] == EPOCHS * STEPS - 4
    assert same(resumed, undisturbed)
    assert newest.name in caplog.text


def test_a_damaged_checkpoint_does_not_take_the_place_of_those_that_follow(tmp_path):
    train(tmp_path, stop_after=5)
    damaged = next(tmp_path.iterdir())
    damaged.write_bytes(b"")
    train(tmp_path, stop_after=2, keep=1)  # begins anew
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-00001-step-0000002.checkpoint"]
    assert train(tmp_path, keep=1)[2] == EPOCHS * STEPS - 2


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    folder = tmp_path / "checkpoints"
    train(folder, stop_after=4)
    payload = pickle.dumps({"identity": {"batch_size": 16}, "state": Attack()})
    write_hashed(folder / "epoch-99999-step-0000001.checkpoint", payload)
    assert train(folder)[2] == EPOCHS * STEPS - 4
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_does_not_end_the_training(tmp_path, monkeypatch, caplog):
    undisturbed = train(None)
    train(tmp_path, stop_after=2)
    good = next(tmp_path.iterdir())
    fill_disk(monkeypatch)
    assert same(train(tmp_path, every=0), undisturbed)
    assert list(tmp_path.iterdir()) == [good]
    assert "No space left on device" in caplog.text
    assert f"it begins again from {good.stem}" in caplog.text
