"""From decoded images to the batches of one epoch: mixing, class weights, and each worker's part."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ..config import SMALLEST_SHARE, Recipe
from ..distributed.group import DistributedError, Workers, part
from .ahead import ahead, rows
from .augment import Augmentation
from .decoded import Images

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mixture:
    """How the images of one batch are mixed: by CutMix if there is a box, otherwise by mixup."""

    own: float  # the share of an image's own class in its target, 0 to 1; the rest is its neighbour's
    # Left, top, right and bottom of what the neighbour covers, as shares of the sides.
    box: tuple[float, float, float, float] | None = None

    def mix(self, inputs: Tensor) -> tuple[Tensor, float]:
        """Mix a batch, float32 [N, 3, H, W]; return it with the share of the own class that it really shows."""
        partners = inputs[neighbours(len(inputs)).to(inputs.device)]
        if self.box is None:
            return torch.lerp(partners, inputs, self.own), self.own
        height, width = inputs.shape[2:]
        left, right = round(self.box[0] * width), round(self.box[2] * width)
        top, bottom = round(self.box[1] * height), round(self.box[3] * height)
        mixed = inputs.clone(memory_format=torch.preserve_format)
        mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
        return mixed, 1 - (right - left) * (bottom - top) / (width * height)


def neighbours(count: int) -> Tensor:
    """Return for each image of a batch the one that it is mixed with: 1 0 3 2 5 4 …; a last odd one is left alone."""
    index = torch.arange(count)
    return (index ^ 1).where(index ^ 1 < count, index)


def draw_mixture(mixup: float, cutmix: float, generator: torch.Generator) -> Mixture | None:
    """Draw how a batch is mixed (Zhang et al. 2018, Yun et al. 2019); None, and nothing drawn, when both are off (0).

    Both are the alpha of the Beta distribution of the shares. With both, each is used for half of the batches.
    """
    if not mixup and not cutmix:
        return None
    # torch has no Beta distribution that takes a generator.
    random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    if mixup and (not cutmix or random.random() < 0.5):
        return Mixture(float(random.beta(mixup, mixup)))
    own = float(random.beta(cutmix, cutmix))
    half = math.sqrt(1 - own) / 2
    x, y = random.random(2)
    return Mixture(own, (max(0.0, x - half), max(0.0, y - half), min(1.0, x + half), min(1.0, y + half)))


def image_weights(targets: IntArray) -> npt.NDArray[np.float32]:
    """Return one weight per image so that all classes weigh the same and the mean weight is 1."""
    counts = np.bincount(targets)
    return (len(targets) / (np.count_nonzero(counts) * counts[targets])).astype(np.float32)


def draw_order(targets: IntArray, class_weights: str, generator: torch.Generator) -> IntArray:
    """Draw the order of one epoch: every image once, or with "sampler" as many, every class as often as any other."""
    if class_weights == "sampler":
        weights = torch.from_numpy(image_weights(targets))
        return torch.multinomial(weights, len(targets), replacement=True, generator=generator).numpy()
    return torch.randperm(len(targets), generator=generator).numpy()


def steps_per_epoch(images: int, batch_size: int, workers: int = 1) -> int:
    """Return into how many batches an epoch is cut, whose sizes differ by at most one.

    They are of at most `batch_size`, but for a few images that would otherwise leave a worker `SMALLEST_SHARE` - 1.
    """
    return max(1, min(math.ceil(images / batch_size), images // (SMALLEST_SHARE * workers)))


@dataclass(frozen=True)
class Batch:
    """One worker's part of a batch."""

    inputs: Tensor  # float32 [n, 3, S, S]
    targets: Tensor  # int64 [n]
    mixed_in: Tensor | None = None  # int64 [n], the classes of what was mixed in
    own: float = 1.0  # the share of `targets` in the images; the rest is `mixed_in`'s
    weights: Tensor | None = None  # float32 [n]
    # The number of workers over the sum of the whole batch's weights: with it the mean of the workers' gradients, which
    # is what they exchange, is the gradient of the whole batch's mean loss.
    scale: float = 1.0

    def pieces(self, count: int) -> list[Batch]:
        """Cut it into at most so many, each of `SMALLEST_SHARE` images or more; their losses add up to its loss."""
        count = max(1, min(count, len(self.targets) // SMALLEST_SHARE))
        # Neighbours stay together: they may be mixed.
        cuts = [part(len(self.targets), index, count, multiple=2) for index in range(count)]
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return [Batch(**vars(self) | {name: value[cut] for name, value in tensors.items()}) for cut in cuts]

    def loss(self, logits: Tensor, *, label_smoothing: float) -> Tensor:
        """Return what is minimised: the sum of the (weighted) cross-entropies in nats, scaled."""

        def total(targets: Tensor, weights: Tensor | None) -> Tensor:
            if weights is None:
                return functional.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="sum")
            losses = functional.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="none")
            return (weights.to(losses.dtype) * losses).sum()

        loss = total(self.targets, self.weights)
        if self.mixed_in is not None:
            weights = None if self.weights is None else self.weights[neighbours(len(self.weights))]
            loss = self.own * loss + (1 - self.own) * total(self.mixed_in, weights)
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

    `images` are those of `decode_for_augmentation`. Raises DistributedError when batches are too small for the workers.
    """

    def __init__(
        self, images: Images, recipe: Recipe, augmentation: Augmentation, device: torch.device, workers: Workers
    ) -> None:
        self._images, self._recipe, self._augmentation = images, recipe, augmentation
        self._device, self._workers = device, workers
        self._weights = image_weights(images.targets) if recipe.class_weights == "balanced" else None
        self.steps = steps_per_epoch(len(images), recipe.batch_size, workers.size)
        if workers.size > 1 and min(len(images), recipe.batch_size) < SMALLEST_SHARE * workers.size:
            raise DistributedError(
                f"{len(images)} images in batches of at most {recipe.batch_size} are too few for {workers.size} "
                f"workers, of which each needs {SMALLEST_SHARE} in every batch; use a larger --batch-size (it counts "
                "the images on all workers) or fewer workers"
            )

    def epoch(self, generator: torch.Generator, order: IntArray, first: int = 0) -> Iterator[Batch]:
        """Yield this worker's parts of the batches of one epoch; `first` is not 0 after a restart.

        With each batch the generator is brought to the state after its draws: that is all that a checkpoint needs.
        """
        # The batch after it may already be drawn, for a GPU.
        drawing = torch.Generator().set_state(generator.get_state())
        made = (
            (self._batch(chosen, drawing), drawing.get_state()) for chosen in np.array_split(order, self.steps)[first:]
        )
        for batch, drawn in ahead(made, self._device):
            generator.set_state(drawn)
            yield batch

    def order(self, generator: torch.Generator) -> IntArray:
        """Draw the order of one epoch."""
        return draw_order(self._images.targets, self._recipe.class_weights, generator)

    def _batch(self, whole: IntArray, generator: torch.Generator) -> Batch:
        # Neighbours stay together: they may be mixed.
        own = self._workers.share(len(whole), multiple=2)
        chosen = whole[own]
        variations = self._augmentation.draw(len(whole), generator)[own]
        mixture = draw_mixture(self._recipe.mixup, self._recipe.cutmix, generator)
        pixels = rows(self._images.pixels, chosen, self._device)
        inputs = self._augmentation(pixels, torch.from_numpy(self._images.aspects[chosen]), variations)
        targets = rows(self._images.targets, chosen, self._device)
        mixed_in, share = None, 1.0
        if mixture is not None:
            inputs, share = mixture.mix(inputs)
            mixed_in = targets[neighbours(len(targets)).to(self._device)]
        weights, total = None, float(len(whole))
        if self._weights is not None:
            weights = rows(self._weights, chosen, self._device)
            total = float(self._weights[whole].sum(dtype=np.float64))
        return Batch(inputs, targets, mixed_in, share, weights, self._workers.size / total)
