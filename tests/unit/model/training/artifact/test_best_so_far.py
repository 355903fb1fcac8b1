"""The best model so far is in the model folder while the training goes on, whole at every moment."""

from __future__ import annotations

import dataclasses
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from training_fixtures import FAST, write_data_set
from training_job import Job

from model.core.artifact import verify_files
from model.core.packaging import BEST_FILE, MODEL_FILES, package, unpack
from model.training.artifact.best_so_far import BestSoFar
from model.training.loop.metrics import Evaluation
from model.training.loop.state import Fit
from model.training.loop.stopping import Stop

FOREVER = [*FAST, "--epochs", "10000"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data_set(tmp_path_factory.mktemp("data") / "sample")


def killed(job: Job, *arguments: str) -> Job:
    """Start a training and kill it after its first epoch, once the model of that is written."""
    process = job.start(*FOREVER, *arguments)
    for _ in range(2):  # the line of the next epoch comes after the model of the one before
        assert process.stdout.readline().startswith("epoch=")
    process.kill()
    process.communicate(timeout=60)
    return job


@pytest.fixture(scope="module")
def job(data, tmp_path_factory) -> Job:
    return killed(Job(tmp_path_factory.mktemp("job"), data), "--model-name", "shapes")


def test_a_training_that_is_killed_leaves_a_model_that_can_be_packaged(job, tmp_path):
    assert [path.name for path in job.model.iterdir() if path.suffix != ".unfinished"] == [BEST_FILE]
    card = package(job.model, tmp_path / "model.tar.gz")
    uploaded = shutil.make_archive(str(tmp_path / "job"), "gztar", job.model)
    assert package(Path(uploaded), tmp_path / "again.tar.gz") == card
    assert (card.name, card.training_job, card.precision) == ("shapes", "job-1", "fp32")
    assert job.metrics["interrupted"]
    assert job.metrics["best_epoch"] == min(job.metrics["epochs"], key=lambda epoch: epoch["valid_loss"])["epoch"]


@pytest.mark.parametrize("missing", [*MODEL_FILES[:3], None])
def test_a_kill_while_the_finished_model_is_written_leaves_the_best_one_so_far(job, tmp_path, missing):
    folder = shutil.copytree(job.model, tmp_path / "model")
    unpack(folder / BEST_FILE, folder)
    dataclasses.replace(verify_files(folder), name="finished").save(folder)
    if missing:
        (folder / missing).unlink()
    assert package(folder, tmp_path / "model.tar.gz").name == ("shapes" if missing else "finished")


def test_the_head_alone_has_one_too_and_the_model_of_an_earlier_training_gives_way(data, job, tmp_path):
    earlier = Job(tmp_path, data)
    unpack(job.model / BEST_FILE, earlier.model)
    killed(earlier, "--mode", "head", "--model-name", "newer")
    assert package(earlier.model, tmp_path / "model.tar.gz").name == "newer"


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("time.monotonic", lambda: clock.now)
    return clock


def outcome(epoch: int) -> Fit:
    return Fit(history=[], best_epoch=epoch, best=Evaluation.of([1 / epoch], [0], [0], 2), interrupted=True)


def test_writing_models_takes_a_tenth_of_the_time_at_most_also_on_a_full_disk(clock, monkeypatch, caplog):
    written: list[int] = []

    def write(_: BestSoFar, found: Fit) -> None:
        written.append(found.best_epoch)
        clock.now += 10
        raise RuntimeError("unexpected pos 704 vs 598")  # so torch.save says that the disk is full

    monkeypatch.setattr(BestSoFar, "_write", write)
    keep = BestSoFar(None, SimpleNamespace(network=None), None, started=0.0)
    for epoch in range(1, 401):  # of a second each, every one better than those before
        clock.now += 1
        keep(outcome(epoch))
    assert written == [1, 91, 181, 271, 361]
    assert "the best model so far could not be written (unexpected pos 704 vs 598); the training goes on" in caplog.text


def test_a_training_ends_before_its_time_is_up_and_finishes_its_model(data, tmp_path):
    job = Job(tmp_path, data)
    code, output, errors = job.run(*FOREVER, "--max-runtime", "20")
    assert code == 0, errors
    assert "\nbest_epoch=" in output
    verify_files(job.model)
    assert job.metrics["interrupted"]
    assert not (job.model / BEST_FILE).exists()


def test_what_is_left_for_finishing_grows_with_the_time_up_to_ten_minutes(clock):
    stop = Stop()
    for stop.limit, ends, leaves_out in ((1000, 900, 950), (86_400, 85_800, 86_100)):
        for clock.now, ended in ((ends - 1, (False, False)), (ends + 1, (True, False)), (leaves_out + 1, (True, True))):
            assert (stop.training(), stop()) == ended


def test_a_signal_ends_the_first_process_of_a_container_also_while_it_imports(data, tmp_path):
    def handled() -> int:
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in status if line.startswith("SigCgt")), 16)

    process = Job(tmp_path, data).start(*FOREVER)
    while not handled() >> (signal.SIGTERM - 1) & 1:  # as soon as Python has a handler, long before torch is loaded
        assert process.poll() is None
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
