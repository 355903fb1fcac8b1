from __future__ import annotations

import dataclasses

import pytest
import torch
from engine_fixtures import CPU, PREPROCESSING, RECIPE, brightness, small_network
from torch import nn

from model.core.network import NetworkError, build
from model.training.data.augment import Augmentation
from model.training.distributed.group import Workers
from model.training.loop.engine import evaluate, fit, half_type
from model.training.loop.state import DivergedError, parameter_groups
from model.training.loop.stopping import hot_epochs

GPU = torch.device("cuda")


def run(
    network=None, valid=None, should_stop=lambda: False, half=None, accumulate=1, train=None, keep_best=lambda _: None,
    **changes,
):  # fmt: skip
    epochs = []
    network = network or small_network()
    outcome = fit(
        network,
        train or brightness(45, 0),
        valid or brightness(30, 1),
        recipe=dataclasses.replace(RECIPE, **changes),
        augmentation=Augmentation(PREPROCESSING, brightness=0, contrast=0),
        device=CPU,
        should_stop=should_stop,
        on_epoch=epochs.append,
        keep_best=keep_best,
        half=half,
        accumulate=accumulate,
    )
    assert epochs == outcome.history
    return network, outcome


def test_it_learns_also_from_mixed_images_and_reports_the_loss_without_label_smoothing():
    _, mixed = run(epochs=25, mixup=0.2, cutmix=1.0, lr=0.02)
    assert mixed.best.accuracy > 0.9
    _, smoothed = run(epochs=40, label_smoothing=0.3, lr=0.02)
    assert smoothed.best.accuracy == 1.0
    # With smoothing of 0.3 over three classes the loss cannot fall below 0.61.
    assert smoothed.history[-1].train_loss < 0.5


def test_the_network_is_left_with_its_best_epoch_and_patience_ends_a_training_after_its_hot_epochs():
    # The validation images are labelled wrong, so that learning makes the validation ever worse.
    valid = brightness(30, 1)
    wrong = dataclasses.replace(valid, targets=(valid.targets + 1) % 3)
    network, outcome = run(valid=wrong, epochs=50, patience=3, lr=0.05)
    losses = [epoch.valid_loss for epoch in outcome.history]
    assert outcome.best.loss == min(losses)
    assert outcome.best_epoch == losses.index(min(losses)) + 1 < hot_epochs(50)
    assert len(losses) == hot_epochs(50) + 3
    assert not outcome.interrupted
    assert evaluate(network, wrong, PREPROCESSING, CPU) == outcome.best


def test_a_request_to_stop_ends_it_within_a_step_and_keeps_the_best():
    steps = iter(range(10_000))
    network, outcome = run(should_stop=lambda: next(steps) == 14)  # in the third epoch of six steps each
    assert outcome.interrupted
    assert next(steps) == 15
    assert len(outcome.history) == 2
    assert evaluate(network, brightness(30, 1), PREPROCESSING, CPU) == outcome.best
    _, outcome = run(should_stop=lambda: True)
    assert (outcome.best, outcome.best_epoch, outcome.history, outcome.interrupted) == (None, 0, [], True)


def test_a_training_that_diverges_before_its_first_epoch_is_an_error_that_names_the_learning_rate():
    with pytest.raises(DivergedError, match=r"diverged in epoch 1.*below 1e\+20"):
        run(lr=1e20)


@pytest.mark.parametrize(("training", "steps"), [(True, 14), (False, 18)])  # six steps an epoch
def test_a_training_that_diverges_later_keeps_its_best_epoch_and_is_noticed_at_the_step(training, steps):
    network, steps_made, epochs_kept = small_network(), [], []

    def lose(*arguments):
        due = len(steps_made) == 13 if network.training else len(epochs_kept) == 2
        return arguments[-1] * torch.nan if due and network.training == training else None

    network.register_forward_hook(lose)
    _, outcome = run(network, should_stop=lambda: bool(steps_made.append(1)), keep_best=epochs_kept.append)
    assert (outcome.diverged_epoch, len(outcome.history), outcome.interrupted) == (3, 2, False)
    assert outcome.best_epoch in (1, 2)
    assert len(steps_made) == steps
    assert all(value.isfinite().all() for value in network.state_dict().values())


def test_frozen_stages_keep_their_weights_and_statistics():
    before = small_network().state_dict()
    network, _ = run(train_stages=1)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"5.weight", "5.bias"}
    with pytest.raises(NetworkError, match=r"has 3 stages; --train-stages 4"):
        run(train_stages=4)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_trains_and_validates_and_leaves_a_network_in_single_precision(half):
    network, seen = small_network(), set()
    network[0].register_forward_hook(lambda *arguments: seen.add((network.training, arguments[-1].dtype)))
    _, outcome = run(network, epochs=15, half=half)
    assert seen == {(True, half), (False, half)}
    assert outcome.best.accuracy == 1.0
    assert {value.dtype for value in network.parameters()} == {torch.float32}


def test_a_validation_that_is_too_large_for_float16_is_no_divergence():
    network = small_network()
    network[0].register_forward_hook(lambda *given: None if network.training else given[-1] * 1e5 * 1e-5)
    assert run(network, half=torch.float16)[1].diverged_epoch == 0


@pytest.mark.parametrize(
    ("choice", "device", "cpu", "gpu", "others", "expected"),
    [
        ("auto", CPU, "bf16", True, None, None),
        ("auto", GPU, "", True, torch.bfloat16, torch.bfloat16),
        ("auto", GPU, "", True, torch.float16, torch.float16),
        ("auto", GPU, "", True, None, None),
        ("auto", GPU, "", False, torch.bfloat16, torch.float16),
        ("on", CPU, "sse", True, torch.bfloat16, None),
        ("on", CPU, "amx_bf16", True, torch.bfloat16, torch.bfloat16),
    ],
)
def test_what_all_workers_compute_in_16_bits(choice, device, cpu, gpu, others, expected, monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "any", cpu: True})
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or gpu)
    monkeypatch.setattr(Workers, "all_gather", lambda _, own: [own, others])
    assert half_type(choice, device) is expected
    assert ("no instructions for bfloat16" in caplog.text) == (cpu == "sse")


@pytest.mark.parametrize(("accumulate", "largest"), [(1, 32), (2, 16), (99, 8)])
def test_evaluation_takes_at_most_four_times_the_images_of_training(accumulate, largest):
    network, sizes = small_network(), {True: set(), False: set()}
    network[0].register_forward_pre_hook(lambda _, inputs: sizes[network.training].add(len(inputs[0])))
    run(network, brightness(100, 1), epochs=1, accumulate=accumulate)
    assert max(sizes[False]) == largest
    assert min(sizes[True]) >= 2


def test_five_images_in_batches_of_two_train_a_network_that_cannot_normalise_one():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 3))
    _, outcome = run(network, train=brightness(5, 0), batch_size=2, accumulate=2)
    assert len(outcome.history) == RECIPE.epochs


@pytest.mark.parametrize("half", [None, torch.float16])
def test_gradients_are_clipped_to_a_norm_that_scaling_does_not_change(half):
    # AdamW's steps depend on the gradients' size only where its epsilon of 1e-8 is larger.
    options = {"half": half, "epochs": 15, "weight_decay": 0.0}
    assert run(clip_gradient=1e-5, **options)[1].best.accuracy == 1.0
    network, _ = run(clip_gradient=1e-13, **options)
    for name, value in small_network().named_parameters():
        torch.testing.assert_close(network.get_parameter(name), value, atol=1e-4, rtol=0)


@pytest.mark.parametrize("architecture", ["resnet9", "mobilenet_v3_small", "vit_b_16", "densenet121", "swin_t"])
def test_every_parameter_is_trained_once_the_classifier_fastest(architecture):
    with torch.device("meta"):
        network = build(architecture, 5)
    groups = parameter_groups(network, lr=0.1, weight_decay=0.1, lr_decay=0.5)
    rates = [(id(p), group["lr"]) for group in groups for p in group["params"]]
    assert sorted(key for key, _ in rates) == sorted(id(p) for p in network.parameters())
    by_depth = [dict(rates)[id(p)] for p in network.parameters()]
    assert by_depth[-1] == 0.1 == max(by_depth)
    assert by_depth[0] == min(by_depth) == pytest.approx(0.1 * 0.5 ** (len(set(by_depth)) - 1))
    assert len(set(by_depth)) >= 4
