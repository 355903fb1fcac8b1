"""Several workers train the model that one worker trains."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed_fixtures import Worker, run_workers
from engine_fixtures import CPU, PREPROCESSING, RECIPE, brightness
from torch import nn
from training_fixtures import FAST, write_data_set

from model.core.network import build
from model.training import pipeline
from model.training.arguments import parse_arguments
from model.training.data.augment import Augmentation
from model.training.data.dataset import discover
from model.training.data.decoded import decode_for_serving
from model.training.distributed.group import PARENT_VARIABLE, DistributedError, LostPeersError, joined
from model.training.loop.engine import fit
from model.training.loop.stopping import Stop

EVERYTHING = {"mixup": 0.3, "cutmix": 1.0, "ema": 0.9, "class_weights": "balanced", "lr_decay": 0.8}


def without_batch_statistics() -> nn.Module:
    """Return a network that treats every image alone, and draws nothing: only so can any share give the same."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )


def resnet9() -> nn.Module:
    """Return our own network, which has batch normalisation and dropout."""
    return build("resnet9", 3)


def train(
    make: Callable[[], nn.Module],
    changes: dict[str, Any] | None = None,
    *,
    compiled: bool = False,
    half: torch.dtype | None = None,
    accumulate: int = 1,
    stop_at: dict[int, int] | None = None,
) -> dict[str, Any]:
    """Train a network; runs in every worker."""
    if compiled:  # the backend that compiles takes a minute; what it is given does not depend on it
        torch.compile = functools.partial(torch.compile, backend="eager")
    with joined() as workers:
        torch.manual_seed(0)
        network, steps = make(), itertools.count(1)
        if half is None:  # in double precision rounding stays far below any mistake in the weighting of the shares
            network.double().register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
        outcome = fit(
            network,
            brightness(47, 0),
            brightness(31, 1),
            recipe=dataclasses.replace(RECIPE, **{"batch_size": 16, "epochs": 3, **(changes or {})}),
            augmentation=Augmentation(PREPROCESSING, brightness=0, contrast=0),
            device=CPU,
            should_stop=lambda: next(steps) == (stop_at or {}).get(workers.rank),
            on_epoch=lambda _: None,
            workers=workers,
            half=half,
            accumulate=accumulate,
            compiled=compiled,
        )
        return {
            "losses": [(epoch.train_loss, epoch.valid_loss, epoch.valid_accuracy) for epoch in outcome.history],
            "best": outcome.best,
            "interrupted": outcome.interrupted,
            "diverged_epoch": outcome.diverged_epoch,
            "steps": next(steps) - 1,
            "noise": torch.get_rng_state().numpy(),
            "weights": {name: value.numpy() for name, value in network.state_dict().items()},
        }


def compare(results: list[dict[str, Any]], expected: dict[str, Any], atol: float) -> None:
    for result in results:
        np.testing.assert_allclose(result["losses"], expected["losses"], rtol=0, atol=atol)
        for name, value in expected["weights"].items():
            np.testing.assert_allclose(result["weights"][name], value, rtol=0, atol=10 * atol, err_msg=name)


@pytest.mark.parametrize(
    ("size", "options", "changes"),
    [
        (2, {}, {}),
        (3, {}, EVERYTHING),
        (3, {}, {"class_weights": "sampler", "train_stages": 1}),
        (1, {"accumulate": 5}, EVERYTHING),
        (2, {"accumulate": 3}, EVERYTHING),
        (2, {"compiled": True, "accumulate": 2}, {"epochs": 1}),
    ],
)
def test_any_number_of_workers_trains_the_same_model(size, options, changes):
    alone = run_workers(1, train, without_batch_statistics, changes)[0]
    together = run_workers(size, functools.partial(train, **options), without_batch_statistics, changes)
    compare(together, alone, 1e-9)
    assert together[0]["best"].cells.tolist() == alone["best"].cells.tolist()


def test_workers_that_normalise_by_their_own_shares_have_one_model():
    one, two = run_workers(2, functools.partial(train, half=torch.bfloat16), resnet9, {"ema": 0.9})
    compare([two], one, 0)
    assert not np.array_equal(one["noise"], two["noise"]), "each draws the noise of its own share"


def decode(folder: Path) -> np.ndarray:
    """Decode training images, and return a copy of what this worker then has; runs in every worker."""
    with joined() as workers:
        return decode_for_serving(discover(folder).splits["train"], PREPROCESSING, 1, workers).pixels.copy()


def test_the_workers_of_a_host_share_what_each_has_decoded(tmp_path):
    folder = write_data_set(tmp_path / "dogs")
    for pixels in run_workers(2, decode, folder):
        np.testing.assert_array_equal(pixels, decode(folder))


def test_a_stop_that_reaches_one_worker_ends_all_after_the_same_step():
    for result in run_workers(3, functools.partial(train, stop_at={1: 5}), without_batch_statistics):
        assert result["interrupted"]
        assert result["steps"] == 5
        assert len(result["losses"]) == 1


def lost_by_the_last() -> nn.Module:
    """Return a network whose fifth training step gives no numbers on the last worker."""
    network, steps = without_batch_statistics(), itertools.count(1)
    if torch.distributed.get_rank() == 2:
        network.register_forward_hook(
            lambda *given: given[-1] * torch.nan if network.training and next(steps) == 5 else None
        )
    return network


def test_a_loss_that_is_no_number_on_one_worker_ends_all_after_the_same_step():
    for result in run_workers(3, train, lost_by_the_last):
        assert (result["diverged_epoch"], result["steps"], len(result["losses"])) == (2, 5, 1)


def trained_on_their_own(folders: list[Path], lost_by_the_last: dict[str, str]) -> str:
    """What the workers complain of that have a folder each, and of which one cannot read what the others can."""
    with joined() as workers:
        decode = pipeline.decode_for_serving
        if workers.rank == 1:
            pipeline.decode_for_serving = lambda *given: dataclasses.replace(decode(*given), skipped=lost_by_the_last)
        arguments = parse_arguments([*FAST, "--num-gpus", "0", "--data-dir", str(folders[workers.rank])], {})
        with pytest.raises(DistributedError) as error:
            pipeline.train(arguments, Stop(), workers)
        return str(error.value)


@pytest.mark.parametrize(("folders", "lost"), [(["one", "two"], {}), (["one", "one"], {"valid/a.png": "gone"})])
def test_workers_that_do_not_have_the_same_images_are_refused(tmp_path, folders, lost):
    write_data_set(tmp_path / "one", train=3, valid=2)
    write_data_set(tmp_path / "two", train=4, valid=2)
    for message in run_workers(2, trained_on_their_own, [tmp_path / name for name in folders], lost):
        assert message.startswith("the hosts do not have the same images, or one of them cannot read some")


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}])
def test_a_torchrun_on_fewer_hosts_than_the_arguments_name_is_refused(environment):
    # Each host would train a whole model of its own.
    message = r"on 1 of the 4 hosts .*start it with --nnodes 4"
    with pytest.raises(DistributedError, match=message), joined(4, environment):
        pass


def joined_without_torchrun() -> str:
    """What a worker says that torchrun has started, but is not the child of any more."""
    with pytest.raises(LostPeersError) as error, joined():
        pass
    return str(error.value)


def test_a_worker_whose_torchrun_was_killed_before_it_joined_ends():
    gone = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", PARENT_VARIABLE: "1"}
    assert Worker(joined_without_torchrun, gone).result() == "this worker ends because its torchrun was killed"
