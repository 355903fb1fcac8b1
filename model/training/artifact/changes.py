"""Whether some images show that int8 costs little enough: counts, exact intervals, limits."""

from __future__ import annotations

import functools
import math
from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt

from ...core.predictor import FloatArray


@dataclass(frozen=True)
class Changes:
    """What int8 changes on some images: answers, and among them right ones that are lost and wrong ones made right."""

    images: int = 0
    answers: int = 0
    lost: int = 0
    won: int = 0

    @classmethod
    def between(cls, fp32: FloatArray, int8: FloatArray, targets: npt.NDArray[np.int64]) -> Changes:
        """Count them in two graphs' logits, [N, C], for images of the classes `targets`, [N]."""
        before, after = fp32.argmax(1), int8.argmax(1)
        changed = before != after
        counts = (changed, changed & (before == targets), changed & (after == targets))
        return cls(len(targets), *(int(which.sum()) for which in counts))

    def __add__(self, other: Changes) -> Changes:
        return Changes(*(mine + others for mine, others in zip(astuple(self), astuple(other), strict=True)))

    @property
    def agreement_interval(self) -> tuple[float, float]:
        """The 95% interval of the share of images with the same answer."""
        same = self.images - self.answers
        return 1 - highest_share(self.answers, self.images, 0.025), highest_share(same, self.images, 0.025)

    @property
    def loss_interval(self) -> tuple[float, float]:
        """The 95% interval of the accuracy that int8 loses, from two exact ones: of the lost and of the won answers.

        Each of their four ends is wrong in 1.25% of all samples, so an end of their difference in 2.5% (Bonferroni).
        """

        def highest(more: int, less: int) -> float:
            least = 1 - highest_share(self.images - less, self.images, 0.0125)
            return highest_share(more, self.images, 0.0125) - least

        return -highest(self.won, self.lost), highest(self.lost, self.won)

    def more_often_than(self, other: Changes) -> bool:
        """Return whether answers change significantly more often here: Fisher's exact test (1935), one-sided at 5%."""
        images, answers = self.images + other.images, self.answers + other.answers
        as_many = sum(
            math.comb(self.images, here) * math.comb(other.images, answers - here)
            for here in range(self.answers, min(answers, self.images) + 1)
        )
        return as_many / math.comb(images, answers) < 0.05


@functools.cache
def highest_share(count: int, images: int, tail: float) -> float:
    """Return the share of which so few images are seen with the probability `tail` (Clopper and Pearson 1934)."""
    if count >= images:
        return 1.0
    ways = [math.lgamma(images + 1) - math.lgamma(k + 1) - math.lgamma(images - k + 1) for k in range(count + 1)]
    low, high = 0.0, 1.0
    for _ in range(40):
        share = (low + high) / 2
        seen, unseen = math.log(share), math.log1p(-share)
        probability = sum(math.exp(way + k * seen + (images - k) * unseen) for k, way in enumerate(ways))
        low, high = (share, high) if probability > tail else (low, share)
    return high


@dataclass(frozen=True)
class Limits:
    """What int8 may cost: accuracy, above 0, and the share of images with the same most probable class, below 1."""

    max_accuracy_loss: float
    min_agreement: float

    @property
    def min_images(self) -> int:
        """So many images show that int8 is within the limits if it changes no answer on any of them."""
        strictest = min(self.max_accuracy_loss, 1 - self.min_agreement)
        return math.ceil(math.log(0.0125) / math.log1p(-strictest)) if strictest < 1 else 1

    def admit(self, valid: Changes, training: Changes) -> bool:
        """Return whether the images show that int8 stays within the limits, those of both splits taken together.

        A graph that is worse than a limit passes in at most 2.5% of the cases. The network knows its training images:
        where int8 changes answers on the others more often, the validation images have to show it alone as well.
        """
        return self._shown(valid + training) and (self._shown(valid) or not valid.more_often_than(training))

    def _shown(self, changes: Changes) -> bool:
        return (
            changes.loss_interval[1] <= self.max_accuracy_loss and changes.agreement_interval[0] >= self.min_agreement
        )
