"""How functions of MiniStack are replaced by ours, which call them: `inner` is always what is replaced."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable
from typing import Any

from ministack import app

#: Of the processor: an expression that is meant well takes a thousandth of it.
_SECONDS = 0.25


def around(module: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Have `replacement` called for a function of a module, with that function as its first argument."""
    setattr(module, name, functools.partial(replacement, getattr(module, name)))


def around_service(service: str, replacement: Callable[..., Any]) -> None:
    """Have `replacement` called for the handler of a service, by MiniStack's name."""
    app.SERVICE_HANDLERS[service] = functools.partial(replacement, app.SERVICE_HANDLERS[service])


def within_time(inner: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call what compiles or matches users' texts in the event loop, for a moment only: both look for signals."""
    if threading.current_thread() is not threading.main_thread():
        return inner(*arguments, **options)
    signal.signal(signal.SIGPROF, _end)
    # Again and again: what Python raises in a finalizer it drops.
    signal.setitimer(signal.ITIMER_PROF, _SECONDS, _SECONDS)
    try:
        try:
            return inner(*arguments, **options)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    finally:  # the signal may have come just before
        signal.setitimer(signal.ITIMER_PROF, 0)


def _end(*_: Any) -> None:
    raise ValueError(f"An expression takes longer than {_SECONDS} seconds.")
