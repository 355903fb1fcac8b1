"""An AWS on the loopback address of this machine. What others may use of it is named in ``__all__``."""

import importlib
from typing import Any

__all__ = ["Conditions", "LocalAwsError", "Status", "down", "environment", "log_path", "status", "up"]


def __getattr__(name: str) -> Any:
    """Import what is used when it is used: every pytest of an installation imports this package."""
    if name not in __all__:
        raise AttributeError(f"The module {__name__} has no {name}: it has {', '.join(__all__)}.")
    place = "emulator.platform.conditions" if name == "Conditions" else "emulator.platform.running.lifecycle"
    return getattr(importlib.import_module(place), name)
