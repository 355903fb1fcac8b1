"""`kennel batch`: label every picture below a prefix of the data bucket with the deployed model."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlparse

import botocore.exceptions
import typer

from cli.aws import Stage, announce
from cli.batch.job import LOG_GROUP, MAX_PICTURE_MB, BatchFolder, BatchOptions, Ended
from cli.batch.labels import (
    InputPicture,
    Label,
    from_json_lines,
    is_settled,
    label_of_error,
    to_json_lines,
    write_parquet,
)
from cli.console import console
from cli.data.push import data_set_name, push_files
from cli.errors import NotReadyError, WorkFailedError, aws_errors
from infra.bucket_layout import BATCH_INPUT, BATCH_OUTPUT
from model.training.data.image_folder import IMAGE_SUFFIXES

_SHOWN_ERRORS = 10


def batch(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help=f"s3://BUCKET/{BATCH_INPUT}/NAME/, or a folder here, which is then pushed there.")
    ],
    destination: Annotated[
        str | None, typer.Argument(help=f"Default: s3://BUCKET/{BATCH_OUTPUT}/NAME/, BUCKET being the data bucket.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many breeds to name.")] = 5,
    scores: Annotated[bool, typer.Option("--scores", help="Also every breed's probability.")] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="Write labels.parquet beside labels.jsonl.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also pictures that this model has labelled.")] = False,
    instance_type: Annotated[str | None, typer.Option(help="Default: the endpoint's.")] = None,
    instances: Annotated[int, typer.Option(min=1, help="How many machines share the pictures.")] = 1,
    stop: Annotated[bool, typer.Option("--stop", help="Start nothing: stop what runs, keep what it has done.")] = False,
) -> None:
    """Label a whole prefix of pictures with SageMaker Batch Transform.

    Run it again after an interruption or with new pictures: only what has no label yet is done.
    """
    stage: Stage = context.obj
    announce(stage)
    folder = open_folder(stage, source, destination)
    options = BatchOptions(top_k, scores, instance_type, instances)
    with aws_errors():
        try:
            label_pictures(stage, folder, options, again=again, parquet=parquet, stop=stop)
        except KeyboardInterrupt:
            console.print("\nA job that runs goes on. The same command picks it up again; with --stop it stops it.")
            raise


def open_folder(stage: Stage, source: str, destination: str | None) -> BatchFolder:
    """Where the pictures are and where the labels go; a local folder is pushed first.

    Raises
    ------
    NotReadyError
        One of them is not where the model's role may read or write.
    """
    bucket = stage.data_bucket
    if "://" not in source:
        source = f"s3://{bucket}/{_push(stage, Path(source))}"
    source_prefix = _prefix(bucket, source, BATCH_INPUT)
    name = source_prefix.removeprefix(f"{BATCH_INPUT}/")
    destination_prefix = _prefix(bucket, destination or f"s3://{bucket}/{BATCH_OUTPUT}/{name}", BATCH_OUTPUT)
    return BatchFolder(stage, bucket, source_prefix, destination_prefix)


def _prefix(bucket: str, url: str, below: str) -> str:
    """The prefix of a location, with a trailing slash."""
    parts = urlparse(url)
    prefix = url.removeprefix(f"s3://{parts.netloc}").strip("/") + "/"
    if parts.scheme != "s3" or parts.netloc != bucket or not prefix.startswith(f"{below}/") or prefix == f"{below}/":
        hint = f"Copy them there: aws s3 sync {url} s3://{bucket}/{below}/NAME/" if below == BATCH_INPUT else ""
        raise NotReadyError(
            f"{url} is not below s3://{bucket}/{below}/NAME/, where the model's role may "
            f"{'read' if below == BATCH_INPUT else 'write'}.",
            hint,
        )
    return prefix


def _push(stage: Stage, directory: Path) -> str:
    """Make the bucket's copy of a folder of pictures equal to the folder; its prefix there."""
    if not directory.is_dir():
        raise NotReadyError(f"There is no folder {directory}, and it is no s3:// location.")
    paths = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}
    files = {name: path for name, path in paths.items() if _is_picture(name)}
    if not files:
        raise NotReadyError(f"There are no pictures in {directory} ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    name = data_set_name(directory, None)
    result = push_files(stage, files, f"{BATCH_INPUT}/{name}/", f"manifests/batch/{name}.json")
    console.print(f"Pushed: {result.uploaded} uploaded, {result.unchanged} unchanged, {result.removed} removed.")
    return f"{BATCH_INPUT}/{name}/"


def _is_picture(name: str) -> bool:
    path = Path(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in path.parts)


def label_pictures(
    stage: Stage, folder: BatchFolder, options: BatchOptions, *, again: bool, parquet: bool, stop: bool
) -> None:
    """Bring the labels of a folder up to date.

    Raises
    ------
    NotReadyError
        There are no pictures, or no deployed model.
    WorkFailedError
        A transform job failed, or its answers are not one to each picture. What it answered has been gathered all the
        same, and answers to no picture are kept.
    """
    labels = _read_labels(folder)
    endings = []
    for job in folder.open_jobs():
        console.print(f"Going on with the transform job {job}")
        if stop:
            folder.stop(job)
        endings.append(_finish(folder, job, labels))
    pictures = _find_pictures(folder)
    labels = {name: label for name, label in labels.items() if name in pictures}
    if not stop:
        model = deployed_model(stage)
        waiting = {
            name: picture
            for name, picture in pictures.items()
            if again or not is_settled(labels.get(name), picture, model)
        }
        to_send = _refuse_large(waiting, model, labels)
        console.print(f"{len(pictures)} pictures, {len(pictures) - len(waiting)} of them labelled already.")
        if to_send:
            endings.append(_finish(folder, folder.start(to_send, model, options), labels))
    _write_labels(folder, labels, parquet=parquet)
    _report(folder, labels, len(pictures))
    faults = [fault for ended in endings if ended is not None for fault in _faults(folder, ended)]
    if faults:
        raise WorkFailedError(
            "\n".join(faults), f"Logs: log group {LOG_GROUP}, streams JOB/…. Run the command again for what is left."
        )


def _faults(folder: BatchFolder, ended: Ended) -> Iterator[str]:
    """Say why a job is no success: it failed, or its answers are not one to each picture."""
    if ended.status == "Failed":
        yield f"The transform job {ended.job} failed: {ended.reason}"
    elif ended.unanswered:
        yield (
            f"The transform job {ended.job} has {ended.status.lower()} without an answer to {len(ended.unanswered)} "
            f"pictures: {_some(ended.unanswered)}"
        )
    if ended.bad:
        yield (
            f"{len(ended.bad)} answers of the transform job {ended.job} are none of a classifier: {_some(ended.bad)}"
        )
    if ended.unmatched:
        yield (
            f"{len(ended.unmatched)} answers of the transform job {ended.job} are to none of its pictures. "
            f"They are kept in s3://{folder.bucket}: {_some(ended.unmatched)}"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN_ERRORS]) + (", …" if len(names) > _SHOWN_ERRORS else "")


def deployed_model(stage: Stage) -> str:
    """Name of the SageMaker model that the stage's endpoint serves."""
    sagemaker = stage.client("sagemaker")
    endpoint = sagemaker.describe_endpoint(EndpointName=stage.output("inference", "EndpointName"))
    config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    return str(config["ProductionVariants"][0]["ModelName"])


def _find_pictures(folder: BatchFolder) -> dict[str, InputPicture]:
    objects = {item["Key"].removeprefix(folder.source): item for item in folder.list_objects(folder.source)}
    pictures = {
        name: InputPicture(item["ETag"].strip('"'), item["Size"]) for name, item in objects.items() if _is_picture(name)
    }
    if not pictures:
        raise NotReadyError(
            f"There are no pictures below s3://{folder.bucket}/{folder.source} "
            f"({', '.join(sorted(IMAGE_SUFFIXES))}; hidden files do not count)."
        )
    if len(objects) > len(pictures):
        console.print(f"{len(objects) - len(pictures)} files are no pictures by their names and are left out.")
    return pictures


def _refuse_large(waiting: dict[str, InputPicture], model: str, labels: dict[str, Label]) -> dict[str, InputPicture]:
    """Record an error for pictures that no request can carry, which would fail the job; returns the others."""
    limit = MAX_PICTURE_MB * 2**20
    for name, picture in waiting.items():
        if picture.size > limit:
            message = f"The picture has {picture.size:,} bytes; at most {limit:,} are allowed."
            labels[name] = label_of_error(name, picture.etag, model, "image_too_large", message)
    return {name: picture for name, picture in waiting.items() if picture.size <= limit}


def _finish(folder: BatchFolder, job: str, labels: dict[str, Label]) -> Ended | None:
    """Follow a job to its end, add its records to `labels`, and put these where they outlive us."""
    ended = folder.finish(job)
    if ended is not None:
        for label in ended.labels:
            before = labels.get(label["picture"])
            # A label is not given up because another try at the same picture came to nothing.
            if not (before and "error" in label and "error" not in before and before["etag"] == label["etag"]):
                labels[label["picture"]] = label
        _write_labels(folder, labels, parquet=False)
    folder.forget(job, keep=ended.unmatched if ended is not None else ())
    return ended


def _labels_key(folder: BatchFolder, suffix: str = "jsonl") -> str:
    return f"{folder.destination}labels.{suffix}"


def _read_labels(folder: BatchFolder) -> dict[str, Label]:
    key = _labels_key(folder)
    try:
        return from_json_lines(folder.read(key))
    except botocore.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            return {}
        raise
    except ValueError as error:
        raise NotReadyError(
            f"s3://{folder.bucket}/{key} is not what this command wrote: {error}",
            "Choose another destination, or remove it.",
        ) from error


def _write_labels(folder: BatchFolder, labels: dict[str, Label], *, parquet: bool) -> None:
    folder.s3.put_object(
        Bucket=folder.bucket,
        Key=_labels_key(folder),
        Body=to_json_lines(labels),
        ContentType="application/x-ndjson",
    )
    if parquet:
        with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
            write_parquet(labels.values(), Path(file.name))
            folder.s3.upload_file(file.name, folder.bucket, _labels_key(folder, "parquet"))


def _report(folder: BatchFolder, labels: dict[str, Label], pictures: int) -> None:
    errors = {name: label["error"] for name, label in labels.items() if "error" in label}
    for name in sorted(errors)[:_SHOWN_ERRORS]:
        console.print(f"  {name}: {errors[name]['message']}")
    if len(errors) > _SHOWN_ERRORS:
        counts = Counter(error["code"] for error in errors.values())
        console.print(
            f"  … {len(errors)} errors in all: {', '.join(f'{n} {code}' for code, n in counts.most_common())}"
        )
    console.print(
        f"{len(labels) - len(errors)} of {pictures} pictures are labelled, {len(errors)} could not be, "
        f"{pictures - len(labels)} are left: s3://{folder.bucket}/{_labels_key(folder)}",
    )
