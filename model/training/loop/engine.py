"""The training loop: epochs over decoded pictures, best weights by validation loss.

Everything random comes from the recipe's seed, so on one machine the same call gives the same weights. Several workers
make the same steps as one would, each with its part of every batch; a checkpoint holds all that the next step needs.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from ...core.transforms import Preprocessing
from ..data.augment import Augmentation
from ..data.batches import Batch, Batches
from ..data.dataset import Pictures
from ..distributed.group import ALONE, Workers
from .checkpoints import Checkpoints
from .metrics import EpochMetrics, Evaluation
from .optimization import freeze
from .state import TrainingState

log = logging.getLogger(__name__)

# Evaluation keeps no gradients, so its batches may be larger than training's without needing more memory.
EVALUATION_BATCH = 256
# The speed of one worker alone is measured over so many steps, or over fewer in so many seconds.
ALONE_STEPS = 5
ALONE_SECONDS = 2.0


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
        Pictures per step on all workers together, at least 2.
    lr : float
        Peak learning rate of AdamW, reached after `state.WARM_UP` of the steps.
    weight_decay : float
        Applied to the weights of convolutions and linear layers, not to biases and normalisation.
    label_smoothing : float
        Share of the target's probability that is spread over all classes, 0 to below 1.
    patience : int
        Stop after this many epochs without a lower validation loss; 0: never.
    seed : int
    train_stages : int
        Train only so many of the last stages, the classifier among them (`optimization.stages`); 0: all.
    lr_decay : float
        Learning rate of a stage over that of the next one, above 0 to 1.
    mixup, cutmix : float
        Alphas of the two ways to mix pictures (`mixing.draw_mixture`); 0: off.
    ema : float
        Decay per step of the moving average of the weights, which is then what is validated and kept; 0: off.
    class_weights : str
        One of `arguments.CLASS_WEIGHTS`.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    label_smoothing: float
    patience: int
    seed: int
    train_stages: int = 0
    lr_decay: float = 1.0
    mixup: float = 0.0
    cutmix: float = 0.0
    ema: float = 0.0
    class_weights: str = "none"


@dataclass(frozen=True)
class Execution:
    """What makes the same training faster, or spreads it.

    Attributes
    ----------
    workers : Workers
    checkpoints : Checkpoints or None
    half : torch.dtype or None
        What to compute in where the result allows it (`mixed_precision.half_type`); None: float32 throughout.
    compile : bool
        Compile the training step with `torch.compile`.
    """

    workers: Workers = ALONE
    checkpoints: Checkpoints | None = None
    half: torch.dtype | None = None
    compile: bool = False


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
    workers : int
        How many processes trained.
    efficiency : float or None
        The speed of all workers over their number times the speed of one that trains alone on batches of the same
        share; None for one worker, and where it is not measured: with `compile`, and with SyncBatchNorm.
    """

    history: list[EpochMetrics]
    best_epoch: int
    best: Evaluation | None
    interrupted: bool
    workers: int = 1
    efficiency: float | None = None

    @property
    def images_per_second(self) -> float:
        """Training pictures per second on all workers, over all epochs: the harmonic mean of the epochs' figures."""
        return len(self.history) / sum(1 / epoch.images_per_second for epoch in self.history)


# Called with the outcome so far and with what returns the weights of the best epoch.
KeepBest = Callable[[Fit, Callable[[], Mapping[str, Any]]], None]


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
    keep_best: KeepBest = lambda outcome, weights: None,
    execution: Execution | None = None,
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
        Asked after every step; True on any worker ends the training of all within that step's time.
    on_epoch : callable
        Called with the metrics of every finished epoch.
    keep_best : callable
        Called after every epoch, and with what a checkpoint holds, with the outcome so far and with what returns the
        weights of the best epoch.
    execution : Execution, optional
        Every worker calls this function with the same arguments but for its rank, and returns the same.

    Raises
    ------
    DivergedError
        When the loss becomes infinite or not a number.
    CheckpointError
        When the checkpoints are of another training.
    DistributedError
        When the batches are too small for the workers.
    NetworkError
        When there are fewer stages than are to be trained.
    """
    execution = execution or Execution()
    workers, checkpoints = execution.workers, execution.checkpoints
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
    frozen = freeze(network, recipe.train_stages) if recipe.train_stages else []
    batches = Batches(
        train,
        batch_size=recipe.batch_size,
        augmentation=augmentation,
        device=device,
        workers=workers,
        class_weights=recipe.class_weights,
        mixup=recipe.mixup,
        cutmix=recipe.cutmix,
    )
    if workers.rank:
        torch.manual_seed(recipe.seed + workers.rank)  # dropout draws other noise for another worker's images
    alone = None
    # What is compiled for one worker would not be what all of them run, and SyncBatchNorm needs all of them.
    alike = not execution.compile and not any(isinstance(layer, nn.SyncBatchNorm) for layer in network.modules())
    if workers.size > 1 and alike:
        alone = _rate_alone(network, batches, recipe, device, execution)
    state = _new_state(network, recipe.epochs * batches.steps, recipe, device, execution)
    if checkpoints is not None and (saved := checkpoints.load()) is not None:
        state.restore(saved, workers)
        if state.best is not None:  # the instance that had written its model is gone
            keep_best(_outcome(state, workers), lambda: state.best_weights)
    interrupted = False
    forward = _forward(network, device, execution)
    while state.epoch <= recipe.epochs and not out_of_patience(state, recipe.patience):
        network.train()
        for name in frozen:
            network.get_submodule(name).eval()
        if not _train_one_epoch(forward, batches, state, recipe, should_stop, execution):
            interrupted = True
            break
        _average_buffers(state, workers)
        train_loss = workers.sum([state.total_loss.item()])[0] / len(train)
        evaluation = evaluate(state.evaluated, valid, augmentation.preprocessing, device, workers=workers)
        check_converging(state.epoch, train_loss, evaluation.loss, recipe)
        rate = len(train) / state.seconds
        metrics = EpochMetrics(state.epoch, train_loss, evaluation.loss, evaluation.accuracy, rate)
        on_epoch(metrics)
        state.finish_epoch(metrics, evaluation)
        keep_best(_outcome(state, workers), lambda: state.best_weights)
    network.load_state_dict(state.best_weights)
    outcome = dataclasses.replace(_outcome(state, workers), interrupted=interrupted)
    if alone is None or not outcome.history:
        return outcome
    return dataclasses.replace(outcome, efficiency=outcome.images_per_second / (workers.size * alone))


def _outcome(state: TrainingState, workers: Workers) -> Fit:
    """Return what a training has reached that would end now."""
    return Fit(state.history, state.best_epoch, state.best, interrupted=True, workers=workers.size)


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    pictures: Pictures,
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    workers: Workers = ALONE,
) -> Evaluation:
    """Measure a network on pictures cut as the server cuts them (`Preprocessing.crop`).

    Each worker looks at its share; every picture is counted once, and all workers return the same.
    """
    network.eval()
    losses: list[float] = []
    predicted: list[int] = []
    classes = 0
    share = range(len(pictures))[workers.share(len(pictures))]
    for start in range(share.start, share.stop, EVALUATION_BATCH):
        chosen = slice(start, min(start + EVALUATION_BATCH, share.stop))
        inputs = torch.from_numpy(preprocessing.normalise(pictures.pixels[chosen]))
        targets = torch.from_numpy(pictures.targets[chosen]).to(device)
        logits = network(inputs.to(device, memory_format=torch.channels_last))
        losses += functional.cross_entropy(logits, targets, reduction="none").tolist()
        predicted += logits.argmax(dim=1).tolist()
        classes = logits.shape[1]
    shares = workers.all_gather((losses, predicted, classes))
    return Evaluation.of(
        [loss for own, _, _ in shares for loss in own],
        pictures.targets.tolist(),
        [guess for _, own, _ in shares for guess in own],
        max(own for _, _, own in shares),
    )


def _new_state(
    network: nn.Module, steps: int, recipe: Recipe, device: torch.device, execution: Execution
) -> TrainingState:
    return TrainingState(
        network,
        steps=steps,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        lr_decay=recipe.lr_decay,
        ema=recipe.ema,
        seed=recipe.seed,
        scale_gradients=execution.half is torch.float16,
    )


def _forward(network: nn.Module, device: torch.device, execution: Execution) -> Callable[[Tensor], Tensor]:
    """Return what is called for the logits; the network keeps its weights under their plain names."""
    forward: Callable[[Tensor], Tensor] = network
    if execution.workers.size > 1:
        # The buffers are the same on all workers, or are averaged once per epoch.
        devices = [device] if device.type == "cuda" else None
        forward = DistributedDataParallel(
            network, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
        )
    return torch.compile(forward) if execution.compile else forward


def _train_one_epoch(
    forward: Callable[[Tensor], Tensor],
    batches: Batches,
    state: TrainingState,
    recipe: Recipe,
    should_stop: Callable[[], bool],
    execution: Execution,
) -> bool:
    """Make the steps of the current epoch that are left; return False when `should_stop` ended them."""
    workers, checkpoints = execution.workers, execution.checkpoints
    order = batches.order(state.begin_epoch())
    started = time.perf_counter() - state.seconds
    for batch in batches.epoch(state.generator, order, state.step):
        _step(forward, batch, state, recipe, execution)
        state.step += 1
        stop, due = workers.any(should_stop(), checkpoints is not None and checkpoints.due)
        if checkpoints is not None and (stop or due):
            state.seconds = time.perf_counter() - started
            _average_buffers(state, workers)
            checkpoints.save(state.epoch, state.step, state.capture(workers))
        if stop:
            return False
    state.seconds = time.perf_counter() - started
    return True


def _step(
    forward: Callable[[Tensor], Tensor], batch: Batch, state: TrainingState, recipe: Recipe, execution: Execution
) -> None:
    device = batch.inputs.device
    with torch.autocast(device.type, dtype=execution.half, enabled=execution.half is not None):
        logits = forward(batch.inputs)
    if execution.half is not None:
        logits = logits.float()  # a sum of losses in 16 bits has two or three digits
    state.update(batch.loss(logits, label_smoothing=recipe.label_smoothing))
    state.total_loss = state.total_loss.to(device) + batch.plain_loss(logits)


def check_converging(epoch: int, train_loss: float, valid_loss: float, recipe: Recipe) -> None:
    """Raise DivergedError when a loss is infinite or not a number."""
    if not math.isfinite(train_loss + valid_loss):
        raise DivergedError(
            f"the training diverged in epoch {epoch}: the loss is {train_loss} (training) and {valid_loss} "
            f"(validation); use a learning rate below {recipe.lr:g}"
        )


def out_of_patience(state: TrainingState, patience: int) -> bool:
    """Return whether so many epochs, if any, have passed without a lower validation loss."""
    without_improvement = len(state.history) - state.best_epoch
    if not patience or without_improvement < patience:
        return False
    log.info("no lower validation loss for %d epochs: stopping after epoch %d", patience, len(state.history))
    return True


def _average_buffers(state: TrainingState, workers: Workers) -> None:
    """Give all workers the mean of their running statistics, which each has collected from its own shares.

    A running mean of means is the mean of the running means, so it changes nothing how often this is done.
    """
    if workers.size == 1:
        return
    both = nn.ModuleList([state.network, state.evaluated])  # perhaps the same one, whose buffers are then named once
    buffers = [buffer for buffer in both.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    flat = torch.cat([buffer.flatten() for buffer in buffers])
    torch.distributed.all_reduce(flat)
    means = (flat / workers.size).split([buffer.numel() for buffer in buffers])
    for buffer, mean in zip(buffers, means, strict=True):
        buffer.copy_(mean.view_as(buffer))


def _rate_alone(
    network: nn.Module, batches: Batches, recipe: Recipe, device: torch.device, execution: Execution
) -> float:
    """Return the pictures per second of the main worker with its parts while the others wait, measured on a copy."""
    rate = 0.0
    if execution.workers.is_main:
        with torch.random.fork_rng(
            [device] if device.type == "cuda" else []
        ):  # nothing of this may show in the training
            trial = copy.deepcopy(network)
            # One step more than is measured, because the first one allocates.
            state = _new_state(trial, ALONE_STEPS + 1, recipe, device, execution)
            pictures, started = 0, math.nan
            for count, batch in enumerate(_endless(batches, state.generator)):
                _step(trial, batch, state, recipe, execution)
                state.total_loss.item()  # waits for the device
                if count == 0:
                    started = time.perf_counter()
                    continue
                pictures += len(batch.targets)
                if count == ALONE_STEPS or time.perf_counter() - started > ALONE_SECONDS:
                    break
            rate = pictures / (time.perf_counter() - started)
    return execution.workers.broadcast(rate)


def _endless(batches: Batches, generator: torch.Generator) -> Iterator[Batch]:
    while True:
        yield from batches.epoch(generator, batches.order(generator))
