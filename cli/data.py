"""`kennel data`: draw a sample data set, put any data set into the bucket."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import botocore.exceptions
import typer
from botocore.config import Config

from cli.aws import Stage
from cli.console import console, progress_bar
from cli.dataset import DataSet, read_data_set
from cli.errors import NotReadyError, aws_errors

app = typer.Typer(help="Draw and push data sets.", no_args_is_help=True)

SAMPLE_DIR = Path("data/sample")
_WORKERS = 16  # parallel uploads; S3 answers a small put in tens of milliseconds, so it is latency that is hidden
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def data_set_prefix(name: str) -> str:
    """Where the data set `name` lives in the bucket, with a trailing slash."""
    return f"datasets/{name}/"


@dataclass(frozen=True)
class PushResult:
    """What a push did."""

    uploaded: int
    unchanged: int
    removed: int


@app.command()
def sample(
    directory: Annotated[Path, typer.Argument(help="Where to draw it.")] = SAMPLE_DIR,
    seed: Annotated[int, typer.Option(help="Another seed draws other pictures of the same breeds.")] = 1,
    breeds: Annotated[int, typer.Option(min=2, max=16, help="How many breeds, of the 16 there are.")] = 12,
    train: Annotated[int, typer.Option(min=1, help="Pictures per breed to train on.")] = 120,
    valid: Annotated[int, typer.Option(min=1, help="Pictures per breed to choose the best weights by.")] = 15,
    test: Annotated[int, typer.Option(min=1, help="Pictures per breed to measure with.")] = 15,
) -> None:
    """Draw a small data set of dogs whose pictures differ as breeds do."""
    draw_sample(directory, seed=seed, breeds=breeds, per_class=(train, valid, test))


def draw_sample(directory: Path, *, seed: int, breeds: int, per_class: tuple[int, int, int]) -> None:
    """Draw the sample data set, or keep it where the very same one lies there; see `cli.drawing.draw_data_set`.

    Raises
    ------
    NotReadyError
        When it cannot be drawn there, for example because the folder holds something else.
    """
    from cli import drawing  # numpy and Pillow: not needed by the other commands

    try:
        with progress_bar("Drawing pictures", breeds * sum(per_class)) as report:
            summary = drawing.draw_data_set(
                directory,
                breeds=breeds,
                per_class=per_class,
                seed=seed,
                progress=lambda done, total: report(done),
            )
    except drawing.DrawingError as error:
        raise NotReadyError(str(error)) from error
    what = f"{summary.pictures} pictures of {len(summary.classes)} breeds"
    console.print(f"{directory} holds these {what} already." if summary.reused else f"Drew {what} in {directory}.")


@app.command()
def push(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="A folder-per-class data set.")] = SAMPLE_DIR,
    name: Annotated[str | None, typer.Option(help="Its name in the bucket (default: the folder's).")] = None,
) -> None:
    """Put a data set into the bucket, uploading only what has changed."""
    data_set = read_data_set(directory)
    chosen = data_set_name(directory, name)
    counts = ", ".join(f"{count} {split}" for split, count in data_set.counts().items())
    console.print(f"{directory}: {len(data_set.labels)} classes; {counts} pictures.")
    if data_set.was_split:
        console.print("It had no train/, valid/ and test/ folders: split 80/10/10 by the content of the pictures.")
    if data_set.ignored:
        console.print(f"{len(data_set.ignored)} files are no pictures by their names and stay here, "
                      f"for example {data_set.ignored[0]}.")  # fmt: skip
    result = push_data_set(context.obj, data_set, chosen)
    console.print(
        f"Pushed as {chosen!r}: {result.uploaded} uploaded, {result.unchanged} unchanged, {result.removed} removed."
    )


def data_set_name(directory: Path, name: str | None) -> str:
    """The name under which a data set is kept in the bucket.

    Raises
    ------
    NotReadyError
        When the name would not do in a key; the message says what is allowed.
    """
    chosen = name or directory.resolve().name
    if not _NAME.fullmatch(chosen):
        raise NotReadyError(
            f"{chosen!r} does not do as a data set's name: letters, digits, '.', '_' and '-' are allowed, at most 63.",
            "Name it yourself: kennel data push DIR --name my-dogs",
        )
    return chosen


def push_data_set(stage: Stage, data_set: DataSet, name: str) -> PushResult:
    """Make the bucket's copy of a data set equal to the folder; see `push_files`."""
    files = {picture.key: picture.path for picture in data_set.pictures}
    return push_files(stage, files, data_set_prefix(name), f"manifests/{name}.json")


def push_files(stage: Stage, files: Mapping[str, Path], prefix: str, manifest_key: str) -> PushResult:
    """Make what lies below a prefix of the data bucket equal to some files.

    A manifest in the bucket keeps the SHA-256 of every object, so that unchanged files are not sent again; it is
    written also when the push breaks off, so that the next one goes on from there.

    Parameters
    ----------
    files
        Where the files are, by their keys below the prefix.
    prefix
        With a trailing slash.

    Raises
    ------
    NotReadyError
        When the storage stack is not deployed.
    AwsError
        When an upload is refused.
    """
    bucket = stage.data_bucket
    s3 = stage.client("s3", config=Config(max_pool_connections=_WORKERS))
    with aws_errors():
        known = _read_manifest(s3, bucket, manifest_key)
        present = _list_keys(s3, bucket, prefix)
        digests = {key: digest for key, digest in known.items() if key in present}
        with progress_bar("Uploading", len(files)) as report:
            try:
                uploaded = _upload(s3, bucket, prefix, files, digests, report)
            finally:
                body = json.dumps(digests, sort_keys=True, ensure_ascii=False).encode()
                s3.put_object(Bucket=bucket, Key=manifest_key, Body=body, ContentType="application/json")
        stale = sorted(present - files.keys())
        delete_objects(s3, bucket, [prefix + key for key in stale])
    return PushResult(uploaded, len(files) - uploaded, len(stale))


def _upload(
    s3: Any,
    bucket: str,
    prefix: str,
    files: Mapping[str, Path],
    digests: dict[str, str],
    report: Callable[[int], None],
) -> int:
    """Upload what differs from `digests`, which is kept up to date; returns how many were sent."""

    def send(key: str) -> bool:
        body = files[key].read_bytes()
        digest = hashlib.sha256(body).hexdigest()
        if digests.get(key) == digest:
            return False
        s3.put_object(Bucket=bucket, Key=prefix + key, Body=body)
        digests[key] = digest
        return True

    uploaded = 0
    with ThreadPoolExecutor(_WORKERS) as pool:
        futures = [pool.submit(send, key) for key in files]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                uploaded += future.result()
                report(done)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return uploaded


def delete_objects(s3: Any, bucket: str, keys: Sequence[str]) -> None:
    """Delete any number of objects."""
    for start in range(0, len(keys), 1000):  # DeleteObjects takes at most 1000 keys
        objects = [{"Key": key} for key in keys[start : start + 1000]]
        s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})


def _read_manifest(s3: Any, bucket: str, key: str) -> dict[str, str]:
    try:
        manifest: dict[str, str] = json.load(s3.get_object(Bucket=bucket, Key=key)["Body"])
    except botocore.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            return {}
        raise
    return manifest


def _list_keys(s3: Any, bucket: str, prefix: str) -> set[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {item["Key"].removeprefix(prefix) for page in pages for item in page.get("Contents", [])}
