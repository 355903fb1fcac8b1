"""What several modules start from: a fresh clone of the project, and a local AWS that the CDK can deploy to."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from clone import Project, fresh_clone
from local_aws_harness import CdkApp, LocalAws, free_port, local_aws


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
