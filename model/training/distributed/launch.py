"""Starts the workers of this host: `torchrun`, told by SageMaker's variables or by the command line."""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence

import torch
from torch.distributed import TCPStore
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousParameters, rendezvous_handler_registry
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ..config import TrainingConfig
from .group import LOST_PEERS, PARENT_VARIABLE, REASON_SECONDS, DistributedError, Failures
from .meeting import is_loopback, keep_store

# SageMaker kills a container this many seconds after SIGTERM; the workers get nearly all of it to save what they have.
STOP_GRACE_SECONDS = 110
# Workers hear of another one's end by themselves once they have joined; those that have not are ended after so long.
HEARING_SECONDS = 2.0
POLL_SECONDS = 0.05
_VERDICT, _COMPLETE = "verdict", "all are here"
_RENDEZVOUS = "static, listening"


class WorkersFailedError(Exception):
    """A worker failed. The message is its reason.

    Attributes
    ----------
    exit_code : int
        1, or what the worker ended with.
    """

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.exit_code = max(1, exit_code)


def processes_per_host(arguments: TrainingConfig, environment: Mapping[str, str] = os.environ) -> int:
    """Return how many workers each host runs: as many as asked for, otherwise one for each GPU, or one.

    Under a torchrun that somebody else has started it decides, unless the arguments do.

    Raises
    ------
    DistributedError
        When there are GPUs, but fewer than processes.
    """
    asked: int | None = arguments.processes_per_host
    if asked is None and is_worker(environment):
        return int(environment.get("LOCAL_WORLD_SIZE", "1"))
    gpus = torch.cuda.device_count() if arguments.num_gpus is None else arguments.num_gpus
    if asked is not None and 0 < gpus < asked:
        raise DistributedError(
            f"{asked} processes per host, but each needs a GPU of its own and there are {gpus}; "
            "use fewer --processes-per-host, or --num-gpus 0 to compute on the CPU"
        )
    return asked or max(1, gpus)


def is_worker(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun, ours or somebody else's, has started this process."""
    return "RANK" in environment and "WORLD_SIZE" in environment


class _Rendezvous(StaticTCPRendezvous):
    """torchrun's rendezvous of hosts that are known beforehand, which also hears when another host's workers fail."""

    _heard: tuple[str, float] | None = None  # the reason, and when

    @classmethod
    def of(cls, parameters: RendezvousParameters) -> _Rendezvous:
        """Create it as torchrun asks for it."""
        config, hosts = parameters.config, parameters.max_nodes
        return cls(parameters.endpoint, config["port"], config["rank"], hosts, parameters.run_id, config["timeout"])

    def get_backend(self) -> str:
        """Return the name under which it is registered."""
        return _RENDEZVOUS

    def num_nodes_waiting(self) -> int:
        """Return 0. While the workers of this host run, torchrun asks several times a second.

        Raises
        ------
        WorkersFailedError
            When those of another host have failed; torchrun then ends the ones that have not ended by themselves.
        """
        self._heard = self._heard or self._listen()
        if self._heard is not None:
            reason, since = self._heard
            if time.monotonic() - since > HEARING_SECONDS:
                raise WorkersFailedError(reason, 1)
        return 0

    def _listen(self) -> tuple[str, float] | None:
        assert self._store is not None
        try:
            reason = Failures(self._store).reason_so_far()
        except RuntimeError as error:
            reason = f"{self.master_addr}, where all hosts meet, has gone: {error}"
        return None if reason is None else (reason, time.monotonic())


rendezvous_handler_registry.register(_RENDEZVOUS, _Rendezvous.of)


def launch(arguments: TrainingConfig, processes: int, command: Sequence[str]) -> int:
    """Run the workers of this host to their end and return the exit code of the whole.

    Parameters
    ----------
    arguments : TrainingConfig
    processes : int
        How many workers this host runs.
    command : sequence of str
        What each of them is.

    Raises
    ------
    DistributedError
        When the hosts do not come together; the message names those that are missing.
    WorkersFailedError
        When a worker has failed or was killed.
    """
    hosts = arguments.hosts
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", _network_interface(arguments))
    os.environ[PARENT_VARIABLE] = str(os.getpid())
    store = _meet(arguments, processes)
    config = LaunchConfig(
        min_nodes=len(hosts),
        max_nodes=len(hosts),
        nproc_per_node=processes,
        run_id=arguments.job_name or "training",
        rdzv_backend=_RENDEZVOUS,
        rdzv_endpoint=arguments.master_addr,
        rdzv_configs={
            "port": store.port,
            "rank": hosts.index(arguments.current_host),
            "timeout": arguments.join_timeout,
        },
        max_restarts=0,  # whoever started the training starts it again; the checkpoints are for that
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),  # the workers write to our streams
        signals_to_handle="SIGTERM,SIGINT",
        shutdown_timeout=STOP_GRACE_SECONDS,
    )
    try:
        elastic_launch(config, command[0])(*command[1:])
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        failed = _explained(error, Failures(store), arguments.current_host)
    except WorkersFailedError as error:
        failed = error
    else:
        return 0
    with contextlib.suppress(RuntimeError):  # the first host has gone already
        _leave(store, arguments, "failure")
    raise failed


def _explained(error: ChildFailedError, failures: Failures, host: str) -> WorkersFailedError:
    """Find out which worker failed by itself, and why; the others only lost it."""
    # torchrun itself ends the workers of this host that are left, by SIGTERM.
    later = (LOST_PEERS, -signal.SIGTERM)
    causes = {rank: failure for rank, failure in error.failures.items() if failure.exitcode not in later}
    if causes:  # most have left their reason, which then stays
        rank = min(causes, key=lambda rank: causes[rank].timestamp)
        failures.report(f"worker {rank} on {host} {_end(causes[rank].exitcode)}")
    reason = failures.reason(REASON_SECONDS) or f"the workers on {host} lost their connection to those on other hosts"
    return WorkersFailedError(reason, max((failure.exitcode for failure in causes.values()), default=1))


def _end(exit_code: int) -> str:
    if exit_code > 0:
        return f"ended with exit code {exit_code} without giving a reason; look at the end of that host's log"
    name = signal.Signals(-exit_code).name
    hint = ", as the kernel does when memory runs out" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"


def _meet(arguments: TrainingConfig, processes: int) -> TCPStore:
    """Wait until all hosts are there, and return the store that the first of them keeps.

    torchrun would wait, too, but not say for whom.
    """
    hosts, own = arguments.hosts, arguments.current_host
    first = own == hosts[0]
    deadline = time.monotonic() + arguments.join_timeout
    address, port, seconds = arguments.master_addr, arguments.master_port, arguments.join_timeout
    try:
        if first:
            store = keep_store(address, port if len(hosts) > 1 else 0, seconds=seconds)  # torchrun uses the same one
        else:
            limit = datetime.timedelta(seconds=seconds)
            store = TCPStore(address, port, is_master=False, timeout=limit, wait_for_workers=False)
    except (RuntimeError, OSError) as error:
        place = f"{arguments.master_addr}:{arguments.master_port}"
        if first:
            raise DistributedError(f"{own} cannot listen at {place}: {error}; use another --master-port") from error
        raise DistributedError(
            f"{hosts[0]} does not answer at {place}, where all hosts were to meet within "
            f"{arguments.join_timeout} seconds: {error}"
        ) from error
    try:
        store.set(_present(own), str(processes))
        if first:
            store.set(_VERDICT, _verdict(store, arguments, deadline))
        verdict = _wait(store, _VERDICT, deadline + REASON_SECONDS)
        if verdict != _COMPLETE:
            _leave(store, arguments, _VERDICT)
    except RuntimeError as error:
        raise DistributedError(f"{hosts[0]}, where all hosts meet, has gone: {error}") from error
    if verdict != _COMPLETE:
        raise DistributedError(verdict or f"{hosts[0]} did not say in {arguments.join_timeout} seconds who is there")
    return store


def _verdict(store: TCPStore, arguments: TrainingConfig, deadline: float) -> str:
    processes = {host: _wait(store, _present(host), deadline) for host in arguments.hosts}
    if absent := [host for host, number in processes.items() if number is None]:
        return (
            f"{', '.join(absent)} did not come to {arguments.master_addr}:{store.port} within "
            f"{arguments.join_timeout} seconds; {len(absent)} of {len(processes)} hosts are missing. "
            "--join-timeout sets how long they wait for each other"
        )
    if len(set(processes.values())) > 1:
        each = ", ".join(f"{host}: {number}" for host, number in processes.items())
        return f"the hosts must run equally many processes, and do not ({each}); set --processes-per-host"
    return _COMPLETE


def _leave(store: TCPStore, arguments: TrainingConfig, heard: str) -> None:
    """Say that this host has heard why all must end; the first one, with whose process the store goes, leaves last."""
    hosts, own = arguments.hosts, arguments.current_host
    store.set(f"{heard}/{own}", "")
    until = time.monotonic() + REASON_SECONDS
    for host in hosts if own == hosts[0] else ():
        if store.check([_present(host)]):
            _wait(store, f"{heard}/{host}", until)


def _wait(store: TCPStore, key: str, deadline: float) -> str | None:
    """Return a value once it is there, or None; in short steps, because a signal is only noticed between them."""
    while not store.check([key]):
        if time.monotonic() > deadline:
            return None
        time.sleep(POLL_SECONDS)
    return store.get(key).decode()


def _present(host: str) -> str:
    return f"present/{host}"


def _network_interface(arguments: TrainingConfig) -> str:
    """Return the interface over which the workers talk; a host's own name may not lead back to itself."""
    one_machine = is_loopback(arguments.master_addr)
    if not one_machine and (given := os.environ.get("SM_NETWORK_INTERFACE_NAME")):
        return given
    names = [name for _, name in socket.if_nameindex()]
    loopback = [name for name in names if name.startswith("lo")]
    return (loopback if one_machine else [name for name in names if name not in loopback] or names)[0]
