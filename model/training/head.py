"""Train a network's head on features that were computed beforehand: an epoch takes milliseconds."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..metrics import EpochMetrics, Evaluation
from .engine import WARM_UP, DivergedError, Fit, Recipe, _parameter_groups
from .feature_store import Features
from .features import Views

log = logging.getLogger(__name__)


def fit_head(
    head: nn.Module,
    views: Views,
    *,
    recipe: Recipe,
    should_stop: Callable[[], bool],
    on_epoch: Callable[[EpochMetrics], bool | None],
) -> Fit:
    """Train a head and leave the weights of its best epoch in it.

    The recipe means what it means to `engine.fit`. Every epoch takes the next view of all pictures, and after the last
    one the first again.

    Parameters
    ----------
    head : nn.Module
        From float32 [N, D] to logits [N, classes], on the CPU: there is too little to compute for a GPU.
    views : Views
    recipe : Recipe
    should_stop : callable
        Asked after every epoch.
    on_epoch : callable
        Called with the metrics of every finished epoch; True ends the training, which is not an interruption.

    Raises
    ------
    DivergedError
        When the loss becomes infinite or not a number.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    torch.manual_seed(recipe.seed)  # dropout draws from the global generator
    counts = [math.ceil(len(view) / recipe.batch_size) for view in views.train]
    steps = [counts[epoch % len(counts)] for epoch in range(recipe.epochs)]
    optimizer = torch.optim.AdamW(_parameter_groups(head, recipe.weight_decay), lr=recipe.lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.lr, total_steps=sum(steps), pct_start=WARM_UP
    )
    history: list[EpochMetrics] = []
    best: Evaluation | None = None
    best_epoch, best_weights, interrupted = 0, copy.deepcopy(head.state_dict()), False
    for epoch in range(1, recipe.epochs + 1):
        started = time.perf_counter()
        view = views.train[(epoch - 1) % len(views.train)]
        train_loss = _train_one_epoch(
            head, view, steps[epoch - 1], generator, optimizer, schedule, recipe.label_smoothing
        )
        seconds = time.perf_counter() - started
        evaluation = evaluate_head(head, views.valid)
        if not math.isfinite(train_loss + evaluation.loss):
            raise DivergedError(
                f"the training diverged in epoch {epoch}: the loss is {train_loss} (training) and {evaluation.loss} "
                f"(validation); use a learning rate below {recipe.lr:g}"
            )
        history.append(EpochMetrics(epoch, train_loss, evaluation.loss, evaluation.accuracy, len(view) / seconds))
        if best is None or evaluation.loss < best.loss:
            best, best_epoch, best_weights = evaluation, epoch, copy.deepcopy(head.state_dict())
        if on_epoch(history[-1]):
            break
        if recipe.patience and epoch - best_epoch >= recipe.patience:
            log.info("no lower validation loss for %d epochs: stopping after epoch %d", recipe.patience, epoch)
            break
        if should_stop() and epoch < recipe.epochs:
            interrupted = True
            break
    head.load_state_dict(best_weights)
    return Fit(history, best_epoch, best, interrupted)


def _train_one_epoch(
    head: nn.Module,
    view: Features,
    steps: int,
    generator: torch.Generator,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    label_smoothing: float,
) -> float:
    """Make `steps` steps over all features in random order; return the mean loss without label smoothing, in nats."""
    head.train()
    order = torch.randperm(len(view), generator=generator)
    # Copying everything into the new order once is faster than picking every batch.
    values, targets = torch.from_numpy(view.values)[order], torch.from_numpy(view.targets)[order]
    logits_of_batches: list[Tensor] = []
    for inputs, wanted in zip(values.tensor_split(steps), targets.tensor_split(steps), strict=True):
        logits = head(inputs)
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(logits, wanted, label_smoothing=label_smoothing).backward()
        optimizer.step()
        schedule.step()
        logits_of_batches.append(logits.detach())
    return functional.cross_entropy(torch.cat(logits_of_batches), targets).item()


@torch.inference_mode()
def evaluate_head(head: nn.Module, features: Features) -> Evaluation:
    """Measure a head on features."""
    head.eval()
    logits, targets = head(torch.from_numpy(features.values)), torch.from_numpy(features.targets)
    losses = functional.cross_entropy(logits, targets, reduction="none")
    return Evaluation.of(losses.tolist(), features.targets.tolist(), logits.argmax(dim=1).tolist(), logits.shape[1])
