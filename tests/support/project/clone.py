"""A copy of the repository to run commands in, so that nothing of the developer's is overwritten."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def fresh_clone(root: Path) -> dict[str, str]:
    """Make what `git clone` and `make setup` leave, with the working tree's changes.

    Returns the variables with which programs use its files and this environment's packages.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listing.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    (root / "node_modules").symlink_to(ROOT / "node_modules")
    # The packages of the clone come before those that the virtual environment links to.
    return {"PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(root)}


@dataclass
class Project:
    """A copy of the repository, and a shell in it whose AWS is the local one."""

    root: Path
    port: int
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str, ends_with: int = 0) -> str:
        """Run a command as a person in that shell would; stdout and stderr as one text."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1500,
            check=False,
        )
        assert done.returncode == ends_with, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def kennel(self, *arguments: str, ends_with: int = 0) -> str:
        return self.run("kennel", *arguments, ends_with=ends_with)

    def start_local_aws(self, *options: str) -> None:
        self.kennel("local", "up", "--port", str(self.port), *options)
        script = 'eval "$(kennel local env)" && env -0'
        variables = self.run("bash", "-c", script).rstrip("\0").split("\0")
        self.environment = dict(variable.split("=", 1) for variable in variables)
