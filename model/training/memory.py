"""How the C library deals with memory that a training frees."""

from __future__ import annotations

import ctypes
import logging

log = logging.getLogger(__name__)

# Parameters of glibc's mallopt(3), from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Have this process keep what it frees, for the next time.

    A training step on a CPU allocates and frees the same hundreds of megabytes again and again. By default glibc gives
    every large block back to the system, which must then clear it, page by page, when it is asked for again. Measured
    for a ResNet-18 at 224 pixels, batches of 32, on two vCPUs: steps of 1.2 to 1.35 times the speed, and a fifth more
    memory at the peak. Does nothing where the C library is another one.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return
    for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1)):
        if not mallopt(parameter, value):
            log.warning("the C library refuses mallopt(%d, %d): training may be slower", parameter, value)
