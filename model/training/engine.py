"""The training loop: epochs over decoded pictures, best weights by validation loss.

Everything random comes from the recipe's seed, so on one machine the same call gives the same weights.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..metrics import EpochMetrics, Evaluation
from ..transforms import Preprocessing
from .augment import Augmentation
from .data import Pictures

log = logging.getLogger(__name__)

# The share of the training during which the learning rate rises to its peak before it falls to nearly nothing.
WARM_UP = 0.3
# Evaluation keeps no gradients, so its batches may be larger than training's without needing more memory.
EVALUATION_BATCH = 256


class DivergedError(Exception):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes
    ----------
    epochs : int
        At most this many.
    batch_size : int
        Pictures per step, at least 2.
    lr : float
        Peak learning rate of AdamW, reached after `WARM_UP` of the steps.
    weight_decay : float
        Applied to the weights of convolutions and linear layers, not to biases and normalisation.
    label_smoothing : float
        Share of the target's probability that is spread over all classes, 0 to below 1.
    patience : int
        Stop after this many epochs without a lower validation loss; 0: never.
    seed : int
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    label_smoothing: float
    patience: int
    seed: int


@dataclass(frozen=True)
class Fit:
    """What `fit` returns.

    Attributes
    ----------
    history : list of EpochMetrics
        One per epoch that was finished.
    best_epoch : int
        The one with the lowest validation loss, whose weights the network has now; 0 when no epoch was finished.
    best : Evaluation or None
        Its validation.
    interrupted : bool
        Whether `should_stop` ended the training.
    """

    history: list[EpochMetrics]
    best_epoch: int
    best: Evaluation | None
    interrupted: bool


def fit(
    network: nn.Module,
    train: Pictures,
    valid: Pictures,
    *,
    recipe: Recipe,
    augmentation: Augmentation,
    device: torch.device,
    should_stop: Callable[[], bool],
    on_epoch: Callable[[EpochMetrics], None],
) -> Fit:
    """Train a network and leave the weights of its best epoch in it.

    Parameters
    ----------
    network : nn.Module
        From float32 [N, 3, S, S] to logits [N, classes]; moved to `device`.
    train : Pictures
        Whole pictures, squeezed into squares (`data.whole_picture`).
    valid : Pictures
        As the server will see them (`Preprocessing.crop`).
    recipe, augmentation, device
    should_stop : callable
        Asked after every step; True ends the training within that step's time.
    on_epoch : callable
        Called with the metrics of every finished epoch.

    Raises
    ------
    DivergedError
        When the loss becomes infinite or not a number.
    """
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
    generator = torch.Generator().manual_seed(recipe.seed)
    steps = math.ceil(len(train) / recipe.batch_size)
    optimizer = torch.optim.AdamW(_parameter_groups(network, recipe.weight_decay), lr=recipe.lr, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.lr, total_steps=recipe.epochs * steps, pct_start=WARM_UP
    )
    history: list[EpochMetrics] = []
    best: Evaluation | None = None
    best_epoch, best_weights, interrupted = 0, copy.deepcopy(network.state_dict()), False
    for epoch in range(1, recipe.epochs + 1):
        started = time.perf_counter()
        train_loss = train_one_epoch(
            network,
            _batches(train, steps, generator, augmentation, device),
            optimizer,
            schedule,
            label_smoothing=recipe.label_smoothing,
            should_stop=should_stop,
        )
        if train_loss is None:
            interrupted = True
            break
        seconds = time.perf_counter() - started
        evaluation = evaluate(network, valid, augmentation.preprocessing, device)
        if not math.isfinite(train_loss + evaluation.loss):
            raise DivergedError(
                f"the training diverged in epoch {epoch}: the loss is {train_loss} (training) and {evaluation.loss} "
                f"(validation); use a learning rate below {recipe.lr:g}"
            )
        history.append(EpochMetrics(epoch, train_loss, evaluation.loss, evaluation.accuracy, len(train) / seconds))
        on_epoch(history[-1])
        if best is None or evaluation.loss < best.loss:
            best, best_epoch, best_weights = evaluation, epoch, copy.deepcopy(network.state_dict())
        elif recipe.patience and epoch - best_epoch >= recipe.patience:
            log.info("no lower validation loss for %d epochs: stopping after epoch %d", recipe.patience, epoch)
            break
    network.load_state_dict(best_weights)
    return Fit(history, best_epoch, best, interrupted)


def train_one_epoch(
    network: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    label_smoothing: float,
    should_stop: Callable[[], bool],
) -> float | None:
    """Make one step per batch and return the mean loss over the pictures, in nats; None when `should_stop` says so.

    The loss that is returned is without label smoothing, so that it compares with the validation's.
    """
    network.train()
    total, pictures = torch.zeros((), dtype=torch.float64), 0
    for inputs, targets in batches:
        logits = network(inputs)
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(logits, targets, label_smoothing=label_smoothing).backward()
        optimizer.step()
        schedule.step()
        total = total.to(logits.device) + functional.cross_entropy(logits.detach(), targets, reduction="sum")
        pictures += len(targets)
        if should_stop():
            return None
    return total.item() / pictures


@torch.inference_mode()
def evaluate(network: nn.Module, pictures: Pictures, preprocessing: Preprocessing, device: torch.device) -> Evaluation:
    """Measure a network on pictures cut as the server cuts them (`Preprocessing.crop`)."""
    network.eval()
    losses: list[float] = []
    predicted: list[int] = []
    classes = 0
    for start in range(0, len(pictures), EVALUATION_BATCH):
        inputs = torch.from_numpy(preprocessing.normalise(pictures.pixels[start : start + EVALUATION_BATCH]))
        targets = torch.from_numpy(pictures.targets[start : start + EVALUATION_BATCH]).to(device)
        logits = network(inputs.to(device, memory_format=torch.channels_last))
        losses += functional.cross_entropy(logits, targets, reduction="none").tolist()
        predicted += logits.argmax(dim=1).tolist()
        classes = logits.shape[1]
    return Evaluation.of(losses, pictures.targets.tolist(), predicted, classes)


def _batches(
    pictures: Pictures, steps: int, generator: torch.Generator, augmentation: Augmentation, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every picture once, in random order, in `steps` batches whose sizes differ by at most one.

    A last batch of what is left over could be a single picture, on which batch normalisation cannot work.
    """
    order = torch.randperm(len(pictures), generator=generator).numpy()
    for chosen in np.array_split(order, steps):
        pixels = torch.from_numpy(pictures.pixels[chosen]).to(device)
        aspects = torch.from_numpy(pictures.aspects[chosen])
        yield augmentation(pixels, aspects, generator), torch.from_numpy(pictures.targets[chosen]).to(device)


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
