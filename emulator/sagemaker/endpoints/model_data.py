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
    bucket, key = artifacts.parse_s3_url(url)
    s3 = role.client("s3")
    partial = root.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)
    content = partial / "content"
    try:
        if source.get("S3DataType") == "S3Prefix":
            keys = artifacts.list_keys(s3, bucket, key)
            if not keys:
                raise ArtifactError(f"there are no objects under {url}.")
            artifacts.fetch_all(s3, bucket, [(found, artifacts.relative_key(found, key)) for found in keys], content)
            for path in filter(Path.is_file, (content / name for name in _PROGRAM_PATHS)):
                path.chmod(0o755)  # an object carries no permissions, as the file in an archive does
        else:
            name = key.rpartition("/")[2] or "model.tar.gz"
            artifacts.fetch(s3, bucket, key, partial / name)
            if source.get("CompressionType") == "None":
                content.mkdir()
                (partial / name).replace(content / name)
            else:
                artifacts.unpack(partial / name, content)
        content.replace(root)
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
    for name in _PROGRAM_PATHS:
        path = root / name
        if path.is_file():
            if not path.stat().st_mode & 0o100:
                raise ArtifactError(f"{name} in the artifact is not executable (chmod +x it before packing).")
            return path
    raise ArtifactError(
        f"the artifact has no program: the local AWS runs no images, it runs {' or '.join(_PROGRAM_PATHS)} of the "
        "artifact instead."
    )
