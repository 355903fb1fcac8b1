"""What containers are given: objects fetched from S3, archives unpacked without trusting them."""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from emulator.platform.errors import refuse

try:
    from backports import tarfile  # installed before Python 3.11.4 only, whose own tarfile cannot refuse unsafe members
except ModuleNotFoundError:
    import tarfile

#: Objects that S3 is asked for at a time. The server does nothing else meanwhile, for some 10 ms.
_BATCH = 32
#: AWS's limit for a model is about that of its volume; this one keeps a tar bomb from filling a laptop's disk.
_MAX_UNPACKED_BYTES = 20 * 2**30
MAX_UNPACKED_FILES = 200_000
#: Folders in each other: Python's own functions that remove a tree end in a RecursionError above a thousand.
_MAX_DEPTH = 100
#: What may stand before a member, or behind the last one; tarfile reads all of it into memory.
_MAX_HEADER_BYTES = 256 * 1024


class ArtifactError(Exception):
    """An archive or object that cannot be fetched or used; the message is for a person."""


def parse_s3_url(url: str) -> tuple[str, str]:
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ArtifactError(f'"{url}" is not a location in S3 that the local AWS reads, such as s3://bucket/key.')
    return bucket, key


def check_location(url: str) -> None:
    try:
        parse_s3_url(url)
    except ArtifactError as error:
        refuse(True, str(error))


def reason(error: Exception) -> str:
    """Say what S3 said, without the preamble of botocore."""
    if isinstance(error, ClientError):
        details = error.response.get("Error", {})
        return f"{details.get('Code', 'Unknown')}: {details.get('Message', '')}".rstrip(": ")
    return str(error)


def read(s3: Any, bucket: str, key: str, max_bytes: int | None = None) -> bytes:
    try:
        content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read(max_bytes)
    except (ClientError, BotoCoreError) as error:
        raise ArtifactError(f"s3://{bucket}/{key}: {reason(error)}") from None
    return content


def encryption(output: dict[str, Any]) -> dict[str, str]:
    """Say how S3 encrypts what a job writes: with the job's key, or with AWS's own for S3, whatever the bucket's is."""
    key = output.get("KmsKeyId")
    return {"ServerSideEncryption": "aws:kms", **({"SSEKMSKeyId": key} if key else {})}


def list_keys(s3: Any, bucket: str, prefix: str) -> list[str]:
    """List the keys that begin so, sorted, without the markers of empty folders."""
    try:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", []) if not item["Key"].endswith("/")]
    except (ClientError, BotoCoreError) as error:
        raise ArtifactError(f"s3://{bucket}/{prefix}: {reason(error)}") from None
    return sorted(keys)


def read_manifest(s3: Any, bucket: str, key: str) -> tuple[str, list[tuple[str, str]]]:
    """Read ``[{"prefix": "s3://bucket/folder/"}, "name", …]``: the bucket, and of each object its key and its name."""
    try:
        match json.loads(read(s3, bucket, key)):
            case [{"prefix": str(folder)}, *names] if all(isinstance(name, str) and name for name in names):
                listed, prefix = parse_s3_url(folder)
                return listed, [(prefix + name, name) for name in names]
    except (ValueError, RecursionError):
        pass  # not JSON
    raise ArtifactError(f's3://{bucket}/{key} is no manifest: [{{"prefix": "s3://bucket/folder/"}}, "name", …].')


def relative_key(key: str, prefix: str) -> str:
    """Say where an object lies below the folder that a prefix stands for."""
    folder = prefix if prefix.endswith("/") or key.startswith(f"{prefix}/") else prefix.rpartition("/")[0]
    return key[len(folder) :].lstrip("/") if folder else key


def fetch_all(
    s3: Any,
    bucket: str,
    targets: Sequence[tuple[str, str]],
    directory: Path,
    stopped: Callable[[], bool] = lambda: False,
) -> list[dict[str, str]]:
    """Copy objects, pairs of key and path relative to the folder, until `stopped` says yes; give their metadata.

    ArtifactError says what S3 answered for the first object that cannot be fetched, and refuses keys that would leave
    the directory.
    """
    for key, name in targets:
        path = PurePosixPath(name)
        if not name or "\0" in name or ".." in path.parts or path.is_absolute():
            raise ArtifactError(f"s3://{bucket}/{key}: the key does not name a file below its prefix.")

    def fetch_some(start: int) -> list[dict[str, str]]:
        fetched: list[dict[str, str]] = []
        if stopped():
            return fetched
        paths = [(key, directory / name) for key, name in targets[start : start + _BATCH]]
        try:
            for folder in {path.parent for _, path in paths}:
                folder.mkdir(parents=True, exist_ok=True)
            for metadata in s3.copy_objects(bucket, paths):
                fetched.append(metadata)
        except (ClientError, OSError) as error:
            raise ArtifactError(f"s3://{bucket}/{paths[len(fetched)][0]}: {reason(error)}") from None
        return fetched

    # Two: some are copied while the next are asked for.
    with ThreadPoolExecutor(2, thread_name_prefix="fetch") as pool:
        return [metadata for some in pool.map(fetch_some, range(0, len(targets), _BATCH)) for metadata in some]


class _Stream(gzip.GzipFile):
    """Decompresses no more at a time than is due: tarfile believes every size that a header claims."""

    due = _MAX_HEADER_BYTES

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= self.due:
            raise tarfile.ReadError("a header is too long, or there is too much after the last file")
        data = super().read(size)
        self.due -= len(data)
        return data


def unpack(archive: Path, directory: Path, *, max_files: int = MAX_UNPACKED_FILES) -> None:
    """Unpack a .tar.gz from an untrusted source.

    Members may not leave the directory, be links, devices or sparse, or exceed the limits together. AWS would unpack
    links inside of the directory; but whether a link leads out of it cannot be told for certain.
    """
    directory.mkdir(parents=True, exist_ok=True)
    limit = min(_MAX_UNPACKED_BYTES, shutil.disk_usage(directory).free)
    size = 0
    try:
        with _Stream(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for number, member in enumerate(tar, start=1):
                size += member.size
                if member.size < 0 or size > limit or number > max_files:
                    raise ArtifactError(
                        f"{archive.name} is too large: at most {limit:,} bytes in {max_files:,} files can be unpacked."
                    )
                if not (member.isfile() or member.isdir()) or member.issparse():
                    raise ArtifactError(
                        f"{archive.name} is refused as unsafe: {member.name!r} is a link, a sparse or a special file. "
                        "Pack files and folders only (tar --dereference --hard-dereference)."
                    )
                if len(PurePosixPath(member.name).parts) > _MAX_DEPTH:
                    raise ArtifactError(f"{archive.name} is refused: more than {_MAX_DEPTH} folders in each other.")
                stream.due = member.size
                tar.extract(member, directory, filter="data")
                stream.due = _MAX_HEADER_BYTES
            # tarfile stops at the mark of the end, before the checksum of the compression has been compared.
            while stream.read(64 * 1024):
                pass
    except tarfile.FilterError as error:
        raise ArtifactError(f"{archive.name} is refused as unsafe: {error}.") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError, RecursionError) as error:
        raise ArtifactError(f"{archive.name} cannot be unpacked; is it a .tar.gz? ({error})") from None


def pack(directories: Iterable[Path], archive: Path) -> bool:
    """Pack what several folders hold into one ``.tar.gz``, of equal names the first; False where there is nothing."""
    files: dict[str, Path] = {}
    for directory in directories:
        for path in directory.rglob("*"):
            files.setdefault(path.relative_to(directory).as_posix(), path)
    # Weights hardly compress: the lowest level costs a few percent of size and saves most of the time.
    if files:
        with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
            for name, path in sorted(files.items()):
                tar.add(path, name, recursive=False)
    return bool(files)
