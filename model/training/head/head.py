"""Train a network's head on features that were computed beforehand: an epoch takes milliseconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import Recipe
from ..data.batches import Batch
from ..data.imbalance import draw_order, image_weights
from ..loop.metrics import EpochMetrics, Evaluation
from ..loop.outcome import Fit, KeepBest
from ..loop.state import TrainingState
from .feature_store import Features
from .features import Views


def fit_head(
    head: nn.Module,
    views: Views,
    *,
    recipe: Recipe,
    should_stop: Callable[[], bool],
    on_epoch: Callable[[EpochMetrics], bool | None],
    keep_best: KeepBest = lambda outcome, weights: None,
) -> Fit:
    """Train a head and leave the weights of its best epoch in it.

    The recipe means what it means to `engine.fit`. Every epoch takes the next view of all images, and after the last
    one the first again.

    Parameters
    ----------
    head : nn.Module
        From float32 [N, D] to logits [N, classes], on the CPU: there is too little to compute for a GPU.
    views, recipe
    should_stop : callable
        Asked after every epoch.
    on_epoch : callable
        Called with the metrics of every finished epoch; True ends the training, which is not an interruption.
    keep_best : callable
        Called after every epoch, as `engine.fit` does.

    Raises
    ------
    DivergedError
        When the loss becomes infinite or not a number.
    """
    torch.manual_seed(recipe.seed)  # dropout draws from the global generator
    counts = [math.ceil(len(view) / recipe.batch_size) for view in views.train]
    steps = [counts[epoch % len(counts)] for epoch in range(recipe.epochs)]
    state = TrainingState(head, recipe, steps=sum(steps))
    ended = interrupted = False
    while state.epoch <= recipe.epochs and not ended and not state.out_of_patience(recipe.patience):
        view = views.train[(state.epoch - 1) % len(views.train)]
        started = time.perf_counter()
        train_loss = _train_one_epoch(head, view, steps[state.epoch - 1], state, recipe)
        state.seconds = time.perf_counter() - started
        metrics = state.finish_epoch(train_loss, len(view), evaluate_head(state.evaluated, views.valid))
        keep_best(state.outcome(), lambda: state.best_weights)
        ended = bool(on_epoch(metrics))
        if state.epoch <= recipe.epochs and not ended and should_stop():
            ended = interrupted = True
    head.load_state_dict(state.best_weights)
    return state.outcome(interrupted=interrupted)


def _train_one_epoch(head: nn.Module, view: Features, steps: int, state: TrainingState, recipe: Recipe) -> float:
    """Make `steps` steps over all features; return the mean loss without label smoothing and weights, in nats."""
    head.train()
    order = draw_order(view.targets, recipe.class_weights, state.generator)
    # Copying everything into the new order once is faster than picking every batch.
    values, targets = torch.from_numpy(view.values[order]), torch.from_numpy(view.targets[order])
    weights = torch.from_numpy(image_weights(view.targets)[order]) if recipe.class_weights == "balanced" else None
    seen: list[Tensor] = []
    for indices in torch.arange(len(order)).tensor_split(steps):  # their sizes differ by at most one
        part = slice(int(indices[0]), int(indices[-1]) + 1)
        batch = Batch(
            inputs=values[part],
            targets=targets[part],
            mixed_in=None,
            own=1.0,
            weights=None if weights is None else weights[part],
            scale=1.0,
        )
        logits = head(batch.inputs)
        state.update(batch.loss(logits, label_smoothing=recipe.label_smoothing))
        seen.append(logits.detach())
    return functional.cross_entropy(torch.cat(seen), targets).item()


@torch.inference_mode()
def evaluate_head(head: nn.Module, features: Features) -> Evaluation:
    """Measure a head on features."""
    head.eval()
    logits, targets = head(torch.from_numpy(features.values)), torch.from_numpy(features.targets)
    losses = functional.cross_entropy(logits, targets, reduction="none")
    return Evaluation.of(losses.tolist(), features.targets.tolist(), logits.argmax(dim=1).tolist(), logits.shape[1])
