"""The training program runs torchrun: for the processes of one host, and for several hosts."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from distributed_fixtures import free_port, loopback
from emulator_fixtures import eventually
from training_fixtures import FAST, write_data_set
from training_job import Job

from model.core.artifact import verify_files
from model.training.distributed.group import DistributedError
from model.training.distributed.launch import processes_per_host

TWO = [*FAST, "--processes-per-host", "2", "--num-gpus", "0"]


@pytest.mark.parametrize(("asked", "gpus", "processes"), [(None, 0, 1), (None, 4, 4), (2, 4, 2), (3, 0, 3)])
def test_a_host_runs_one_process_per_gpu_or_as_many_as_it_is_told(asked, gpus, processes):
    assert processes_per_host(asked, gpus) == processes


def test_more_processes_than_gpus_are_refused():
    with pytest.raises(DistributedError, match="4 processes per host, but each needs a GPU of its own and there are 2"):
        processes_per_host(4, 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data_set(tmp_path_factory.mktemp("data") / "sample")


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [child for child in psutil.Process(process.pid).children() if "model.train" in child.cmdline()]


def test_two_processes_leave_one_model_and_a_stop_signal_ends_them_whole(data, tmp_path):
    job = Job(tmp_path, data)
    process = job.start(*TWO, "--epochs", "10000")
    assert process.stdout.readline().startswith("epoch=1 ")
    workers = workers_of(process)
    assert len(workers) == 2
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, errors
    epochs = [line for line in output.splitlines() if line.startswith("epoch=")]
    assert len(epochs) == len(set(epochs))
    assert f"\n{output}".count("\nbest_epoch=") == 1
    assert "\nworkers=2 images_per_second=" in output
    verify_files(job.model)
    metrics = job.metrics
    assert metrics["interrupted"]
    assert metrics["workers"] == 2
    assert metrics["efficiency"] > 0
    assert not (job.output / "failure").exists()
    assert "Traceback" not in errors
    assert not any(worker.is_running() for worker in workers)


def test_a_killed_worker_ends_the_training_with_its_name(data, tmp_path):
    job = Job(tmp_path, data)
    process = job.start(*TWO, "--epochs", "10000")
    process.stdout.readline()
    workers = workers_of(process)
    workers[1].kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert job.failure == "worker 1 on algo-1 was ended by SIGKILL, as the kernel does when memory runs out"
    assert errors.splitlines()[-1] == f"ERROR {job.failure}"
    assert not any(worker.is_running() for worker in workers)


@pytest.mark.parametrize("when", ["while they load", "while they train"])
def test_workers_do_not_outlive_a_torchrun_that_is_killed(data, tmp_path, when):
    process = Job(tmp_path, data).start(*TWO, "--epochs", "10000")
    if when == "while they train":
        assert process.stdout.readline().startswith("epoch=1 ")
    eventually(lambda: len(workers_of(process)) == 2)
    workers = workers_of(process)
    process.kill()
    process.communicate(timeout=30)
    for worker in workers:
        worker.wait(timeout=30)


def test_the_reason_of_a_failing_worker_is_that_of_the_training(data, tmp_path):
    job = Job(tmp_path, tmp_path / "nowhere")
    code, _, errors = job.run(*TWO)
    assert code == 1
    assert job.failure.startswith(f"There is no data set at {tmp_path / 'nowhere'}")
    assert f"ERROR {job.failure}" in errors.splitlines()
    assert "Traceback" not in errors


def test_bad_arguments_are_refused_once_before_any_worker_starts(data, tmp_path):
    code, _, errors = Job(tmp_path, data).run(*TWO, "--batch-norm", "local")
    assert code == 2
    assert errors.count("unrecognized arguments: --batch-norm local") == 1


def two_hosts(folder: Path, data: Path) -> list[Job]:
    jobs = [Job(folder / name, data) for name in ("algo-1", "algo-2")]
    together = {
        "SM_HOSTS": '["algo-1", "algo-2"]', "SM_NETWORK_INTERFACE_NAME": loopback(),
        "SM_MASTER_ADDR": "127.0.0.1", "SM_MASTER_PORT": str(free_port()),
    }  # fmt: skip
    for job in jobs:
        job.environment |= together | {"SM_CURRENT_HOST": job.code.parent.name}
    return jobs


@pytest.mark.parametrize("failing", [0, 1])
def test_the_host_whose_worker_fails_ends_first_and_has_the_reason(data, tmp_path, failing):
    jobs = two_hosts(tmp_path, data)
    jobs[failing].environment["SM_CHANNEL_TRAINING"] = str(tmp_path / "nowhere")
    processes = [job.start(*FAST, "--num-gpus", "0") for job in jobs]
    processes[failing].communicate(timeout=60)
    assert processes[1 - failing].poll() is None
    processes[1 - failing].communicate(timeout=60)
    assert [processes[failing].returncode, processes[1 - failing].returncode] == [1, 75]
    assert jobs[failing].failure.startswith(f"There is no data set at {tmp_path / 'nowhere'}")
    assert not (jobs[1 - failing].output / "failure").exists()


def die_before_joining(job: Job, rank: int) -> None:
    """Let one worker of a job end while it imports the program; torchrun goes on."""
    program = job.code / "model" / "training" / "pipeline.py"
    death = f"import os\nif os.environ.get('RANK') == '{rank}': os.kill(os.getpid(), 9)\n"
    program.write_text(program.read_text().replace("import torch\n", f"import torch\n{death}", 1))


def test_a_worker_that_ends_before_it_joins_ends_the_others_of_its_host_at_once(data, tmp_path):
    job = Job(tmp_path, data)
    die_before_joining(job, 1)
    code, _, errors = job.run(*TWO)
    assert code == 1
    assert job.failure.startswith("worker 1 on algo-1 was ended by SIGKILL")
    assert "forcefully exiting" not in errors  # what torchrun says when it has waited in vain, for half a minute
