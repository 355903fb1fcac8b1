"""What `benchmarks.serving` compares: each system gives its figures for one round, and leaves nothing running."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks.load import Expected, Load, WrongAnswerError, run_load
from benchmarks.measuring import Memory, process_tree, tree_memory
from cli.aws import ROOT
from cli.load.generator import Call
from emulator.platform.settings import free_port
from model.core.predictor import Predictor

HOST = "127.0.0.1"
# The slowest peer imports PyTorch three times on a busy machine.
_START_SECONDS = 120
_STOP_SECONDS = 40
_POLL_SECONDS = 0.005


class ModelError(Exception):
    """The model or the images cannot be made as asked; the message is for a person."""


class BrokenSystemError(Exception):
    """A system does not start or ends early; the message holds the end of its log."""


@dataclass(frozen=True)
class Served:
    """A model artifact with its right answers."""

    folder: Path
    precision: str  # "fp32" or "int8"
    expected: list[Expected]  # for each image, what the artifact's own predictor says

    @classmethod
    def of(cls, folder: Path, precision: str, images: Iterable[bytes]) -> Served:
        predictor = Predictor.load(folder)
        return cls(folder, precision, [Expected(*predictor.predict(image, top_k=1).ranked[0]) for image in images])


@dataclass(frozen=True)
class Plan:
    """How each system is loaded."""

    images: list[bytes]  # JPEG files
    clients: tuple[int, ...]  # callers at once, in the order of measuring
    seconds: float  # of each load
    warm_up_seconds: float
    workers: int  # worker processes of the servers that have several


@dataclass(frozen=True)
class Turn:
    """What one system gave in one round."""

    loads: dict[int, Load]  # by the number of callers; of the in-process limit, by the number of processes
    start_seconds: float | None = None  # from starting the program to its first answer
    memory: Memory | None = None  # of all its processes, after the last load


def in_process(served: Served, plan: Plan) -> Turn:
    """Decode and classify in as many one-thread processes as the server has workers, without any server."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(plan.workers)
    with ProcessPoolExecutor(plan.workers, context, _keep_barrier, (barrier,)) as pool:
        # Each of them waits for the others before it begins, so no process gets two.
        loops = [pool.submit(_classify_repeatedly, served, plan) for _ in range(plan.workers)]
        found = [loop.result() for loop in loops]
    latencies = tuple(latency for found_latencies, _ in found for latency in found_latencies)
    cpu_seconds = sum(seconds for _, seconds in found)
    return Turn({plan.workers: Load(plan.seconds, len(latencies), latencies, 0.0, cpu_seconds)})


_barrier: Barrier  # of a process of `in_process`; it can only be inherited, not sent


def _keep_barrier(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _classify_repeatedly(served: Served, plan: Plan) -> tuple[list[float], float]:
    """Return the milliseconds of each image of the plan's seconds, and the processor time of them all in seconds."""
    latencies: list[float] = []
    try:
        predictor = Predictor.load(served.folder)
        for image, expected in zip(plan.images, served.expected, strict=True):  # this also warms up
            if fault := expected.difference(*predictor.predict(image, top_k=1).ranked[0]):
                raise WrongAnswerError(fault)
    except BaseException:
        _barrier.abort()  # or the others would wait for this one
        raise
    _barrier.wait(_START_SECONDS)
    begin, cpu_begin = time.perf_counter(), time.process_time()
    while (before := time.perf_counter()) < begin + plan.seconds:
        predictor.predict(plan.images[len(latencies) % len(plan.images)])
        latencies.append((time.perf_counter() - before) * 1000)
    return latencies, time.process_time() - cpu_begin


def our_server(served: Served, plan: Plan, log: Path, **environment: str) -> Turn:
    """Run the artifact's own program, as a container does, and call `/invocations`."""
    # A new container has no bytecode of the artifact's modules.
    shutil.rmtree(served.folder / "code" / "model" / "__pycache__", ignore_errors=True)
    program, settings, url = our_program(served.folder, **environment)
    return _measure_server(program, settings, _image_calls(url, plan.images, served.expected), plan, log)


def our_program(artifact: Path, **environment: str) -> tuple[list[str], dict[str, str], str]:
    """Return the command and the variables that start an artifact's own program, and the address that it will have."""
    port = free_port()
    settings = {
        "SM_MODEL_DIR": str(artifact),
        "SAGEMAKER_BIND_TO_HOST": HOST,
        "SAGEMAKER_BIND_TO_PORT": str(port),
        **environment,
    }
    return [str(artifact / "code" / "serve")], settings, f"http://{HOST}:{port}/invocations"


def litserve(served: Served, plan: Plan, log: Path, environment: Path) -> Turn:
    port = free_port()
    url, headers = f"http://{HOST}:{port}/predict", {"Content-Type": "application/json"}
    bodies = [json.dumps({"image_data": base64.b64encode(image).decode()}).encode() for image in plan.images]
    calls = [(Call(url, headers, body), right) for body, right in zip(bodies, served.expected, strict=True)]
    program = [str(environment / "bin" / "python"), str(ROOT / "benchmarks" / "peers" / "litserve_server.py")]
    return _measure_server(program, _peer_settings(served, plan, port), calls, plan, log)


def bentoml(served: Served, plan: Plan, log: Path, environment: Path) -> Turn:
    port = free_port()
    calls = _image_calls(f"http://{HOST}:{port}/classify", plan.images, served.expected)
    program = [str(environment / "bin" / "bentoml"), "serve", "benchmarks.peers.bentoml_service:Classifier"]
    program += ["--host", HOST, "--port", str(port), "--working-dir", str(ROOT)]
    settings = {
        **_peer_settings(served, plan, port),
        "BENTOML_DO_NOT_TRACK": "true",
        "BENTOML_HOME": str(environment / "home"),
    }
    return _measure_server(program, settings, calls, plan, log)


def _peer_settings(served: Served, plan: Plan, port: int) -> dict[str, str]:
    return {
        "PYTHONPATH": str(ROOT),
        "SM_MODEL_DIR": str(served.folder),
        "PORT": str(port),
        "WORKERS": str(plan.workers),
        # One thread for each worker, also for what reads this before the model is loaded.
        "OMP_NUM_THREADS": "1",
    }


def _image_calls(url: str, images: Sequence[bytes], expected: Sequence[Expected]) -> list[tuple[Call, Expected]]:
    headers = {"Content-Type": "image/jpeg"}
    return [(Call(url, headers, image), right) for image, right in zip(images, expected, strict=True)]


def _measure_server(
    program: list[str], settings: dict[str, str], calls: list[tuple[Call, Expected]], plan: Plan, log: Path
) -> Turn:
    began = time.perf_counter()
    with started(program, settings, log) as process:
        wait_for_answer(*calls[0], process, log)
        start_seconds = time.perf_counter() - began
        loads = loads_of(calls, plan, process.pid)
        return Turn(loads, start_seconds, tree_memory(process.pid))


def loads_of(calls: list[tuple[Call, Expected]], plan: Plan, pid: int) -> dict[int, Load]:
    """Call a running system, whose first process is given, with every number of callers."""
    return {clients: run_load(calls, clients, plan.seconds, plan.warm_up_seconds, pid) for clients in plan.clients}


@contextlib.contextmanager
def started(program: list[str], settings: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a process group of its own; at the end nothing of the group is left."""
    programs = map(os.path.dirname, (program[0], sys.executable))  # its environment's before this one's
    path = os.pathsep.join([*programs, os.environ.get("PATH", os.defpath)])
    environment = {"PATH": path, "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8", **settings}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            program, cwd=log.parent, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    family: list[psutil.Process] = []
    try:
        yield process
    finally:
        family = process_tree(process.pid)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for_answer(call: Call, expected: Expected | None, process: subprocess.Popen[bytes], log: Path) -> None:
    """Ask until there is an answer, and check it where one is expected; until then a server may refuse or fail."""
    deadline = time.monotonic() + _START_SECONDS
    url = urlsplit(call.url)
    while True:
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=_START_SECONDS)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("POST", url.path, call.body, call.headers)
            response = connection.getresponse()
            body = response.read()
            if response.status == 200:
                if expected and (fault := expected.fault(response.status, body)):
                    raise WrongAnswerError(fault)
                return
        if process.poll() is not None or time.monotonic() > deadline:
            ended = "does not answer" if process.returncode is None else f"ended with status {process.returncode}"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise BrokenSystemError(f"{log.stem} {ended}:\n{tail}")
        time.sleep(_POLL_SECONDS)


def install_peers(folder: Path, report: Callable[[str], None]) -> Path:
    """Make the virtual environment of LitServe and BentoML in a folder, unless it is there; return the folder."""
    pins = ROOT / "benchmarks" / "requirements-peers.txt"
    lock = pins.with_suffix(".lock")
    installed = folder / lock.name
    if installed.exists() and installed.read_bytes() == lock.read_bytes():
        return folder
    report(f"Installing LitServe, BentoML and PyTorch into {folder}; this happens once.")
    shutil.rmtree(folder, ignore_errors=True)
    uv, python = str(Path(sys.executable).parent / "uv"), str(folder / "bin" / "python")
    checked = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", str(lock)]
    pytorch = ["--no-compile", "--only-binary", ":all:", "--constraint", str(pins), "torch", "torchvision"]
    # As the Makefile does: torch last and through pip, which finds a CPU-only build where one is configured.
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [uv, "pip", "install", "--quiet", "--python", python, "--compile-bytecode", *checked],
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pytorch],
    ):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            raise BrokenSystemError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")
    shutil.copyfile(lock, installed)
    return folder
