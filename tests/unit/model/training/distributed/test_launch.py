"""The training program runs torchrun: for the processes of one host, and for several hosts."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from distributed_fixtures import loopback
from training_fixtures import FAST, write_data_set
from training_job import Job

from emulator.platform.settings import free_port
from model.core.artifact import verify_files

TWO = [*FAST, "--processes-per-host", "2", "--num-gpus", "0"]
FOREVER = [*TWO, "--epochs", "10000"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data_set(tmp_path_factory.mktemp("data") / "sample")


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [child for child in psutil.Process(process.pid).children() if "model.train" in child.cmdline()]


def test_two_processes_leave_one_model_and_a_stop_signal_ends_them_whole(data, tmp_path):
    job = Job(tmp_path, data)
    process = job.start(*FOREVER)
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
    assert (job.metrics["interrupted"], job.metrics["workers"], job.metrics["test"]) == (True, 2, None)
    assert not (job.output / "failure").exists()
    assert "Traceback" not in errors
    assert not any(worker.is_running() for worker in workers)


def test_a_killed_worker_ends_the_training_with_its_name(data, tmp_path):
    job = Job(tmp_path, data)
    process = job.start(*FOREVER)
    process.stdout.readline()
    workers = workers_of(process)
    workers[1].kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert job.failure == "worker 1 on algo-1 was ended by SIGKILL, as the kernel does when memory runs out"
    assert errors.splitlines()[-1] == f"ERROR {job.failure}"
    assert not any(worker.is_running() for worker in workers)


@pytest.mark.parametrize("failing", [0, 1])
def test_the_host_whose_worker_fails_ends_first_and_has_the_reason(data, tmp_path, failing):
    jobs = [Job(tmp_path / name, data) for name in ("algo-1", "algo-2")]
    port = str(free_port())
    for job in jobs:
        job.environment |= {
            "SM_HOSTS": '["algo-1", "algo-2"]', "SM_CURRENT_HOST": job.code.parent.name,
            "SM_NETWORK_INTERFACE_NAME": loopback(), "SM_MASTER_ADDR": "127.0.0.1", "SM_MASTER_PORT": port,
        }  # fmt: skip
    jobs[failing].environment["SM_CHANNEL_TRAINING"] = str(tmp_path / "nowhere")
    processes = [job.start(*FAST, "--num-gpus", "0") for job in jobs]
    processes[failing].communicate(timeout=60)
    assert processes[1 - failing].poll() is None
    processes[1 - failing].communicate(timeout=60)
    assert [processes[failing].returncode, processes[1 - failing].returncode] == [1, 75]
    assert jobs[failing].failure.startswith(f"There is no data set at {tmp_path / 'nowhere'}")
    assert not (jobs[1 - failing].output / "failure").exists()
