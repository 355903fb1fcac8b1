"""How functions of MiniStack are replaced by ours, which call them: `inner` is always what is replaced."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ministack import app


def around(module: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Have `replacement` called for a function of a module, with that function as its first argument."""
    setattr(module, name, functools.partial(replacement, getattr(module, name)))


def around_service(service: str, replacement: Callable[..., Any]) -> None:
    """Have `replacement` called for the handler of a service, by MiniStack's name."""
    app.SERVICE_HANDLERS[service] = functools.partial(replacement, app.SERVICE_HANDLERS[service])
