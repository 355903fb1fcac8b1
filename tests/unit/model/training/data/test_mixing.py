from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from model.core.transforms import Preprocessing
from model.training.data.augment import Augmentation
from model.training.data.batches import Batches
from model.training.data.decoded import Images
from model.training.data.imbalance import draw_order, image_weights
from model.training.data.mixing import Mixture, draw_mixture, neighbours
from model.training.distributed.group import ALONE, Workers

INPUTS = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 8, 8).contiguous()


def test_neighbours_are_mixed_with_each_other_and_an_odd_one_with_nobody():
    assert neighbours(5).tolist() == [1, 0, 3, 2, 4]
    assert neighbours(4).tolist() == [1, 0, 3, 2]


def test_mixup_is_the_weighted_mean_of_both_pictures():
    mixed, own = Mixture(0.75).mix(INPUTS)
    assert own == 0.75
    assert mixed[:, 0, 0, 0].tolist() == [0.25, 0.75, 2.25, 2.75, 4.0]


def test_cutmix_covers_a_box_and_counts_the_pixels_that_are_left():
    mixed, own = Mixture(0.7, (0.25, 0.5, 0.75, 1.0)).mix(INPUTS)
    covered = mixed[0, 0] == 1
    assert covered.sum() == 16
    assert covered[4:, 2:6].all()
    assert own == 1 - 16 / 64
    assert (INPUTS[0] == 0).all(), "the batch itself is left as it is"


def test_a_box_at_the_border_is_cut_and_the_share_follows():
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        mixture = draw_mixture(0, 1, generator)
        mixed, own = mixture.mix(INPUTS)
        assert own == pytest.approx(float((mixed[0, 0] == 0).float().mean()))


def test_shares_are_beta_distributed_and_both_ways_take_turns():
    generator = torch.Generator().manual_seed(0)
    mixtures = [draw_mixture(0.4, 1.0, generator) for _ in range(2000)]
    mixup = [mixture.own for mixture in mixtures if mixture.box is None]
    assert 900 < len(mixup) < 1100
    assert np.mean(mixup) == pytest.approx(0.5, abs=0.05)
    assert np.var(mixup) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.02)


def test_without_mixing_nothing_is_drawn():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert draw_mixture(0, 0, generator) is None
    assert torch.equal(generator.get_state(), before)


def pictures(targets: list[int]) -> Images:
    count = len(targets)
    return Images(
        np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8),
        np.ones(count, np.float32),
        np.asarray(targets, np.int64),
    )


def batches(workers: Workers = ALONE, targets: list[int] | None = None, **options) -> Batches:
    return Batches(
        pictures(targets or [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]),
        **{
            "batch_size": 10, "augmentation": Augmentation(Preprocessing(16, 16)), "device": torch.device("cpu"),
            "workers": workers, "class_weights": "none", "mixup": 0.0, "cutmix": 0.0, **options,
        },
    )  # fmt: skip


def only_batch(made: Batches):
    generator = torch.Generator().manual_seed(1)
    (batch,) = made.epoch(generator, made.order(generator))
    return batch


@pytest.mark.parametrize("options", [{}, {"mixup": 0.4}, {"cutmix": 1.0}, {"class_weights": "balanced", "mixup": 0.4}])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_workers_parts_make_up_the_batch_and_their_mean_loss_is_its_loss(options, size):
    whole = only_batch(batches(**options))
    workers = [Workers(rank, size) for rank in range(size)]
    parts = [only_batch(batches(worker, **options)) for worker in workers]
    torch.testing.assert_close(torch.cat([part.inputs for part in parts]), whole.inputs)
    assert torch.cat([part.targets for part in parts]).tolist() == whole.targets.tolist()
    logits = torch.randn(10, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    shares = [logits[worker.share(10, multiple=2)] for worker in workers]
    losses = [part.loss(share, label_smoothing=0.1) for part, share in zip(parts, shares, strict=True)]
    expected = whole.loss(logits, label_smoothing=0.1)
    assert sum(loss.item() for loss in losses) / size == pytest.approx(expected.item(), rel=1e-7)
    plain = sum(part.plain_loss(share).item() for part, share in zip(parts, shares, strict=True))
    assert plain == pytest.approx(whole.plain_loss(logits).item(), rel=1e-12)


def test_a_mixed_batchs_loss_is_that_of_mixed_targets():
    batch = only_batch(batches(mixup=0.4))
    logits = torch.randn(10, 3, generator=torch.Generator().manual_seed(2))
    soft = functional.one_hot(batch.targets, 3) * batch.own + functional.one_hot(batch.mixed_in, 3) * (1 - batch.own)
    expected = functional.cross_entropy(logits, soft, label_smoothing=0.1)
    assert batch.loss(logits, label_smoothing=0.1).item() == pytest.approx(expected.item(), rel=1e-6)


def test_balanced_weights_make_all_classes_weigh_the_same():
    targets = np.array([0] * 90 + [1] * 9 + [3])  # and none of class 2
    weights = image_weights(targets)
    sums = [weights[targets == index].sum() for index in (0, 1, 3)]
    assert sums == pytest.approx([100 / 3] * 3)
    assert weights.mean() == pytest.approx(1)


def test_the_sampler_shows_every_class_equally_often():
    targets = np.array([0] * 900 + [1] * 90 + [2] * 10)
    order = draw_order(targets, "sampler", torch.Generator().manual_seed(0))
    assert len(order) == 1000
    counts = np.bincount(targets[order])
    assert all(abs(count - 1000 / 3) < 5 * math.sqrt(1000 * 2 / 9) for count in counts)


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_otherwise_every_picture_is_seen_once(class_weights):
    order = draw_order(np.arange(50) % 3, class_weights, torch.Generator().manual_seed(0))
    assert sorted(order) == list(range(50))
