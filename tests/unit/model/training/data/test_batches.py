from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from engine_fixtures import CPU, PREPROCESSING, RECIPE
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional

from model.training.data.augment import Augmentation
from model.training.data.batches import (
    Batch,
    Batches,
    Mixture,
    draw_mixture,
    draw_order,
    image_weights,
    steps_per_epoch,
)
from model.training.data.decoded import Images
from model.training.distributed.group import ALONE, DistributedError, Workers

INPUTS = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 8, 8).contiguous()


def test_mixup_is_the_weighted_mean_of_neighbours_and_leaves_an_odd_one_alone():
    mixed, own = Mixture(0.75).mix(INPUTS)
    assert own == 0.75
    assert mixed[:, 0, 0, 0].tolist() == [0.25, 0.75, 2.25, 2.75, 4.0]


def test_cutmix_covers_a_box_and_counts_the_pixels_that_are_left_also_at_the_border():
    mixed, own = Mixture(0.7, (0.25, 0.5, 0.75, 1.0)).mix(INPUTS)
    covered = mixed[0, 0] == 1
    assert covered.sum() == 16
    assert covered[4:, 2:6].all()
    assert own == 1 - 16 / 64
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        mixed, own = draw_mixture(0, 1, generator).mix(INPUTS)
        assert own == pytest.approx(float((mixed[0, 0] == 0).float().mean()))
    assert (INPUTS[0] == 0).all(), "the batch itself is left as it is"


def batches(count: int, batch_size: int, workers: Workers = ALONE, **changes) -> list[Batch]:
    """Return the batches of one epoch of so many images."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    images = Images(pixels, np.ones(count, np.float32), np.arange(count) % 3)
    recipe, generator = dataclasses.replace(RECIPE, batch_size=batch_size, **changes), torch.Generator().manual_seed(1)
    made = Batches(images, recipe, Augmentation(PREPROCESSING), CPU, workers)
    return list(made.epoch(generator, made.order(generator)))


def only_batch(workers: Workers = ALONE, **changes) -> Batch:
    (batch,) = batches(10, 10, workers, **changes)
    return batch


@given(st.integers(2, 200), st.integers(2, 40), st.integers(1, 5), st.integers(1, 5))
def test_nobody_ever_trains_on_a_single_image(images, batch_size, size, accumulate):
    assume(min(images, batch_size) >= 2 * size)
    steps = steps_per_epoch(images, batch_size, size)
    seen = []
    for whole in np.array_split(np.arange(images), steps):
        shares = [whole[Workers(rank, size).share(len(whole), multiple=2)] for rank in range(size)]
        pieces = [piece for share in shares for piece in Batch(INPUTS, torch.from_numpy(share)).pieces(accumulate)]
        assert min(len(piece.targets) for piece in pieces) >= 2
        assert len(pieces) <= size * accumulate
        seen += [target for piece in pieces for target in piece.targets.tolist()]
    assert seen == list(range(images))
    assert math.ceil(images / steps) <= batch_size or images % steps < images < 2 * size * (steps + 1)


@pytest.mark.parametrize(("count", "batch_size"), [(7, 16), (16, 7)])
def test_batches_that_leave_a_worker_a_single_image_are_refused(count, batch_size):
    message = f"{count} images in batches of at most {batch_size} are too few for 4 workers, .* larger --batch-size"
    with pytest.raises(DistributedError, match=message):
        batches(count, batch_size, Workers(0, 4))


@pytest.mark.parametrize("options", [{}, {"mixup": 0.4}, {"cutmix": 1.0}, {"class_weights": "balanced", "mixup": 0.4}])
@pytest.mark.parametrize("size", [2, 3])
def test_the_workers_parts_make_up_the_batch_and_their_mean_loss_is_its_loss(options, size):
    whole = only_batch(**options)
    workers = [Workers(rank, size) for rank in range(size)]
    parts = [only_batch(worker, **options) for worker in workers]
    torch.testing.assert_close(torch.cat([part.inputs for part in parts]), whole.inputs)
    assert torch.cat([part.targets for part in parts]).tolist() == whole.targets.tolist()
    logits = torch.randn(10, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    shares = [logits[worker.share(10, multiple=2)] for worker in workers]
    losses = [part.loss(share, label_smoothing=0.1) for part, share in zip(parts, shares, strict=True)]
    expected = whole.loss(logits, label_smoothing=0.1)
    assert sum(loss.item() for loss in losses) / size == pytest.approx(expected.item(), rel=1e-7)
    pieces = [piece for part in parts for piece in part.pieces(2)]
    rows = logits.split([len(piece.targets) for piece in pieces])
    losses = [piece.loss(row, label_smoothing=0.1) for piece, row in zip(pieces, rows, strict=True)]
    assert sum(loss.item() for loss in losses) / size == pytest.approx(expected.item(), rel=1e-7)
    plain = sum(part.plain_loss(share).item() for part, share in zip(parts, shares, strict=True))
    assert plain == pytest.approx(whole.plain_loss(logits).item(), rel=1e-12)


def test_a_mixed_batchs_loss_is_that_of_mixed_targets():
    batch = only_batch(mixup=0.4)
    logits = torch.randn(10, 3, generator=torch.Generator().manual_seed(2))
    soft = functional.one_hot(batch.targets, 3) * batch.own + functional.one_hot(batch.mixed_in, 3) * (1 - batch.own)
    expected = functional.cross_entropy(logits, soft, label_smoothing=0.1)
    assert batch.loss(logits, label_smoothing=0.1).item() == pytest.approx(expected.item(), rel=1e-6)


def test_weights_and_sampler_give_every_class_the_same_weight():
    targets = np.array([0] * 900 + [1] * 90 + [3] * 10)  # and none of class 2
    weights = image_weights(targets)
    assert [weights[targets == index].sum() for index in (0, 1, 3)] == pytest.approx([1000 / 3] * 3)
    order = draw_order(targets, "sampler", torch.Generator().manual_seed(0))
    assert np.bincount(targets[order])[[0, 1, 3]] == pytest.approx([1000 / 3] * 3, abs=5 * math.sqrt(1000 * 2 / 9))
