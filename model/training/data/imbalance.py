"""Classes with few images beside classes with many: how each gets its say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch


def image_weights(targets: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return one weight per image so that all classes weigh the same and the mean weight is 1."""
    counts = np.bincount(targets)
    return (len(targets) / (np.count_nonzero(counts) * counts[targets])).astype(np.float32)


def draw_order(targets: npt.NDArray[np.int64], class_weights: str, generator: torch.Generator) -> npt.NDArray[np.int64]:
    """Return the images of one epoch, in the order in which they are seen.

    Parameters
    ----------
    targets : numpy.ndarray
        int64 [N].
    class_weights : str
        "sampler": N images with repetition, so that every class is seen as often as any other; otherwise every
        image once.
    generator : torch.Generator
    """
    if class_weights == "sampler":
        weights = torch.from_numpy(image_weights(targets))
        order = torch.multinomial(weights, len(targets), replacement=True, generator=generator)
    else:
        order = torch.randperm(len(targets), generator=generator)
    return order.numpy()
