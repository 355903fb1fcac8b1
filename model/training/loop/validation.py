"""How good a network is on decoded images, while it is trained."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ...core.transforms import Preprocessing
from ..data.decoded import Images
from ..distributed.group import ALONE, Workers
from .metrics import Evaluation

# Evaluation keeps no gradients, so its batches may be larger than training's without needing more memory.
BATCH = 256


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    images: Images,
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    workers: Workers = ALONE,
) -> Evaluation:
    """Measure a network on images cut as the server cuts them (`Preprocessing.crop`).

    Each worker looks at its share; every image is counted once, and all workers return the same.
    """
    network.eval()
    losses: list[float] = []
    predicted: list[int] = []
    classes = 0
    share = range(len(images))[workers.share(len(images))]
    for start in range(share.start, share.stop, BATCH):
        chosen = slice(start, min(start + BATCH, share.stop))
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
