"""What the services of the local AWS may ask of the platform they run on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emulator.platform.conditions import Conditions, SpotInterruption
from emulator.platform.processes import ProcessRegistry
from emulator.quotas.service import Quotas

#: (role ARN, session name) -> the AWS_* variables of a session of that role
RoleSessions = Callable[[str, str], dict[str, str]]
#: (AWS_* variables of a session, region, bucket, pairs of key and file) -> the metadata of each object, once copied
CopyObjects = Callable[[Mapping[str, str], str, str, Sequence[tuple[str, Path]]], Iterator[dict[str, str]]]


@dataclass(frozen=True)
class Host:
    """The platform as a service sees it.

    Attributes
    ----------
    service
        The service, as in ``<service>.amazonaws.com``.
    endpoint_url
        Where every AWS API of this local AWS answers, ``http://127.0.0.1:<port>``.
    state_dir
        A folder that outlives the server.
    temporary
        A folder that is emptied when the server starts and ends.
    account
        The twelve digits of the account.
    processes
        The only way in which a service may start a program (see `ProcessRegistry`).
    role_credentials
        Opens a session of a role for what the service runs (see `identity.open_session`).
    copy_objects
        Copies objects of S3 into files, with all the checks of a request but without HTTP.
    conditions
        What the local AWS was told at its start.
    quotas
        What the account may have.
    """

    service: str
    endpoint_url: str
    state_dir: Path
    temporary: Path
    account: str
    processes: ProcessRegistry
    role_credentials: RoleSessions
    copy_objects: CopyObjects
    conditions: Conditions = field(default_factory=Conditions)
    quotas: Quotas = field(default_factory=Quotas)

    @property
    def folder(self) -> Path:
        """Where the service keeps files that outlive the server."""
        return self.state_dir / self.service

    @property
    def spot_interruption(self) -> SpotInterruption | None:
        return self.conditions.spot_interruption

    @property
    def stop_grace_seconds(self) -> float:
        return self.conditions.stop_grace_seconds

    def temporary_folder(self) -> Path:
        """Make a new, empty folder for one program; the caller removes it."""
        return Path(tempfile.mkdtemp(dir=self.temporary, prefix=""))
