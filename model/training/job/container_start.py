"""The first process of a training job's container: prepares what SageMaker's toolkit would, and becomes `train.py`.

The toolkit runs a program below a shell that keeps SIGTERM from it. This gives its place to `train.py`, which thus gets
the signals. Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

#: /opt/ml: the program's folder lies in it.
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Install what is missing and become the training program."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    code = ROOT / "code"
    environment = {**os.environ, **variables(_read("resourceconfig"))}
    options = ["--quiet", "--disable-pip-version-check", "-r", "requirements.txt"]
    install = [sys.executable, "-m", "pip", "install", *options]
    if subprocess.run(install, cwd=code, check=False).returncode:
        message = "The packages in requirements.txt could not be installed; the log says why."
        (ROOT / "output" / "failure").write_text(message, encoding="utf-8")
        sys.exit(message)
    os.chdir(code)
    os.execve(sys.executable, [sys.executable, "train.py", *arguments(_read("hyperparameters"))], environment)  # noqa: S606


def variables(resources: dict[str, Any]) -> dict[str, str]:
    """Return the toolkit's variables that the training program reads."""
    channels = [path for path in (ROOT / "input" / "data").iterdir() if path.is_dir()]
    instance_type = resources.get("current_instance_type")
    return {
        "SM_MODEL_DIR": str(ROOT / "model"),
        "SM_OUTPUT_DIR": str(ROOT / "output"),
        "SM_OUTPUT_DATA_DIR": str(ROOT / "output" / "data"),
        "SM_HOSTS": json.dumps(resources["hosts"]),
        "SM_CURRENT_HOST": resources["current_host"],
        **({"SM_CURRENT_INSTANCE_TYPE": instance_type} if instance_type else {}),
        "SM_NETWORK_INTERFACE_NAME": resources["network_interface_name"],
        **{f"SM_CHANNEL_{path.name.upper()}": str(path) for path in channels},
    }


def arguments(hyperparameters: dict[str, str]) -> list[str]:
    """Return the hyperparameters, which are JSON or bare text, as `--name=value`: a value may begin with a minus."""
    return [f"--{name}={_decode(value)}" for name, value in sorted(hyperparameters.items())]


def _decode(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "input" / "config" / f"{name}.json").read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    main()
