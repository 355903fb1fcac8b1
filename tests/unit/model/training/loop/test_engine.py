from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from engine_fixtures import CPU, PREPROCESSING, RECIPE, brightness, small_network
from torch import nn

from model.training.config import Recipe
from model.training.data.augment import Augmentation
from model.training.data.batches import Batch
from model.training.loop import engine, validation
from model.training.loop.engine import Execution, fit
from model.training.loop.outcome import DivergedError
from model.training.loop.state import TrainingState
from model.training.loop.validation import evaluate


def run(network=None, recipe=RECIPE, train=None, valid=None, should_stop=lambda: False, execution=None, **changes):
    epochs = []
    network = network or small_network()
    outcome = fit(
        network,
        train or brightness(45, 0),
        valid or brightness(30, 1),
        recipe=dataclasses.replace(recipe, **changes),
        augmentation=Augmentation(PREPROCESSING, brightness=0, contrast=0),
        device=CPU,
        should_stop=should_stop,
        on_epoch=epochs.append,
        execution=execution,
    )
    assert epochs == outcome.history
    return network, outcome


def test_it_learns_also_from_mixed_images_and_reports_the_loss_without_label_smoothing():
    _, outcome = run(epochs=15)
    assert outcome.best.accuracy == 1.0
    assert not outcome.interrupted
    _, mixed = run(epochs=25, mixup=0.2, cutmix=1.0, lr=0.02)
    assert mixed.best.accuracy > 0.9
    _, smoothed = run(epochs=40, label_smoothing=0.3, lr=0.02)
    # With smoothing of 0.3 over three classes the loss cannot fall below 0.61.
    assert smoothed.history[-1].train_loss < 0.5


def test_the_network_is_left_with_the_weights_of_its_best_epoch_and_patience_ends_a_training():
    # The validation images are labelled wrong, so that learning makes the validation ever worse.
    valid = brightness(30, 1)
    wrong = dataclasses.replace(valid, targets=(valid.targets + 1) % 3)
    network, outcome = run(valid=wrong, epochs=50, patience=3, lr=0.05)
    losses = [epoch.valid_loss for epoch in outcome.history]
    assert outcome.best.loss == min(losses)
    assert outcome.best_epoch == losses.index(min(losses)) + 1 == len(losses) - 3
    assert not outcome.interrupted
    assert evaluate(network, wrong, PREPROCESSING, CPU) == outcome.best


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    (one, first), (two, again), (three, _) = run(), run(), run(seed=4)
    assert [dataclasses.replace(epoch, images_per_second=0) for epoch in first.history] == [
        dataclasses.replace(epoch, images_per_second=0) for epoch in again.history
    ]
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
    assert not all(torch.equal(value, three.state_dict()[name]) for name, value in one.state_dict().items())


def test_a_request_to_stop_ends_it_within_a_step_and_keeps_the_best():
    steps = iter(range(10_000))
    network, outcome = run(should_stop=lambda: next(steps) == 14)  # in the third epoch of six steps each
    assert outcome.interrupted
    assert next(steps) == 15
    assert len(outcome.history) == 2
    assert evaluate(network, brightness(30, 1), PREPROCESSING, CPU) == outcome.best
    _, outcome = run(should_stop=lambda: True)
    assert (outcome.best, outcome.best_epoch, outcome.history, outcome.interrupted) == (None, 0, [], True)


def test_divergence_is_an_error_that_names_the_learning_rate():
    with pytest.raises(DivergedError, match=r"diverged in epoch 1.*below 1e\+20"):
        run(lr=1e20)


@pytest.mark.parametrize("count", [9, 17, 45])
def test_no_batch_is_a_single_image_and_every_image_is_seen_once(count):
    # Batch normalisation over one image of 1 x 1 raises; 9 and 17 images leave one over from batches of 8.
    sizes = []

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, 3))

        def forward(self, batch):
            if self.training:
                sizes.append(len(batch))
            return self.inner(batch)

    run(Counting(), train=brightness(count, 0), epochs=1)
    assert sum(sizes) == count
    assert max(sizes) <= 8
    assert min(sizes) >= 2


def test_the_loss_is_a_mean_over_images_whatever_the_batches(monkeypatch):
    network, images = small_network().eval(), brightness(30, 1)
    whole = evaluate(network, images, PREPROCESSING, CPU)
    monkeypatch.setattr(validation, "BATCH", 7)
    parts = evaluate(network, images, PREPROCESSING, CPU)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    inputs = torch.from_numpy(PREPROCESSING.normalise(images.pixels))
    expected = nn.functional.cross_entropy(network(inputs), torch.from_numpy(images.targets))
    assert whole.loss == pytest.approx(expected.item(), rel=1e-5)


def test_frozen_stages_keep_their_weights_and_statistics():
    before = small_network().state_dict()
    network, _ = run(train_stages=1)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"5.weight", "5.bias"}


def test_a_smaller_learning_rate_toward_the_input_changes_the_input_less():
    def moved(lr_decay: float) -> float:
        before = small_network().state_dict()
        network, _ = run(lr_decay=lr_decay, epochs=1)
        return float((network.state_dict()["0.weight"] - before["0.weight"]).norm())

    assert moved(0.01) < 0.1 * moved(1.0)


def test_the_moving_average_is_what_is_kept():
    network = nn.Linear(2, 1, bias=False)
    state = TrainingState(network, Recipe(lr=0.1, weight_decay=0, ema=0.75), steps=10)
    expected = None
    for _ in range(4):
        state.update(network(torch.ones(1, 2)).sum())
        weight = network.weight.detach().clone()
        expected = weight if expected is None else 0.75 * expected + 0.25 * weight
    torch.testing.assert_close(state.evaluated.weight.detach(), expected)
    assert not torch.equal(network.weight, expected)


def test_a_compiled_network_keeps_its_plain_names(monkeypatch):
    # The backend that compiles takes its time; what could go wrong here does not depend on it.
    monkeypatch.setattr(engine.torch, "compile", functools.partial(torch.compile, backend="eager"))
    plain, expected = run()
    network, outcome = run(execution=Execution(compile=True))
    assert network.state_dict().keys() == plain.state_dict().keys()
    assert outcome.best.loss == pytest.approx(expected.best.loss, abs=1e-3)


def test_half_precision_trains_and_leaves_a_network_in_single_precision(monkeypatch):
    plain_loss, of_losses = Batch.plain_loss, set()
    monkeypatch.setattr(
        Batch, "plain_loss", lambda batch, logits: of_losses.add(logits.dtype) or plain_loss(batch, logits)
    )
    network, seen = small_network(), set()
    network[0].register_forward_hook(lambda *arguments: seen.add((network.training, arguments[-1].dtype)))
    _, outcome = run(network, epochs=15, execution=Execution(half=torch.bfloat16))
    assert seen == {(True, torch.bfloat16), (False, torch.float32)}
    assert of_losses == {torch.float32}
    assert outcome.best.accuracy == 1.0
    assert {value.dtype for value in network.parameters()} == {torch.float32}
