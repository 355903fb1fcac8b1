"""The version of MiniStack that this package was written for, and the environment that it reads at its import."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from emulator.platform import settings
from emulator.platform.running.layout import Credentials

#: MiniStack gives no promise about what is used of it, so that another version may fail in strange ways.
PINNED_VERSION = "1.5.33"
_RSA = "cryptography.hazmat.primitives.asymmetric.rsa"


class ContractError(RuntimeError):
    """MiniStack is not what this package was written for; the message says in which way."""


def check_version() -> None:
    """Compare the installed MiniStack with the pinned one, without importing it; raise a `ContractError`."""
    try:
        installed = version("ministack")
    except PackageNotFoundError:
        raise ContractError(f"MiniStack is not installed: the local AWS needs ministack=={PINNED_VERSION}.") from None
    if installed != PINNED_VERSION:
        raise ContractError(
            f"MiniStack {installed} is installed, but the local AWS was written for {PINNED_VERSION}: install "
            f"ministack=={PINNED_VERSION}, or adapt emulator/ministack to {installed} and change PINNED_VERSION."
        )


def variables(state_dir: Path, port: int, administrator: Credentials) -> dict[str, str]:
    """Make MiniStack's own variables: IAM enforced, loopback only, nothing listening but the one port."""
    return {
        "AUTH": "true",
        "AWS_ACCESS_KEY_ID": administrator.access_key_id,
        "AWS_SECRET_ACCESS_KEY": administrator.secret_access_key,
        "BIND_HOST": settings.BIND_HOST,
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "LAMBDA_EXECUTOR": "local",
        "LOG_LEVEL": "WARNING",
        "MINISTACK_ACCOUNT_ID": settings.ACCOUNT,
        "MINISTACK_HOST": settings.BIND_HOST,
        "MINISTACK_REGION": settings.REGION,
        # Saved at shutdown only, so `durability` takes its place; the bodies of S3 objects are written at once.
        "PERSIST_STATE": "0",
        "S3_DATA_DIR": str(state_dir / "s3"),
        "S3_PERSIST": "1",
        "SFTP_ENABLED": "0",
        "STATE_DIR": str(state_dir / "ministack"),
        "DOCKER_HOST": f"unix://{state_dir}/no-docker.sock",
    }


def apply(environment: Mapping[str, str]) -> None:
    """Make this the environment of the process, before MiniStack is imported."""
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # TMPDIR has changed
    # A function runs as a process here or not at all. Without the package MiniStack does not look for a daemon, and
    # starts half a second sooner.
    sys.modules["docker"] = None  # type: ignore[assignment]
    # Cognito, which nobody can call here, makes itself a key of RSA, by chance in a tenth of a second or in one.
    if _RSA not in sys.modules:
        sys.modules[_RSA] = None  # type: ignore[assignment]
        importlib.import_module("ministack.services.cognito")
        del sys.modules[_RSA]
