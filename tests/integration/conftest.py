"""What several modules start from: a fresh clone of the project, and a local AWS that the CDK can deploy to."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from clone import fresh_clone
from local_aws_harness import CdkApp, LocalAws, free_port, local_aws


@dataclass
class Project:
    """A copy of the repository, and a shell in it whose AWS is the local one."""

    root: Path
    port: int
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def state_dir(self) -> Path:
        """Where its local AWS keeps its state."""
        return self.root / ".kennel" / "local"

    def run(
        self, *command: str, check: bool = True, env: dict[str, str] | None = None, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a person in that shell would; stdout and stderr come back as one text."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment if env is None else env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
        return done

    def kennel(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `kennel` there."""
        return self.run("kennel", *arguments, check=check)

    def start_local_aws(self) -> None:
        """Start it, and point the shell at it."""
        self.kennel("local", "up", "--port", str(self.port))
        script = 'eval "$(kennel local env)" && env -0'
        variables = self.run("bash", "-c", script).stdout.rstrip("\0").split("\0")
        self.environment = dict(variable.split("=", 1) for variable in variables)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """What `git clone` and `make setup` leave, with the working tree's changes; its local AWS is stopped at the end."""
    root = tmp_path_factory.mktemp("clone")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "KENNEL_"))}
    clean |= fresh_clone(root)
    project = Project(root, free_port(), clean)
    yield project
    project.kennel("local", "down")


@pytest.fixture(scope="session")
def bootstrapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """A local AWS that the CDK can deploy to."""
    with local_aws(tmp_path_factory.mktemp("state")) as aws:
        CdkApp(aws, tmp_path_factory.mktemp("nothing")).cdk("bootstrap", "aws://000000000000/us-east-1")
        yield aws
