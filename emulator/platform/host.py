"""What the services of the local AWS may ask of the platform they run on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emulator.platform.processes import ProcessRegistry
from emulator.quotas.service import Quotas

#: Of `SpotInterruption.wait_seconds`, where nobody says otherwise.
DEFAULT_SPOT_WAIT_SECONDS = 10.0
#: SageMaker kills the containers of a training job so long after it was to stop.
STOP_GRACE_SECONDS = 120.0

#: (role ARN, session name) -> the AWS_* variables of a session of that role
RoleSessions = Callable[[str, str], dict[str, str]]
#: (AWS_* variables of a session, region, bucket, pairs of key and file) -> the metadata of each object, once copied
CopyObjects = Callable[[Mapping[str, str], str, str, Sequence[tuple[str, Path]]], Iterator[dict[str, str]]]


@dataclass(frozen=True)
class SpotInterruption:
    """What happens to managed spot training: the instances of every job are taken back once.

    Attributes
    ----------
    after_seconds
        How long its instances have worked by then, the download of the inputs included.
    wait_seconds
        How long it takes until there are others.
    """

    after_seconds: float
    wait_seconds: float = DEFAULT_SPOT_WAIT_SECONDS


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
        A folder that outlives the server; each service keeps its files in a sub-folder of its own, `folder`.
    temporary
        A folder that is emptied when the server starts and ends.
    account
        The twelve digits of the account.
    processes
        The only way in which a service may start a program (see `ProcessRegistry`).
    role_sessions
        Opens role sessions; services call `role_credentials`.
    copy_objects
        Copies objects of S3 into files, with all the checks of a request but without HTTP.
    spot_interruption
        None: spot capacity is never taken back.
    quotas
        What the account may have.
    stop_grace_seconds
        How long a training job that is stopped may go on until its containers are killed.
    """

    service: str
    endpoint_url: str
    state_dir: Path
    temporary: Path
    account: str
    processes: ProcessRegistry
    role_sessions: RoleSessions
    copy_objects: CopyObjects
    spot_interruption: SpotInterruption | None = None
    quotas: Quotas = field(default_factory=Quotas)
    stop_grace_seconds: float = STOP_GRACE_SECONDS

    @property
    def folder(self) -> Path:
        """Where the service keeps files that outlive the server."""
        return self.state_dir / self.service

    def temporary_folder(self) -> Path:
        """A new, empty folder for one program; whoever starts the program removes it."""
        return Path(tempfile.mkdtemp(dir=self.temporary, prefix=""))

    def role_credentials(self, role_arn: str, session_name: str) -> dict[str, str]:
        """Open a session of a role as the service does for what it runs: a container, an instance.

        Returns
        -------
        ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and ``AWS_SESSION_TOKEN``. The session does not expire
        while the server runs (a container on AWS renews its own), and dies with the server.

        Raises
        ------
        emulator.platform.awsapi.ServiceError
            ValidationException: the role does not exist or does not trust the service.
        """
        return self.role_sessions(role_arn, session_name)
