"""Make what lies below a prefix of the data bucket equal to some files, sending only what differs.

A manifest in the bucket says for every object which content we put there (SHA-256) and which ETag S3 gave it. An object
is left as it is when the file has that content and the listing still shows that ETag: so an object that anything else
has written or removed is sent again.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import botocore.exceptions
from botocore.config import Config

from cli.aws import Stage, delete_objects
from cli.console import progress_bar
from cli.data.dataset import data_set_errors
from cli.errors import NotReadyError, UsageError, aws_errors
from cli.parallel import map_unordered
from infra.bucket_layout import DATA_SET_MANIFESTS, DATA_SETS
from model.training.data.image_folder import ImageFolder
from model.training.data.listing import UNFIT, reading

_UPLOADS = 16  # at the same time: S3 answers a small put in tens of milliseconds
# How long a thread that has its response waits for the interpreter lock: with Python's 5 ms a fifth less is sent.
_SWITCH_SECONDS = 0.0005
_MANIFEST_INTERVAL = 15.0  # seconds; what a killed push has sent since is sent again
_LONGEST_KEY = 1024  # bytes; docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

Manifest = dict[str, tuple[str, str]]  # for each key below the prefix, the SHA-256 of its content and its ETag


@dataclass(frozen=True)
class PushResult:
    """What a push did, in objects."""

    uploaded: int
    unchanged: int
    removed: int


def data_set_prefix(name: str) -> str:
    """Return where the data set `name` lives in the bucket, with a trailing slash."""
    return f"{DATA_SETS}/{name}/"


def data_set_name(directory: Path, name: str | None) -> str:
    """Return the name under which a data set is kept in the bucket; a UsageError when it would not do in a key."""
    chosen = name or directory.resolve().name
    if not _NAME.fullmatch(chosen):
        raise UsageError(
            f"{chosen!r} does not do as a data set's name: letters, digits, '.', '_' and '-' are allowed, at most 63.",
            "Name it yourself: kennel data push DIR --name my-dogs",
        )
    return chosen


def push_data_set(stage: Stage, folder: ImageFolder, name: str) -> PushResult:
    """Make the bucket's copy of a data set equal to the folder; see `push_files`."""
    files = {image.key: image.path for image in folder.images}
    return push_files(stage, files, data_set_prefix(name), _manifest_key(name))


def pushed_images(stage: Stage, name: str) -> list[str]:
    """Return the places of a data set's images, ``train/<class>/<file>``, as the last push has noted them.

    There are none where nobody has pushed it, or the manifest is not the caller's to read.
    """
    try:
        return list(_read_manifest(stage.client("s3"), stage.data_bucket, _manifest_key(name)))
    except botocore.exceptions.ClientError:
        return []


def _manifest_key(name: str) -> str:
    return f"{DATA_SET_MANIFESTS}/{name}.json"


def require_keys(prefix: str, names: Iterable[str]) -> None:
    """Refuse, with a NotReadyError, names below a prefix that no object in S3 can have, or that S3 advises against."""
    for name in names:
        if UNFIT.search(name):
            raise NotReadyError(f"{name!r} is not a name in UTF-8 without control characters.", "Rename it.")
        if (length := len((prefix + name).encode())) > _LONGEST_KEY:
            raise NotReadyError(f"{name!r} becomes a key of {length} bytes; S3 takes {_LONGEST_KEY}.", "Rename it.")


def push_files(stage: Stage, files: Mapping[str, Path], prefix: str, manifest_key: str) -> PushResult:
    """Make what lies below a prefix of the data bucket equal to some files, given by their keys below it.

    The manifest is also written every few seconds and when the push breaks off: the next one goes on from there.
    """
    require_keys(prefix, files)
    bucket = stage.data_bucket
    s3 = stage.client("s3", config=Config(max_pool_connections=_UPLOADS))
    with aws_errors():
        listed = stage.listed("s3", "list_objects_v2", "Contents", Bucket=bucket, Prefix=prefix)
        present = {item["Key"].removeprefix(prefix): item["ETag"] for item in listed}
        recorded = _read_manifest(s3, bucket, manifest_key)
        manifest = {key: entry for key, entry in recorded.items() if present.get(key) == entry[1]}
        changed = _changed(files, manifest)

        def save() -> None:
            body = json.dumps(manifest.copy(), sort_keys=True, ensure_ascii=False).encode()  # it goes on growing
            s3.put_object(Bucket=bucket, Key=manifest_key, Body=body, ContentType="application/json")

        def send(key: str) -> None:
            body = _read(files[key])
            # Here and not where results are gathered: an upload that ends after Ctrl-C is one that was done, too.
            etag = s3.put_object(Bucket=bucket, Key=prefix + key, Body=body)["ETag"]
            manifest[key] = (hashlib.sha256(body).hexdigest(), etag)

        if changed:
            _upload(send, changed, save)
        stale = sorted(present.keys() - files.keys())
        delete_objects(s3, bucket, [{"Key": prefix + key} for key in stale])
    return PushResult(len(changed), len(files) - len(changed), len(stale))


def _changed(files: Mapping[str, Path], manifest: Manifest) -> list[str]:
    """Return the keys whose files are not what the manifest says of them."""
    known = [key for key in files if key in manifest]
    with progress_bar("Comparing", len(known)) as report:
        digests = map_unordered(lambda key: hashlib.sha256(_read(files[key])).hexdigest(), known, report=report)
        same = {key for key, digest in digests if digest == manifest[key][0]}
    return [key for key in files if key not in same]


def _upload(send: Callable[[str], None], keys: Sequence[str], save: Callable[[], None]) -> None:
    saved, interval = monotonic(), sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    with progress_bar("Uploading", len(keys)) as report:
        try:
            for _ in map_unordered(send, keys, threads=_UPLOADS, report=report):
                if monotonic() - saved > _MANIFEST_INTERVAL:
                    save()
                    saved = monotonic()
        finally:
            sys.setswitchinterval(interval)
            save()


def _read(path: Path) -> bytes:
    with data_set_errors(), reading(path):
        return path.read_bytes()


def _read_manifest(s3: Any, bucket: str, key: str) -> Manifest:
    try:
        document = json.load(s3.get_object(Bucket=bucket, Key=key)["Body"])
        return {name: (digest, etag) for name, (digest, etag) in document.items()}
    except (s3.exceptions.NoSuchKey, ValueError, TypeError, AttributeError, RecursionError):
        return {}  # not there, not ours or damaged: then everything is sent
