"""The training loop: epochs over decoded images, best weights by validation loss.

Everything random comes from the recipe's seed, so on one machine the same call gives the same weights. Several workers
make the same steps as one would, each with its part of every batch; a checkpoint holds all that the next step needs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from ...core.transforms import Preprocessing
from ..config import Recipe
from ..data.augment import Augmentation
from ..data.batches import Batch, Batches
from ..data.decoded import Images
from ..distributed.group import ALONE, Workers
from .checkpoints import Checkpoints
from .metrics import EpochMetrics, Evaluation
from .state import Fit, TrainingState, freeze

log = logging.getLogger(__name__)

# Evaluation keeps no gradients, so its batches may be larger than training's without needing more memory.
EVALUATION_BATCH = 256
# What torch calls instructions that multiply bfloat16. Without them it converts every number, which costs more than the
# multiplication.
_CPU_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")


def half_type(choice: str, device: torch.device) -> torch.dtype | None:
    """Return the dtype of 16 bits to compute convolutions and matrix products in, or None for float32 throughout.

    `choice` is one of `config.MIXED_PRECISION`; without instructions for bfloat16 a CPU computes in float32.
    """
    if choice == "off" or (choice == "auto" and device.type == "cpu"):
        return None
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
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
    stop = False
    while state.epoch <= recipe.epochs and not state.out_of_patience(recipe.patience):
        network.train()
        for module in frozen:
            module.eval()
        order = batches.order(state.begin_epoch())
        started = time.perf_counter() - state.seconds
        for batch in batches.epoch(state.generator, order, state.step):
            _step(step, batch, state, recipe, half)
            stop, due = workers.any(should_stop(), checkpoints is not None and checkpoints.due)
            if checkpoints is not None and (stop or due):
                state.seconds = time.perf_counter() - started
                _average_buffers(state, workers)
                checkpoints.save(state.capture(workers))
            if stop:
                break
        if stop:
            break
        state.seconds = time.perf_counter() - started
        _average_buffers(state, workers)
        train_loss = workers.sum([state.total_loss.item()])[0] / len(train)
        evaluation = evaluate(state.evaluated, valid, augmentation.preprocessing, device, workers=workers)
        on_epoch(state.finish_epoch(train_loss, len(train), evaluation))
        keep_best(state.outcome(workers.size))
    network.load_state_dict(state.best_weights)
    return state.outcome(workers.size, interrupted=stop)


def _parallel(network: nn.Module, device: torch.device) -> DistributedDataParallel:
    """Let the workers exchange their gradients; buffers are the same on all of them, or averaged once per epoch."""
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(
        network, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
    )


def _step(
    forward: Callable[[Tensor], Tensor], batch: Batch, state: TrainingState, recipe: Recipe, half: torch.dtype | None
) -> None:
    device = batch.inputs.device
    with torch.autocast(device.type, dtype=half, enabled=half is not None):
        logits = forward(batch.inputs)
    if half is not None:
        logits = logits.float()  # a sum of losses in 16 bits has two or three digits
    state.update(batch.loss(logits, label_smoothing=recipe.label_smoothing))
    state.total_loss = state.total_loss.to(device) + batch.plain_loss(logits)
    state.step += 1


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
    network: nn.Module, images: Images, preprocessing: Preprocessing, device: torch.device, *, workers: Workers = ALONE
) -> Evaluation:
    """Measure a network on images cut as the server cuts them: each worker its share; all return the same."""
    network.eval()
    losses: list[float] = []
    predicted: list[int] = []
    classes = 0
    share = range(len(images))[workers.share(len(images))]
    for start in range(share.start, share.stop, EVALUATION_BATCH):
        chosen = slice(start, min(start + EVALUATION_BATCH, share.stop))
        inputs = torch.from_numpy(preprocessing.normalise(images.pixels[chosen]))
        targets = torch.from_numpy(images.targets[chosen]).to(device)
        logits = network(inputs.to(device, memory_format=torch.channels_last))
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
