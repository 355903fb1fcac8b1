"""The fixtures `local_aws` and `local_aws_server`, for the tests of every project that this is installed beside.

pytest imports this module at each start, so it imports nothing more until a test asks for a fixture.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path


class LocalAws:
    """A local AWS that answers.

    Attributes
    ----------
    endpoint_url
        Where every service answers.
    state_dir
        The folder with its state and its log.
    environment
        The variables by which AWS tools and SDKs find it.
    """

    def __init__(self, state_dir: Path, environment: dict[str, str]) -> None:
        self.state_dir = state_dir
        self.environment = environment
        self.endpoint_url = environment["AWS_ENDPOINT_URL"]

    def session(self, region: str | None = None) -> Any:
        """Make a boto3 session of its administrator, whose clients call it whatever the environment says."""
        import boto3

        key, secret = (self.environment[f"AWS_{name}"] for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
        session = boto3.Session(key, secret, region_name=region or self.environment["AWS_REGION"])
        for kind in ("client", "resource"):
            setattr(session, kind, functools.partial(getattr(session, kind), endpoint_url=self.endpoint_url))
        return session


@pytest.fixture(scope="session")
def local_aws_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """A local AWS on a free port, with an empty account; stopped after the last test. It changes no variable."""
    import emulator
    from emulator.platform.settings import free_port

    state_dir = tmp_path_factory.mktemp("local-aws")
    emulator.up(state_dir, free_port())
    try:
        yield LocalAws(state_dir, emulator.environment(state_dir))
    finally:
        emulator.down(state_dir)


@pytest.fixture
def local_aws(local_aws_server: LocalAws, monkeypatch: pytest.MonkeyPatch) -> LocalAws:
    """The local AWS of the session, and for this test no other: no variable, profile or file names a real account."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    nowhere = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
    for name, value in {**local_aws_server.environment, **nowhere}.items():
        monkeypatch.setenv(name, value)
    return local_aws_server
