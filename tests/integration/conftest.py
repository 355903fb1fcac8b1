"""What several files start from: a local AWS of their own, and a fresh clone of the project."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from clone import Project, fresh_clone
from sagemaker_local import ACTIONS, LocalSageMaker, local_aws

from emulator.platform.settings import free_port


@pytest.fixture(scope="module")
def aws(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSageMaker]:
    """A local AWS for the tests of one file, under the CONDITIONS that the file names, if it names any."""
    with local_aws(tmp_path_factory.mktemp("state"), **getattr(request.module, "CONDITIONS", {})) as made:
        yield made


@pytest.fixture(scope="module")
def role(aws: LocalSageMaker) -> str:
    """A role with what models and jobs need."""
    return aws.job_role(*ACTIONS)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """What `git clone` and `make setup` leave, with the working tree's changes; its local AWS is stopped at the end."""
    root = tmp_path_factory.mktemp("clone")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "KENNEL_"))}
    clean |= fresh_clone(root)
    project = Project(root, free_port(), clean)
    yield project
    project.kennel("local", "down")
