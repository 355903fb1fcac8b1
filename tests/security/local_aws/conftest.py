"""One local AWS for all attacks that a running one is needed for: each uses names of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sagemaker_local import LocalSageMaker, local_aws


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSageMaker]:
    with local_aws(tmp_path_factory.mktemp("state")) as made:
        yield made
