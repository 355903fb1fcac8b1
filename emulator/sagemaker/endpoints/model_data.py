"""A model's data, fetched from S3, and the program in it that stands for the container's ``serve`` command."""

from __future__ import annotations

import shutil
from pathlib import Path

from emulator.platform.awsapi import Payload
from emulator.sagemaker import artifacts
from emulator.sagemaker.artifacts import ArtifactError
from emulator.sagemaker.roles import Role

_PROGRAM_PATHS = ("code/serve", "serve")


def fetch(role: Role, container: Payload, root: Path) -> None:
    """Fetch and unpack into `root`, which exists only when it is complete.

    Raises
    ------
    ArtifactError
    """
    source = container.get("ModelDataSource", {}).get("S3DataSource", {})
    url = container.get("ModelDataUrl") or source.get("S3Uri")
    if url is None:
        raise ArtifactError("it has neither a ModelDataUrl nor a ModelDataSource.")
    if source and (source["S3DataType"], source["CompressionType"]) != ("S3Object", "Gzip"):
        raise ArtifactError("the local AWS reads one .tar.gz: S3DataType S3Object, CompressionType Gzip.")
    bucket, key = artifacts.parse_s3_url(url)
    partial = root.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)
    archive = partial / (key.rpartition("/")[2] or "model.tar.gz")
    try:
        artifacts.fetch(role.client("s3"), bucket, key, archive)
        artifacts.unpack(archive, partial / "content")
        (partial / "content").replace(root)
    except ArtifactError as error:
        raise ArtifactError(
            f"Could not access model data at {url}. Please ensure that the role {role.arn} may read the "
            f"object, and that it is what the model expects: {error}"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def find_program(root: Path) -> Path:
    """The program of a model.

    Raises
    ------
    ArtifactError
        There is none that can be executed.
    """
    for path in (root / name for name in _PROGRAM_PATHS):
        if path.is_file():
            if not path.stat().st_mode & 0o100:
                name = path.relative_to(root)
                raise ArtifactError(f"{name} in the artifact is not executable (chmod +x it before packing).")
            return path
    raise ArtifactError(
        f"the artifact has no program: the local AWS runs no images, it runs {' or '.join(_PROGRAM_PATHS)} of the "
        "artifact instead."
    )
