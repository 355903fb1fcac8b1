"""The training loop: epochs over decoded images, best weights by the validation split.

Everything random comes from the recipe's seed, so on one machine the same call gives the same weights. Several workers
make the same steps as one would, each with its part of every batch; a checkpoint holds all that the next step needs.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from ...core.transforms import Preprocessing
from ..config import SMALLEST_SHARE, Recipe
from ..data.ahead import ahead, rows
from ..data.augment import Augmentation
from ..data.batches import Batch, Batches
from ..data.decoded import Images
from ..distributed.group import ALONE, Workers
from .checkpoints import Checkpoints
from .metrics import EpochMetrics, Evaluation
from .state import Fit, TrainingState, freeze

log = logging.getLogger(__name__)

# Evaluation keeps nothing for gradients, so it takes so many times the images that a worker trains on at once, and at
# most 256, in about the memory of a step (docs/measurements/training.md).
EVALUATION_TIMES, EVALUATION_BATCH = 4, 256
# What torch calls instructions that multiply bfloat16. Without them it converts every number, which costs more than the
# multiplication.
_CPU_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")
# Workers on different machines compute in the first of these that one of them needs.
_HALF_TYPES = (None, torch.float16, torch.bfloat16)


def half_type(choice: str, device: torch.device, workers: Workers = ALONE) -> torch.dtype | None:
    """Return the dtype of 16 bits to compute convolutions and matrix products in, or None for float32 throughout.

    `choice` is one of `config.MIXED_PRECISION`. Without instructions for bfloat16 a CPU computes in float32, and a GPU
    in float16. All workers must call this, and return the same.
    """
    return min(workers.all_gather(_own_half_type(choice, device)), key=_HALF_TYPES.index)


def _own_half_type(choice: str, device: torch.device) -> torch.dtype | None:
    if choice == "off" or (choice == "auto" and device.type == "cpu"):
        return None
    if device.type == "cuda":
        # Older GPUs emulate bfloat16 in float32, which is slower than float32 itself.
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    capabilities = torch.cpu.get_capabilities()
    if any(capabilities.get(name) for name in _CPU_FEATURES):
        return torch.bfloat16
    log.warning("this CPU has no instructions for bfloat16 (%s): computing in float32", ", ".join(_CPU_FEATURES))
    return None


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
    keep_best: Callable[[Fit], None] = lambda _: None,
    workers: Workers = ALONE,
    checkpoints: Checkpoints | None = None,
    half: torch.dtype | None = None,
    accumulate: int = 1,
    compiled: bool = False,
) -> Fit:
    """Train a network and leave the weights of its best epoch in it.

    Every worker calls this with the same arguments but for its rank, and returns the same.

    Parameters
    ----------
    network : from float32 [N, 3, S, S] to logits [N, classes]; moved to `device`
    train, valid : whole images (`decode_for_augmentation`), and as the server will see them (`decode_for_serving`)
    should_stop : asked after every step; True on any worker ends the training of all within that step's time
    on_epoch, keep_best : called after every epoch
    half : the dtype to compute in where the result allows it (`half_type`)
    accumulate : in how many pieces a worker's part of a batch goes through the network
    """
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
    frozen = freeze(network, recipe.train_stages) if recipe.train_stages else []
    batches = Batches(train, recipe, augmentation, device, workers)
    if workers.rank:
        torch.manual_seed(recipe.seed + workers.rank)  # dropout draws other noise for another worker's images
    scale = half is torch.float16
    state = TrainingState(network, recipe, steps=recipe.epochs * batches.steps, scale_gradients=scale)
    if checkpoints is not None and (saved := checkpoints.load()) is not None:
        state.restore(saved, workers)
        if state.best is not None:  # the instance that had written its model is gone
            keep_best(state.outcome(workers.size))
    forward = _parallel(network, device) if workers.size > 1 else network
    step = torch.compile(forward) if compiled else forward
    no_sync = forward.no_sync if isinstance(forward, DistributedDataParallel) else contextlib.nullcontext
    at_once = max(SMALLEST_SHARE, recipe.batch_size // (workers.size * accumulate))
    stop = False
    while not state.is_finished():
        network.train()
        for module in frozen:
            module.eval()
        order = batches.order(state.begin_epoch())
        started = time.perf_counter() - state.seconds
        for batch in batches.epoch(state.generator, order, state.step):
            pieces = batch.pieces(accumulate)
            with no_sync():  # the workers exchange gradients once, with those of the last piece
                for piece in pieces[:-1]:
                    _add_gradients(step, piece, state, recipe, half)
            _add_gradients(step, pieces[-1], state, recipe, half)
            state.update()
            state.step += 1
            stop, due, lost = workers.any(should_stop(), checkpoints is not None and checkpoints.due, state.is_lost)
            if checkpoints is not None and (stop or due) and not lost:
                state.seconds = time.perf_counter() - started
                _average_buffers(state, workers)
                captured = state.capture(workers)
                lost = not math.isfinite(captured["total_loss"])  # on a GPU perhaps nobody has looked since
                if not lost:
                    checkpoints.save(captured)
            if lost:
                state.diverge()
            if lost or stop:
                break
        if stop or state.diverged_epoch:
            break
        _average_buffers(state, workers)
        train_loss = workers.sum([state.total_loss.item()])[0] / len(train)  # waits for a GPU to make the last step
        state.seconds = time.perf_counter() - started
        for precision in dict.fromkeys((half, None)):
            evaluation = evaluate(
                state.evaluated, valid, augmentation.preprocessing, device,
                workers=workers, half=precision, batch_size=min(EVALUATION_BATCH, EVALUATION_TIMES * at_once),
            )  # fmt: skip
            if math.isfinite(evaluation.loss):
                break  # float16 overflows easily while the running statistics lag behind the weights
        if (metrics := state.finish_epoch(train_loss, len(train), evaluation)) is not None:
            on_epoch(metrics)
            keep_best(state.outcome(workers.size))
    network.load_state_dict(state.best_weights)
    return state.outcome(workers.size, interrupted=stop)


def _parallel(network: nn.Module, device: torch.device) -> DistributedDataParallel:
    """Let the workers exchange their gradients; buffers are the same on all of them, or averaged once per epoch."""
    devices = [device] if device.type == "cuda" else None
    parallel = DistributedDataParallel(network, device_ids=devices, gradient_as_bucket_view=True)
    parallel.broadcast_buffers = False  # as an argument it has another name since torch 2.13
    return parallel


def _forward(network: Callable[[Tensor], Tensor], inputs: Tensor, half: torch.dtype | None) -> Tensor:
    with torch.autocast(inputs.device.type, dtype=half, enabled=half is not None):
        logits = network(inputs)
    return logits if half is None else logits.float()  # a sum of losses in 16 bits has two or three digits


def _add_gradients(
    forward: Callable[[Tensor], Tensor], batch: Batch, state: TrainingState, recipe: Recipe, half: torch.dtype | None
) -> None:
    logits = _forward(forward, batch.inputs, half)
    state.add_gradients(batch.loss(logits, label_smoothing=recipe.label_smoothing))
    state.total_loss = state.total_loss.to(logits.device) + batch.plain_loss(logits)


def _average_buffers(state: TrainingState, workers: Workers) -> None:
    """Give all workers the mean of their running statistics; how often this is done changes nothing."""
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


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    images: Images,
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    workers: Workers = ALONE,
    half: torch.dtype | None = None,
    batch_size: int = EVALUATION_BATCH,
) -> Evaluation:
    """Measure a network on images cut as the server cuts them: each worker its share; all return the same."""
    network.eval()
    losses: list[float] = []
    predicted: list[int] = []
    classes = 0
    share = np.arange(len(images))[workers.share(len(images))]
    scale, offset = (torch.from_numpy(values).to(device) for values in preprocessing.scale_and_offset)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(share), batch_size):
            chosen = share[start : start + batch_size]
            inputs = (rows(images.pixels, chosen, device) * scale).add_(offset).permute(0, 3, 1, 2)
            yield inputs, rows(images.targets, chosen, device)

    for inputs, targets in ahead(batches(), device):
        logits = _forward(network, inputs, half)
        losses += functional.cross_entropy(logits, targets, reduction="none").tolist()
        predicted += logits.argmax(dim=1).tolist()
        classes = logits.shape[1]
    shares = workers.all_gather((losses, predicted, classes))
    return Evaluation.of(
        [loss for own, _, _ in shares for loss in own],
        images.targets.tolist(),
        [guess for _, own, _ in shares for guess in own],
        max(own for _, _, own in shares),
    )
