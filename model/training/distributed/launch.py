"""Runs the workers of this host by `torchrun`, in this process."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping, Sequence

from torch.distributed import DistError, TCPStore, run
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from ..config import TrainingConfig
from .group import LOST_PEERS, PARENT_VARIABLE, DistributedError, Workers, choose_device, usable_gpus

# SageMaker kills a container 120 seconds after SIGTERM; the workers get nearly all of it to save what they have.
STOP_GRACE_SECONDS = 110


class WorkerKilledError(Exception):
    """A worker was killed, and could not say so. The message says by what."""


def is_worker(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun has started this process."""
    return "RANK" in environment and "WORLD_SIZE" in environment


def processes_per_host(asked: int | None, gpus: int | None) -> int:
    """Return how many workers each host runs: as many as asked for, otherwise one for each GPU, or one.

    Raises DistributedError or ArgumentsError when there are not enough GPUs for them.
    """
    processes = asked or max(1, usable_gpus(gpus))
    choose_device(gpus, Workers(size=processes, local_size=processes))
    return processes


def launch(command: Sequence[str], config: TrainingConfig, processes: int) -> int:
    """Become torchrun for so many workers on this host, which run `command`, and return their exit code.

    Raises DistributedError when the hosts do not come together, WorkerKilledError when a worker was killed.
    """
    hosts, host, address, port = config.hosts, config.current_host, config.master_addr, config.master_port
    if len(hosts) == 1:  # it needs only its loopback interface, and any free port
        address, port = "127.0.0.1", 0
    node = hosts.index(host)
    try:
        store = _loopback_store(address, port) if node == 0 else None
    except OSError as error:
        raise DistributedError(
            f"{host} cannot listen at {address}:{port}: {error}; use another --master-port"
        ) from error
    options = {
        "--nnodes": len(hosts),
        "--nproc-per-node": processes,
        "--master-addr": address,
        "--master-port": port if store is None else store.port,
        "--node-rank": node,
        "--signals-to-handle": "SIGTERM,SIGINT",
        "--shutdown-timeout": STOP_GRACE_SECONDS,
        "--log-dir": os.devnull,  # the workers write to our streams
    }
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, config.num_cpus // processes)))  # torchrun would set 1
    os.environ[PARENT_VARIABLE] = str(os.getpid())
    try:
        run.main([str(text) for option in options.items() for text in option] + list(command))
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        return _exit_code(error, host)
    except DistError as error:
        raise DistributedError(
            f"the hosts {', '.join(hosts)} did not come together at {address}:{port}: {error}"
        ) from error
    return 0


def _loopback_store(address: str, port: int) -> TCPStore | None:
    """Open the store in which the workers of one machine meet; torchrun takes the one that its process has.

    Its own would listen on every interface, and a store asks nobody who they are.
    """
    if address != "localhost" and not address.startswith("127."):  # another name may not lead back here
        return None
    listener = socket.create_server((address, port))
    port = listener.getsockname()[1]
    file = listener.detach()  # which the store closes
    return TCPStore(address, port, is_master=True, wait_for_workers=False, multi_tenant=True, master_listen_fd=file)


def _exit_code(error: ChildFailedError, host: str) -> int:
    """Return the exit code of the worker that failed by itself, and has said why; the others only lost it."""
    # torchrun itself ends the workers of this host that are left, by SIGTERM.
    later = (LOST_PEERS, -signal.SIGTERM)
    causes = {rank: failure for rank, failure in error.failures.items() if failure.exitcode not in later}
    for rank, failure in causes.items():
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            hint = ", as the kernel does when memory runs out" if name == "SIGKILL" else ""
            raise WorkerKilledError(f"worker {rank} on {host} was ended by {name}{hint}")
    return max((failure.exitcode for failure in causes.values()), default=LOST_PEERS)
