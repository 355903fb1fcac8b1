"""Writes the measured rate of an instance into a stage's settings file; every other byte stays."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from cli.errors import NotReadyError

_SCALING = re.compile(
    r"""(?P<before>^\[serving\.scaling\][^\n]*\n(?:(?!\s*\[)[^\n]*\n)*?\s*max_rps_per_instance\s*=\s*)[0-9_.eE+-]+""",
    re.MULTILINE,
)


def write_rate(file: Path, requests_per_second: float) -> None:
    """Set max_rps_per_instance under [serving.scaling]; a NotReadyError where the file has it in another way."""
    text = file.read_text(encoding="utf-8")
    rate = float(f"{requests_per_second:.3g}")
    changed = _SCALING.sub(lambda found: f"{found['before']}{rate:g}", text, count=1)
    wanted, table = tomllib.loads(text), tomllib.loads(changed)
    wanted["serving"]["scaling"]["max_rps_per_instance"] = rate
    if table != wanted:
        raise NotReadyError(f"{file.name} could not be changed.", f"Set max_rps_per_instance = {rate:g} by hand.")
    file.write_text(changed, encoding="utf-8")
