"""`kennel batch`: label every image below a prefix of the data bucket with the deployed model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated
from urllib.parse import urlparse

import typer

from cli.aws import Stage, announce
from cli.batch import labels as records
from cli.batch.job import LOG_GROUP, MAX_IMAGE_MB, BatchFolder, BatchOptions
from cli.batch.labels import InputImage, Label
from cli.console import AsJson, console, show
from cli.data.dataset import data_set_errors, print_notes
from cli.data.push import data_set_name, push_files
from cli.errors import NotReadyError, WorkFailedError, aws_errors
from cli.operating.endpoints import endpoint_config
from infra.bucket_layout import BATCH_INPUT, BATCH_OUTPUT
from model.training.data.image_folder import ImageFolder
from model.training.data.listing import IMAGE_SUFFIXES, is_system_name, list_files, some

_SHOWN_ERRORS = 10


def batch(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help=f"s3://BUCKET/{BATCH_INPUT}/NAME/, or a folder, which is pushed there.")
    ],
    destination: Annotated[
        str | None, typer.Argument(help=f"Default: s3://BUCKET/{BATCH_OUTPUT}/NAME/, BUCKET being the data bucket.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many breeds to name.")] = 5,
    scores: Annotated[bool, typer.Option("--scores", help="Also every breed's probability.")] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="Write labels.parquet beside labels.jsonl.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also images that this model has labelled.")] = False,
    instance_type: Annotated[str | None, typer.Option(help="Default: the endpoint's.")] = None,
    instances: Annotated[int, typer.Option(min=1, help="How many machines share the images.")] = 1,
    stop: Annotated[bool, typer.Option("--stop", help="Start nothing: stop what runs, keep what it has done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Label any number of images with SageMaker Batch Transform.

    Run it again after an interruption or with new images: only what has no label yet is done.
    """
    stage: Stage = context.obj
    announce(stage)
    options = BatchOptions(top_k, scores, instance_type, instances)
    with aws_errors():
        model = None if stop else deployed_model(stage)  # before anything is pushed
        folder = open_folder(stage, source, destination)
        label_images(folder, model, options, again=again, parquet=parquet)


def open_folder(stage: Stage, source: str, destination: str | None) -> BatchFolder:
    """Say where the images are and the labels go, both places of the model's role; push a local folder first."""
    bucket = stage.data_bucket
    if "://" not in source:
        source = f"s3://{bucket}/{_push(stage, Path(source))}"
    source_prefix = _prefix(bucket, source, BATCH_INPUT)
    name = source_prefix.removeprefix(f"{BATCH_INPUT}/")
    destination_prefix = _prefix(bucket, destination or f"s3://{bucket}/{BATCH_OUTPUT}/{name}", BATCH_OUTPUT)
    return BatchFolder(stage, bucket, source_prefix, destination_prefix)


def _prefix(bucket: str, url: str, below: str) -> str:
    parts = urlparse(url)
    prefix = url.removeprefix(f"s3://{parts.netloc}").strip("/") + "/"
    if parts.scheme != "s3" or parts.netloc != bucket or not prefix.startswith(f"{below}/") or prefix == f"{below}/":
        place = f"s3://{bucket}/{below}/NAME/"
        reads = below == BATCH_INPUT
        raise NotReadyError(
            f"{url} is not below {place}, where the model's role may {'read' if reads else 'write'}.",
            f"Copy them there: aws s3 sync {url} {place}" if reads else "",
        )
    return prefix


def _push(stage: Stage, directory: Path) -> str:
    """Make the bucket's copy of a folder of images equal to the folder; return its prefix there."""
    if not directory.is_dir():
        raise NotReadyError(f"There is no folder {directory}, and it is no s3:// location.")
    with data_set_errors():
        listing = list_files(directory)
    files = {path.relative_to(directory).as_posix(): path for path in listing.files if _is_image(path.name)}
    if not files:
        raise NotReadyError(f"There are no images in {directory} ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    for path in set(listing.files) - set(files.values()):
        listing.leave_out(path, "no image by its name")
    print_notes(ImageFolder(directory, [], listing.left_out))
    name = data_set_name(directory, None)
    result = push_files(stage, files, f"{BATCH_INPUT}/{name}/", f"manifests/batch/{name}.json")
    console.print(f"Pushed: {result.uploaded} uploaded, {result.unchanged} unchanged, {result.removed} removed.")
    return f"{BATCH_INPUT}/{name}/"


def _is_image(name: str) -> bool:
    path = Path(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not any(map(is_system_name, path.parts))


def deployed_model(stage: Stage) -> str:
    """Return the name of the SageMaker model that the stage's endpoint serves.

    Not a serverless one's: nothing isolates its container, so its role may not open the images of transform jobs.
    """
    if stage.settings.serving.kind == "serverless":
        hint = "Transform jobs run under the role of an isolated model: use a stage with instances (docs/batch.md)"
        raise NotReadyError(f"The endpoint of the stage {stage.name} is serverless.", hint)
    config = endpoint_config(stage, stage.output("inference", "EndpointName"))
    return str(config["ProductionVariants"][0]["ModelName"])


def label_images(folder: BatchFolder, model: str | None, options: BatchOptions, *, again: bool, parquet: bool) -> None:
    """Bring the labels of a folder up to date with a model; None: stop what runs and start nothing.

    A WorkFailedError says that a transform job failed, or did not answer to each image. What it answered has been
    gathered all the same.
    """
    labels = _read_labels(folder)
    faults = []
    for job in folder.open_jobs():
        console.print(f"Going on with the transform job {job}")
        if model is None:
            folder.stop(job)
        faults += _finish(folder, job, labels)
    images = _find_images(folder)
    labels = {name: label for name, label in labels.items() if name in images}
    if model is not None:
        done = {name for name, image in images.items() if records.is_settled(labels.get(name), image, model)}
        waiting = {name: image for name, image in images.items() if again or name not in done}
        console.print(f"{len(images)} images, {len(images) - len(waiting)} of them labelled already.")
        for name in [name for name, image in waiting.items() if image.size > MAX_IMAGE_MB * 2**20]:
            image = waiting.pop(name)  # no request can carry it: it would fail the job
            limit = f"at most {MAX_IMAGE_MB * 2**20:,} are allowed; kennel data shrink DIR makes smaller copies"
            message = f"The image has {image.size:,} bytes; {limit}."
            labels[name] = records.label_of_error(name, image.etag, model, "image_too_large", message)
        if waiting:
            faults += _finish(folder, folder.start(waiting, model, options), labels)
    _write_labels(folder, labels)
    if parquet:
        with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
            records.write_parquet(labels.values(), Path(file.name))
            folder.s3.upload_file(file.name, folder.bucket, f"{folder.destination}labels.parquet")
    _report(folder, labels, len(images))
    if faults:
        raise WorkFailedError(
            "\n".join(faults), f"Logs: log group {LOG_GROUP}, streams JOB/…. Run the command again for what is left."
        )


def _find_images(folder: BatchFolder) -> dict[str, InputImage]:
    found = {
        item["Key"].removeprefix(folder.source): InputImage(item["ETag"].strip('"'), item["Size"])
        for item in folder.list_objects(folder.source)
    }
    images = {name: image for name, image in found.items() if _is_image(name)}
    if not images:
        raise NotReadyError(
            f"There are no images below s3://{folder.bucket}/{folder.source} "
            f"({', '.join(sorted(IMAGE_SUFFIXES))}; hidden files do not count)."
        )
    if others := sorted(found.keys() - images.keys()):
        console.print(f"{len(others)} left out, no image by its name: {some(others)}")
    return images


def _finish(folder: BatchFolder, job: str, labels: dict[str, Label]) -> list[str]:
    """Follow a job to its end, add its records to `labels`, save these, and return why it is no success."""
    found, faults = folder.finish(job)
    for label in found:
        before = labels.get(label["image"])
        # A label is not given up because another try at the same image came to nothing.
        if not (before and "error" in label and "error" not in before and before["etag"] == label["etag"]):
            labels[label["image"]] = label
    _write_labels(folder, labels)
    folder.forget(job)
    return faults


def _read_labels(folder: BatchFolder) -> dict[str, Label]:
    try:
        return records.from_json_lines(folder.read(f"{folder.destination}labels.jsonl"))
    except folder.s3.exceptions.NoSuchKey:
        return {}
    except ValueError as error:
        raise NotReadyError(
            f"s3://{folder.bucket}/{folder.destination}labels.jsonl is not what this command wrote: {error}",
            "Choose another destination, or remove it.",
        ) from error


def _write_labels(folder: BatchFolder, labels: dict[str, Label]) -> None:
    key, body = f"{folder.destination}labels.jsonl", records.to_json_lines(labels)
    folder.s3.put_object(Bucket=folder.bucket, Key=key, Body=body, ContentType="application/x-ndjson")


def _report(folder: BatchFolder, labels: dict[str, Label], images: int) -> None:
    errors = {name: label["error"] for name, label in labels.items() if "error" in label}
    lines = [f"  {name}: {errors[name]['message']}" for name in sorted(errors)[:_SHOWN_ERRORS]]
    if len(errors) > _SHOWN_ERRORS:
        lines.append(f"  … {len(errors)} errors in all")
    counts = {"labelled": len(labels) - len(errors), "errors": len(errors), "left": images - len(labels)}
    place = f"s3://{folder.bucket}/{folder.destination}labels.jsonl"
    said = "{labelled} of {images} images are labelled, {errors} could not be, {left} are left".format
    show({"labels": place, **counts}, *lines, f"{said(images=images, **counts)}: {place}")
