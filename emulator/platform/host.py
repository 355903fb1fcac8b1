"""What the services of the local AWS may ask of the platform they run on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emulator.platform.clock import Clock
from emulator.platform.conditions import Conditions
from emulator.platform.monitoring import Monitoring
from emulator.platform.processes import ProcessRegistry
from emulator.quotas.service import Quotas

#: (role ARN, session name) -> the AWS_* variables of a session of that role
RoleSessions = Callable[[str, str], dict[str, str]]
#: (AWS_* variables of a session, region, bucket, pairs of key and file) -> the metadata of each object, once copied
CopyObjects = Callable[[Mapping[str, str], str, str, Sequence[tuple[str, Path]]], Iterator[dict[str, str]]]


@dataclass(frozen=True)
class Host:
    """The platform as a service sees it."""

    service: str  # as in ``<service>.amazonaws.com``
    endpoint_url: str  # where every AWS API of this local AWS answers, ``http://127.0.0.1:<port>``
    state_dir: Path  # outlives the server
    temporary: Path  # is emptied when the server starts and ends
    account: str
    processes: ProcessRegistry  # the only way in which a service may start a program
    role_credentials: RoleSessions  # for what the service runs
    copy_objects: CopyObjects  # from S3, with all the checks of a request but without HTTP
    monitoring: Monitoring
    conditions: Conditions = field(default_factory=Conditions)
    quotas: Quotas = field(default_factory=Quotas)
    clock: Clock = field(default_factory=Clock)

    @property
    def folder(self) -> Path:
        """Where the service keeps files that outlive the server."""
        return self.state_dir / self.service

    def temporary_folder(self) -> Path:
        """Make a new, empty folder for one program; the caller removes it."""
        return Path(tempfile.mkdtemp(dir=self.temporary, prefix=""))
