"""From decoded images to the batches of one epoch, and each worker's part of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..distributed.group import DistributedError, Workers
from .augment import Augmentation
from .decoded import Images
from .imbalance import draw_order, image_weights
from .mixing import draw_mixture, neighbours

# Batch normalisation over a single image of 1 x 1 is impossible, and mixing needs a neighbour.
SMALLEST_SHARE = 2


@dataclass(frozen=True)
class Batch:
    """One worker's part of a batch.

    Attributes
    ----------
    inputs : Tensor
        float32 [n, 3, S, S].
    targets : Tensor
        int64 [n].
    mixed_in : Tensor or None
        int64 [n], the classes of what was mixed in.
    own : float
        The share of `targets` in the images; the rest is `mixed_in`'s.
    weights : Tensor or None
        float32 [n].
    scale : float
        The part's weight in the whole batch, times the number of workers: with it the mean of the workers' gradients,
        which is what they exchange, is the gradient of the whole batch's mean loss.
    """

    inputs: Tensor
    targets: Tensor
    mixed_in: Tensor | None
    own: float
    weights: Tensor | None
    scale: float

    def loss(self, logits: Tensor, *, label_smoothing: float) -> Tensor:
        """Return what is minimised: the (weighted) mean cross-entropy in nats, scaled."""

        def mean(targets: Tensor, weights: Tensor | None) -> Tensor:
            if weights is None:
                return functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)
            losses = functional.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="none")
            weights = weights.to(losses.dtype)
            return (weights * losses).sum() / weights.sum()

        loss = mean(self.targets, self.weights)
        if self.mixed_in is not None:
            weights = None if self.weights is None else self.weights[neighbours(len(self.weights))]
            loss = self.own * loss + (1 - self.own) * mean(self.mixed_in, weights)
        return loss * self.scale

    def plain_loss(self, logits: Tensor) -> Tensor:
        """Return the sum of the cross-entropies, without smoothing and weights, so that it compares with validation."""
        logits = logits.detach()
        loss = functional.cross_entropy(logits, self.targets, reduction="sum")
        if self.mixed_in is not None:
            loss = self.own * loss + (1 - self.own) * functional.cross_entropy(logits, self.mixed_in, reduction="sum")
        return loss


class Batches:
    """The batches of every epoch, drawn alike on all workers, so that each takes its part of the same batch.

    This is what `DistributedSampler` with `set_epoch` does, without its padding: every image is seen once.

    Parameters
    ----------
    images : Images
        The training split as `data.whole_image` leaves it.
    batch_size : int
        Of the whole batch, at most.
    augmentation, device, workers
    class_weights : str
        One of `arguments.CLASS_WEIGHTS`.
    mixup, cutmix : float
        As `mixing.draw_mixture` takes them.

    Raises
    ------
    DistributedError
        When the batches are too small for so many workers.
    """

    def __init__(
        self,
        images: Images,
        *,
        batch_size: int,
        augmentation: Augmentation,
        device: torch.device,
        workers: Workers,
        class_weights: str,
        mixup: float,
        cutmix: float,
    ) -> None:
        self._images, self._augmentation, self._device, self._workers = images, augmentation, device, workers
        self._class_weights, self._mixup, self._cutmix = class_weights, mixup, cutmix
        self._weights = image_weights(images.targets) if class_weights == "balanced" else None
        self.steps = math.ceil(len(images) / batch_size)
        smallest = len(images) // self.steps
        if workers.size > 1 and smallest < SMALLEST_SHARE * workers.size:
            raise DistributedError(
                f"{len(images)} pictures in batches of at most {batch_size} leave as few as {smallest} for "
                f"{workers.size} workers, and each needs {SMALLEST_SHARE}; use a larger --batch-size (it counts the "
                "pictures on all workers) or fewer workers"
            )

    def epoch(self, generator: torch.Generator, order: np.ndarray, first: int = 0) -> Iterator[Batch]:
        """Yield this worker's parts of the batches of one epoch, beginning with one that is not the first after a
        restart.

        The sizes of the whole batches differ by at most one: a last batch of what is left over could be a single
        image. All that is random about a batch is drawn when it is asked for, so that the generator's state between
        two batches is all that a checkpoint needs.
        """
        for chosen in np.array_split(order, self.steps)[first:]:
            yield self._batch(chosen, generator)

    def order(self, generator: torch.Generator) -> np.ndarray:
        """Draw the order of one epoch."""
        return draw_order(self._images.targets, self._class_weights, generator)

    def _batch(self, whole: np.ndarray, generator: torch.Generator) -> Batch:
        # Neighbours stay together: they may be mixed.
        own = self._workers.share(len(whole), multiple=2)
        chosen = whole[own]
        variations = self._augmentation.draw(len(whole), generator)[own]
        mixture = draw_mixture(self._mixup, self._cutmix, generator)
        pixels = torch.from_numpy(self._images.pixels[chosen]).to(self._device)
        inputs = self._augmentation(pixels, torch.from_numpy(self._images.aspects[chosen]), variations)
        targets = torch.from_numpy(self._images.targets[chosen]).to(self._device)
        mixed_in, share = None, 1.0
        if mixture is not None:
            inputs, share = mixture.mix(inputs)
            mixed_in = targets[neighbours(len(targets)).to(self._device)]
        weights, scale = None, self._workers.size * len(chosen) / len(whole)
        if self._weights is not None:
            ours, all_of_them = (self._weights[part].sum(dtype=np.float64) for part in (chosen, whole))
            scale = self._workers.size * float(ours / all_of_them)
            weights = torch.from_numpy(self._weights[chosen]).to(self._device)
        return Batch(inputs, targets, mixed_in, share, weights, scale)
