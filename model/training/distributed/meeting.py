"""The store in which the hosts and workers of a training meet, reachable only for those that have to reach it."""

from __future__ import annotations

import contextlib
import datetime
import errno
import ipaddress
import socket

from torch.distributed import TCPStore


def keep_store(address: str, port: int, *, seconds: float) -> TCPStore:
    """Open a store for the others to connect to; several calls in a process for the same port share it.

    torch would listen on every interface of the machine, and a store asks nobody who they are. So this listens on the
    address under which the others know this host, where it has only that.

    Parameters
    ----------
    address : str
        Name or address of this host, as the others have it.
    port : int
        0: any that is free.
    seconds : float
        How long calls of the store wait.

    Raises
    ------
    RuntimeError, OSError
        When the port is taken.
    """
    listener = _listen(address, port)
    timeout = datetime.timedelta(seconds=seconds)
    if listener is None:
        return TCPStore(address, port, is_master=True, timeout=timeout, wait_for_workers=False, multi_tenant=True)
    return TCPStore(
        address,
        listener.getsockname()[1],
        is_master=True,
        timeout=timeout,
        wait_for_workers=False,
        multi_tenant=True,
        master_listen_fd=listener.detach(),  # which the store closes
    )


def _listen(address: str, port: int) -> socket.socket | None:
    """Listen on this host's address; None where it has to be every interface."""
    try:
        family, _, _, _, (found, *_) = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0]
    except socket.gaierror:  # not known yet: hosts that come up together learn their names late
        return None
    if ipaddress.ip_address(found).is_loopback and not is_loopback(address):
        return None  # on many machines the own name leads back to the machine, where no other host can reach it
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((found, port))
        listener.listen(socket.SOMAXCONN)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:  # the address is of something in front of this host
            return None
        raise
    return listener


def is_loopback(address: str) -> bool:
    """Return whether an address or name is one that only this machine itself has."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return address == "localhost"
