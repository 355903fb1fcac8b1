"""Hosts that meet, or do not; and workers that are started, stopped and killed by the training program itself."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest
from distributed_fixtures import FORKS, free_port, loopback, run_workers
from training_fixtures import FAST, write_data_set
from training_job import Job

from model.core.artifact import verify_files
from model.train import main
from model.training.arguments import parse_arguments
from model.training.config import TrainingConfig
from model.training.distributed.group import DistributedError, _end_with_parent, joined
from model.training.distributed.launch import _meet, processes_per_host
from model.training.distributed.meeting import _listen

TWO = [*FAST, "--processes-per-host", "2", "--num-gpus", "0"]


def host(name: str, hosts: str, port: int, **changes: object) -> TrainingConfig:
    arguments = parse_arguments(
        ["--data-dir", "d", "--hosts", hosts, "--current-host", name, "--master-addr", "127.0.0.1"], {}
    )
    return dataclasses.replace(arguments, **{"master_port": port, "join_timeout": 1} | changes)


def meet(hosts: list[TrainingConfig], processes: list[int]) -> list[str | None]:
    """Let the hosts meet; what each of them complains of."""
    complaints: list[str | None] = [None] * len(hosts)
    stores = []

    def run(index: int) -> None:
        try:
            stores.append(_meet(hosts[index], processes[index]))
        except DistributedError as error:
            complaints[index] = str(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(hosts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return complaints


def test_hosts_that_are_all_there_have_nothing_to_complain_of():
    port, names = free_port(), '["algo-1", "algo-2", "algo-3"]'
    hosts = [host(f"algo-{number}", names, port, join_timeout=30) for number in (1, 2, 3)]
    assert meet(hosts, [2, 2, 2]) == [None, None, None]


def test_a_host_that_does_not_come_is_named_on_every_other_host():
    port, names = free_port(), '["algo-1", "algo-2", "algo-3", "algo-4"]'
    hosts = [host(f"algo-{number}", names, port) for number in (1, 3)]
    for complaint in meet(hosts, [1, 1]):
        assert "algo-2, algo-4 did not come to 127.0.0.1" in complaint
        assert "within 1 seconds; 2 of 4 hosts are missing" in complaint


def test_the_first_host_that_does_not_answer_is_named():
    late = host("algo-2", '["algo-1", "algo-2"]', free_port())
    assert "algo-1 does not answer at 127.0.0.1:" in meet([late], [1])[0]


def test_hosts_with_unlike_numbers_of_processes_are_refused():
    port, names = free_port(), '["algo-1", "algo-2"]'
    hosts = [host(f"algo-{number}", names, port, join_timeout=30) for number in (1, 2)]
    for complaint in meet(hosts, [4, 8]):
        assert "(algo-1: 4, algo-2: 8); set --processes-per-host" in complaint


@pytest.mark.parametrize(
    ("argv", "environment", "processes"),
    [
        (["--num-gpus", "0"], {}, 1),
        (["--num-gpus", "4"], {}, 4),
        (["--num-gpus", "4", "--processes-per-host", "2"], {}, 2),
        (["--num-gpus", "0", "--processes-per-host", "3"], {}, 3),
        (["--num-gpus", "0"], {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, 4),
    ],
)
def test_a_host_runs_one_process_per_gpu_or_as_many_as_it_is_told(argv, environment, processes):
    assert processes_per_host(parse_arguments(["--data-dir", "d", *argv], {}), environment) == processes


def test_more_processes_than_gpus_are_refused():
    arguments = parse_arguments(["--data-dir", "d", "--num-gpus", "2", "--processes-per-host", "4"], {})
    with pytest.raises(DistributedError, match="4 processes per host, but each needs a GPU of its own and there are 2"):
        processes_per_host(arguments, {})


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
    assert not any(worker.is_running() for worker in workers)


def test_a_killed_worker_ends_the_training_with_its_name(data, tmp_path):
    job = Job(tmp_path, data)
    process = job.start(*TWO, "--epochs", "10000")
    process.stdout.readline()
    workers = workers_of(process)
    workers[1].kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert job.failure.endswith(" was ended by SIGKILL, as the kernel does when memory runs out")
    assert job.failure.startswith("worker ")
    assert errors.splitlines()[-1] == f"ERROR {job.failure}"
    assert not any(worker.is_running() for worker in workers)


def parent_of_a_worker(sender: Connection) -> None:
    """Stand in for torchrun: start a worker that would go on for ever."""
    if not (child := os.fork()):
        _end_with_parent()
        signal.pause()
    sender.send(child)
    signal.pause()


def test_workers_do_not_outlive_a_torchrun_that_is_killed():
    receiver, sender = FORKS.Pipe(duplex=False)
    parent = FORKS.Process(target=parent_of_a_worker, args=(sender,), daemon=True)
    parent.start()
    worker = psutil.Process(receiver.recv())
    parent.kill()
    assert worker.wait(timeout=20) is None  # whose child it is now is not ours to know
    assert not worker.is_running()


def test_workers_whose_torchrun_is_killed_while_they_load_do_not_wait_for_others(data, tmp_path):
    process = Job(tmp_path, data).start(*TWO, "--epochs", "10000")
    while len(workers := workers_of(process)) < 2:
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=30)
    for worker in workers:
        worker.wait(timeout=30)


def test_the_reason_of_a_failing_worker_is_that_of_the_training(data, tmp_path):
    job = Job(tmp_path, tmp_path / "nowhere")
    code, _, errors = job.run(*TWO)
    assert code == 1
    assert job.failure.startswith(f"there is no data set at {tmp_path / 'nowhere'}")
    assert errors.splitlines()[-1] == f"ERROR {job.failure}"
    assert "Traceback" not in errors


def two_hosts(folder: Path, data: Path) -> list[Job]:
    jobs = [Job(folder / name, data) for name in ("algo-1", "algo-2")]
    together = {
        "SM_HOSTS": '["algo-1", "algo-2"]', "SM_NETWORK_INTERFACE_NAME": loopback(),
        "SM_MASTER_ADDR": "127.0.0.1", "SM_MASTER_PORT": str(free_port()),
    }  # fmt: skip
    for job in jobs:
        job.environment |= together | {"SM_CURRENT_HOST": job.code.parent.name}
    return jobs


def fail(jobs: list[Job]) -> None:
    for process in [job.start(*FAST, "--num-gpus", "0") for job in jobs]:
        process.communicate(timeout=60)
        assert process.returncode == 1


@pytest.mark.parametrize("failing", [0, 1])
def test_every_host_has_the_reason_of_the_one_that_fails(data, tmp_path, failing):
    jobs = two_hosts(tmp_path, data)
    jobs[failing].environment["SM_CHANNEL_TRAINING"] = str(tmp_path / "nowhere")
    fail(jobs)
    assert jobs[failing].failure.startswith(f"there is no data set at {tmp_path / 'nowhere'}")
    assert jobs[0].failure == jobs[1].failure


def die_before_joining(job: Job, rank: int, death: str) -> None:
    """Let one worker of a job end while it imports the program; the launcher goes on."""
    program = job.code / "model" / "training" / "pipeline.py"
    condition = f"import os\nif os.environ.get('RANK') == '{rank}': {death}\n"
    program.write_text(program.read_text().replace("import torch\n", f"import torch\n{condition}", 1))


@pytest.mark.parametrize(
    ("failing", "death", "reason"),
    [
        (0, "os.kill(os.getpid(), 9)", "worker 0 on algo-1 was ended by SIGKILL"),
        (1, "raise ImportError", "worker 1 on algo-2 ended with exit code 1 without giving a reason; look at the end"),
    ],
)
def test_a_worker_that_ends_before_it_joins_ends_every_host_with_its_reason(data, tmp_path, failing, death, reason):
    jobs = two_hosts(tmp_path, data)
    die_before_joining(jobs[failing], failing, death)
    fail(jobs)
    assert jobs[0].failure.startswith(reason)
    assert jobs[0].failure == jobs[1].failure


def test_a_worker_that_ends_before_it_joins_ends_the_others_of_its_host_at_once(data, tmp_path):
    job = Job(tmp_path, data)
    die_before_joining(job, 1, "os.kill(os.getpid(), 9)")
    code, _, errors = job.run(*TWO)
    assert code == 1
    assert job.failure.startswith("worker 1 on algo-1 was ended by SIGKILL")
    assert "forcefully exiting" not in errors  # what torchrun says when it has waited in vain, for half a minute


def test_under_a_torchrun_of_another_size_the_program_refuses_to_run(tmp_path, monkeypatch):
    ranks = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (ranks | {"SM_OUTPUT_DIR": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    assert main(["--data-dir", "d", "--processes-per-host", "4", "--num-gpus", "0"]) == 1
    assert (tmp_path / "failure").read_text().startswith("WORLD_SIZE is 2, but the arguments ask for 4 workers")


@pytest.mark.parametrize(
    ("name", "found", "every_interface"),
    [
        ("127.0.0.1", "127.0.0.1", False),
        ("localhost", "127.0.0.1", False),
        ("algo-1", "127.0.0.2", True),  # a name that leads back to the machine itself, where no other host can reach it
        ("training-service", "192.0.2.1", True),  # in front of this machine
    ],
)
def test_the_store_listens_where_the_other_hosts_look_for_it(monkeypatch, name, found, every_interface):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [(socket.AF_INET, 1, 6, "", (found, 0))])
    listener = _listen(name, 0)
    assert (listener is None) == every_interface
    if listener is not None:
        with listener:
            assert listener.getsockname()[0] == found


def where_a_worker_listens(size: int) -> set[str]:
    """Join as a worker that something else than our launcher has started."""
    with joined(size) as workers:
        found = {entry.laddr.ip for entry in psutil.Process().net_connections("inet") if entry.status == "LISTEN"}
        workers.barrier()
        return found


def test_a_store_that_the_first_worker_keeps_listens_on_the_loopback_interface():
    assert run_workers(2, where_a_worker_listens, 2) == [{"127.0.0.1"}, {"127.0.0.1"}]
