"""The training loop: epochs over decoded images, best weights by validation loss.

Everything random comes from the recipe's seed, so on one machine the same call gives the same weights. Several workers
make the same steps as one would, each with its part of every batch; a checkpoint holds all that the next step needs.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..config import Recipe
from ..data.augment import Augmentation
from ..data.batches import Batch, Batches
from ..data.decoded import Images
from ..distributed.group import ALONE, Workers
from .checkpoints import Checkpoints
from .metrics import EpochMetrics
from .optimization import freeze
from .outcome import Fit, KeepBest
from .state import TrainingState
from .validation import evaluate

log = logging.getLogger(__name__)

# The speed of one worker alone is measured over so many steps, or over fewer in so many seconds.
ALONE_STEPS = 5
ALONE_SECONDS = 2.0


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


def fit(
    network: nn.Module,
    train: Images,
    valid: Images,
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
    train : Images
        Whole images, squeezed into squares (`decoded.whole_image`).
    valid : Images
        As the server will see them (`Preprocessing.crop`).
    recipe, augmentation, device
    should_stop : callable
        Asked after every step; True on any worker ends the training of all within that step's time.
    on_epoch, keep_best : callable
        Called after every epoch, the second also with what a checkpoint holds.
    execution : Execution, optional
        Every worker calls this function with the same arguments but for its rank, and returns the same.

    Raises
    ------
    DivergedError, CheckpointError, DistributedError, NetworkError
        With a message for a person.
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
    scale = execution.half is torch.float16
    state = TrainingState(network, recipe, steps=recipe.epochs * batches.steps, scale_gradients=scale)
    if checkpoints is not None and (saved := checkpoints.load()) is not None:
        state.restore(saved, workers)
        if state.best is not None:  # the instance that had written its model is gone
            keep_best(state.outcome(workers.size), lambda: state.best_weights)
    interrupted = False
    forward = _forward(network, device, execution)
    while state.epoch <= recipe.epochs and not state.out_of_patience(recipe.patience):
        network.train()
        for name in frozen:
            network.get_submodule(name).eval()
        if not _train_one_epoch(forward, batches, state, recipe, should_stop, execution):
            interrupted = True
            break
        _average_buffers(state, workers)
        train_loss = workers.sum([state.total_loss.item()])[0] / len(train)
        evaluation = evaluate(state.evaluated, valid, augmentation.preprocessing, device, workers=workers)
        on_epoch(state.finish_epoch(train_loss, len(train), evaluation))
        keep_best(state.outcome(workers.size), lambda: state.best_weights)
    network.load_state_dict(state.best_weights)
    outcome = state.outcome(workers.size, interrupted=interrupted)
    if alone is None or not outcome.history:
        return outcome
    return dataclasses.replace(outcome, efficiency=outcome.images_per_second / (workers.size * alone))


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
    """Return the images per second of the main worker with its parts while the others wait, measured on a copy."""
    rate = 0.0
    if execution.workers.is_main:
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # nothing of this may show in the training
            trial = copy.deepcopy(network)
            # One step more than is measured, because the first one allocates.
            scale = execution.half is torch.float16
            state = TrainingState(trial, recipe, steps=ALONE_STEPS + 1, scale_gradients=scale)
            images, started = 0, math.nan
            for count, batch in enumerate(_endless(batches, state.generator)):
                _step(trial, batch, state, recipe, execution)
                state.total_loss.item()  # waits for the device
                if count == 0:
                    started = time.perf_counter()
                    continue
                images += len(batch.targets)
                if count == ALONE_STEPS or time.perf_counter() - started > ALONE_SECONDS:
                    break
            rate = images / (time.perf_counter() - started)
    return execution.workers.broadcast(rate)


def _endless(batches: Batches, generator: torch.Generator) -> Iterator[Batch]:
    while True:
        yield from batches.epoch(generator, batches.order(generator))
