"""Several workers train the model that one worker trains."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed_fixtures import Worker, environment, free_port, run_workers
from engine_fixtures import CPU, PREPROCESSING, RECIPE, brightness, small_network
from training_fixtures import FAST, write_data_set

from model.core.resnet9 import resnet9
from model.training import pipeline
from model.training.arguments import parse_arguments
from model.training.data.augment import Augmentation
from model.training.distributed.group import DistributedError, Failures, LostPeersError, Workers, joined
from model.training.loop.checkpoints import Checkpoints
from model.training.loop.engine import Execution, fit
from model.training.loop.stopping import Stop

EVERYTHING = {"mixup": 0.3, "cutmix": 1.0, "ema": 0.9, "class_weights": "balanced", "lr_decay": 0.8}


def _in_double(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    return (inputs[0].double(),)


def train(
    size: int,
    changes: dict[str, Any] | None = None,
    *,
    double: bool = False,
    whole_batch_norm: bool = True,
    compiled: bool = False,
    half: torch.dtype | None = None,
    pictures: tuple[int, int] = (47, 31),
    stop_at: dict[int, int] | None = None,
    make: Callable[[], torch.nn.Module] = lambda: resnet9(3),
    folder: Path | None = None,
) -> dict[str, Any]:
    """Train our own network, which has batch normalisation and dropout; runs in every worker."""
    with joined(size) as workers:
        torch.manual_seed(0)
        network = make()
        if double:
            network.double().register_forward_pre_hook(_in_double)
        steps = 0

        def should_stop() -> bool:
            nonlocal steps
            steps += 1
            return bool(stop_at) and steps == stop_at.get(workers.rank)

        outcome = fit(
            network,
            brightness(pictures[0], 0),
            brightness(pictures[1], 1),
            recipe=dataclasses.replace(RECIPE, **{"batch_size": 16, "epochs": 3, **(changes or {})}),
            augmentation=Augmentation(PREPROCESSING, brightness=0, contrast=0),
            device=CPU,
            should_stop=should_stop,
            on_epoch=lambda _: None,
            execution=Execution(
                workers=workers,
                checkpoints=folder and Checkpoints(folder, {}, workers=workers, every=1e9, keep=1),
                whole_batch_norm=whole_batch_norm,
                half=half,
                compile=compiled,
            ),
        )
        losses = [(epoch.train_loss, epoch.valid_loss, epoch.valid_accuracy) for epoch in outcome.history]
        return {
            "losses": losses,
            "best": outcome.best,
            "efficiency": outcome.efficiency,
            "interrupted": outcome.interrupted,
            "steps": steps,
            "weights": {name: value.numpy() for name, value in network.state_dict().items()},
        }


def in_double(size: int, changes: dict[str, Any]) -> dict[str, Any]:
    return train(size, changes, double=True)


@pytest.mark.parametrize(
    ("size", "changes"), [(2, {}), (3, EVERYTHING), (3, {"class_weights": "sampler", "train_stages": 3})], ids=str
)
def test_any_number_of_workers_trains_the_same_model(size, changes):
    # In double precision rounding stays far below any mistake in the weighting of parts, noise or normalisation.
    alone = run_workers(1, in_double, 1, changes)[0]
    for result in run_workers(size, in_double, size, changes):
        np.testing.assert_allclose(result["losses"], alone["losses"], rtol=0, atol=1e-9)
        assert result["best"].confusion_matrix == alone["best"].confusion_matrix
        for name, value in alone["weights"].items():
            np.testing.assert_allclose(result["weights"][name], value, rtol=0, atol=1e-8, err_msg=name)


def test_in_single_precision_the_loss_curves_differ_by_rounding():
    alone, together = run_workers(1, train, 1)[0], run_workers(2, train, 2)[0]
    np.testing.assert_allclose(together["losses"], alone["losses"], rtol=0, atol=1e-3)
    assert alone["efficiency"] is None
    assert together["efficiency"] > 0


def in_half(size: int, **options: Any) -> dict[str, Any]:
    return train(size, {"epochs": 2, "lr": 1e-3, **EVERYTHING}, half=torch.bfloat16, **options)


def test_workers_in_half_precision_train_the_same_model_but_for_its_rounding():
    alone, together = run_workers(1, in_half, 1)[0], run_workers(2, in_half, 2)
    for epoch, expected in zip(together[0]["losses"], alone["losses"], strict=True):
        np.testing.assert_allclose(epoch[:2], expected[:2], rtol=0, atol=0.02)
    assert together[0]["losses"] == together[1]["losses"]
    for name, value in together[0]["weights"].items():
        np.testing.assert_array_equal(together[1]["weights"][name], value, err_msg=name)


def last_layer_only(size: int) -> dict[str, Any]:
    return train(size, {"train_stages": 1}, double=True, make=small_network)


def test_a_frozen_layer_outside_of_any_block_stays_frozen_with_several_workers():
    alone = run_workers(1, last_layer_only, 1)[0]["weights"]
    for result in run_workers(2, last_layer_only, 2):
        np.testing.assert_array_equal(result["weights"]["1.running_mean"], np.zeros(8))
        for name, value in alone.items():
            np.testing.assert_allclose(result["weights"][name], value, rtol=0, atol=1e-8, err_msg=name)


def locally_normalised(size: int, changes: dict[str, Any], **options: Any) -> dict[str, Any]:
    return train(size, changes, whole_batch_norm=False, **options)


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}], ids=str)
def test_normalised_by_their_own_shares_the_workers_still_have_one_model(changes):
    one, two = run_workers(2, locally_normalised, 2, changes)
    assert one["losses"] == two["losses"]
    for name, value in one["weights"].items():
        np.testing.assert_array_equal(value, two["weights"][name], err_msg=name)
    assert one["losses"] != run_workers(1, train, 1, changes)[0]["losses"]


def locally_normalised_and_stopped(size: int, folder: Path, stop_at: dict[int, int] | None) -> dict[str, Any]:
    return locally_normalised(size, {"ema": 0.9}, double=True, folder=folder, stop_at=stop_at)


def test_the_statistics_of_every_worker_are_in_a_checkpoint(tmp_path):
    undisturbed = run_workers(2, locally_normalised_and_stopped, 2, tmp_path / "undisturbed", None)[0]
    assert run_workers(2, locally_normalised_and_stopped, 2, tmp_path / "stopped", {0: 5})[0]["interrupted"]
    resumed = run_workers(2, locally_normalised_and_stopped, 2, tmp_path / "stopped", None)[0]
    for name, value in undisturbed["weights"].items():
        np.testing.assert_allclose(resumed["weights"][name], value, rtol=0, atol=1e-8, err_msg=name)


def compiled(size: int) -> dict[str, Any]:
    # The backend that compiles takes a minute; what it is given does not depend on it.
    torch.compile = functools.partial(torch.compile, backend="eager")
    return train(size, {"epochs": 1}, compiled=True)


def test_compiled_workers_train_the_same_model():
    alone, together = run_workers(1, train, 1, {"epochs": 1})[0], run_workers(2, compiled, 2)[0]
    np.testing.assert_allclose(together["losses"], alone["losses"], rtol=0, atol=1e-3)
    assert together["efficiency"] is None  # nothing to compare with was measured


def few_validation_pictures(size: int) -> dict[str, Any]:
    return train(size, pictures=(12, 2))


def test_every_validation_picture_counts_once_also_when_there_are_more_workers_than_pictures():
    for result in run_workers(3, few_validation_pictures, 3):
        assert np.sum(result["best"].confusion_matrix) == 2


def stopped(size: int) -> dict[str, Any]:
    return train(size, stop_at={1: 5})


def test_a_stop_that_reaches_one_worker_ends_all_after_the_same_step():
    for result in run_workers(3, stopped, 3):
        assert result["interrupted"]
        assert result["steps"] == 5
        assert len(result["losses"]) == 1


def too_many(size: int) -> str:
    with pytest.raises(DistributedError) as error:
        train(size, pictures=(7, 4))
    return str(error.value)


def test_batches_that_leave_a_worker_a_single_picture_are_refused():
    message = run_workers(4, too_many, 4)[0]
    assert "leave as few as 7 for 4 workers, and each needs 2; use a larger --batch-size" in message


def trained_on_their_own(size: int, folders: list[Path], lost_by_the_last: dict[str, str]) -> str:
    """What the workers complain of that have a folder each, and of which one cannot read what the others can."""
    with joined(size) as workers:
        decode = pipeline.decode_for_serving
        if workers.rank == size - 1:
            pipeline.decode_for_serving = lambda *given: dataclasses.replace(decode(*given), skipped=lost_by_the_last)
        arguments = parse_arguments([*FAST, "--num-gpus", "0", "--data-dir", str(folders[workers.rank])], {})
        with pytest.raises(DistributedError) as error:
            pipeline.train(arguments, Stop(), workers)
        return str(error.value)


@pytest.mark.parametrize(("folders", "lost"), [(["one", "two"], {}), (["one", "one"], {"valid/a.png": "gone"})])
def test_workers_that_do_not_have_the_same_pictures_are_refused(tmp_path, folders, lost):
    write_data_set(tmp_path / "one", train=3, valid=2)
    write_data_set(tmp_path / "two", train=4, valid=2)
    for message in run_workers(2, trained_on_their_own, 2, [tmp_path / name for name in folders], lost):
        assert message.startswith("the hosts do not have the same images, or one of them cannot read some")


def one_fails(size: int) -> str:
    try:
        with joined(size) as workers:
            if workers.rank == 1:
                raise ValueError("no such breed")
            workers.barrier()
    except (ValueError, LostPeersError) as error:
        return type(error).__name__
    return "nothing happened"


def test_a_worker_that_fails_ends_the_others_at_once():
    started = time.monotonic()
    assert run_workers(3, one_fails, 3) == ["LostPeersError", "ValueError", "LostPeersError"]
    assert time.monotonic() - started < 20


def wait_for_the_killed(size: int) -> str:
    with pytest.raises(LostPeersError, match="another one did"), joined(size) as workers:
        if workers.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        workers.any(False)
    return "noticed"


def test_a_worker_that_is_killed_ends_the_others_at_once():
    port = free_port()
    survivor, killed = (Worker(wait_for_the_killed, environment(rank, 2, port), (2,)) for rank in range(2))
    assert survivor.result(20) == "noticed"
    killed.process.join(20)
    assert killed.process.exitcode == -signal.SIGKILL


def wait_for_the_absent(size: int) -> str:
    with pytest.raises(DistributedError) as error, joined(size, join_timeout=1):
        pass
    return str(error.value)


def test_a_worker_that_never_joins_is_named_when_the_time_is_over():
    port = free_port()
    store = torch.distributed.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    variables = environment(0, 3, port) | {"TORCHELASTIC_USE_AGENT_STORE": "True"}  # as torchrun keeps one
    message = Worker(wait_for_the_absent, variables, (3,)).result(30)
    assert message.startswith("worker 1, 2 of 3 did not join the others within 1 seconds. --join-timeout sets")
    assert Failures(store).reason_so_far() == message


def exchange(size: int) -> tuple[Any, ...]:
    with joined(size) as workers:
        return (
            workers.all_gather(f"worker {workers.rank}"),
            workers.broadcast(workers.rank + 7),
            workers.sum([0.1 * (workers.rank + 1), -1.0]),
            workers.any(workers.rank == 2, False),
            workers,
        )


def test_what_workers_tell_one_another_is_the_same_for_all():
    for rank, (gathered, broadcast, total, raised, workers) in enumerate(run_workers(3, exchange, 3)):
        assert gathered == ["worker 0", "worker 1", "worker 2"]
        assert broadcast == 7
        assert total == [pytest.approx(0.6, abs=1e-15), -3.0]
        assert raised == [True, False]
        assert workers == Workers(rank, 3, rank, 3)
