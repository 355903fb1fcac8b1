"""`kennel report`: what a training left behind, fetched, summed up, made a page of and opened."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.aws import ROOT, Stage
from cli.console import AsJson, open_in_browser, progress_bar, show
from cli.errors import NotReadyError, aws_errors
from cli.training.job_names import job_name, job_path, jobs_here
from cli.training.packaging import newest_job
from infra.bucket_layout import TRAINING_OUTPUT
from model.core.artifact import ArtifactError

REPORTS_DIR = ROOT / "build" / "reports"
METRICS = "metrics.json"
# What a training may leave besides: its epochs, and what a search inside the job tried.
TABLES = ("history.csv", "trials.csv", "search.json")
_MAX_METRICS_BYTES = 64 * 2**20  # with ten thousand classes it has some five million


def report(
    context: typer.Context,
    job: Annotated[
        str | None, typer.Argument(help="Default: the newest completed one.", autocompletion=jobs_here(REPORTS_DIR))
    ] = None,
    source: Annotated[Path | None, typer.Option("--from", help="A local --output-data-dir instead of a job's.")] = None,
    output: Annotated[Path, typer.Option(help="Where the report's folder goes.", show_default=False)] = REPORTS_DIR,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page where there is a browser.")] = True,
    as_json: AsJson = False,
) -> None:
    """Print how good a training's model is; make and open a page."""
    from model.training.report.report import write_page

    folder = fetch_report(context.obj, output, job=job) if source is None else source
    metrics = read_metrics(folder)
    try:
        table = figures_table(metrics, title=folder.resolve().name)
        page = write_page(folder, metrics)
    except Exception as error:  # the figures may be anything, and so may what is wrong with them
        raise NotReadyError(
            f"{METRICS} was written by another version of the training program, or by something else: "
            f"{type(error).__name__}: {error}"
        ) from error
    show({"page": page, **metrics}, table, f"The report: {page}")
    if open_ and not as_json:
        open_in_browser(page.resolve().as_uri())


def fetch_report(stage: Stage, output: Path, *, job: str | None = None) -> Path:
    """Fetch what a training left behind, beside its model; return the folder, named like the job.

    The default job is the newest completed one. A page that the training made is not among it: that would be a program
    of anybody's, opened as a local file. Of a folder that is there already, only the report's files are replaced.
    """
    from model.core.packaging import unpack  # numpy: not needed by the other commands
    from model.training.report.report import IMAGE_FILES, REPORT_FILE

    job = job_name(newest_job(stage) if job is None else job)
    folder, files = job_path(output, job), (METRICS, *TABLES, *IMAGE_FILES)
    missing = NotReadyError(
        f"The training {job} has left no report (yet), or there is no such training in this stage's bucket.",
        f"Follow it to its end: kennel train --follow {job}",
    )
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".fetching-") as name:
        fetched, unpacked = Path(name, "output.tar.gz"), Path(name, "unpacked")
        unpacked.mkdir()
        with aws_errors(missing), progress_bar("Fetching the report"):
            key = f"{TRAINING_OUTPUT}/{job}/output/output.tar.gz"  # wherever the training ran
            stage.client("s3").download_file(stage.data_bucket, key, str(fetched))
        try:
            unpack(fetched, unpacked, files)
        except ArtifactError as error:
            raise NotReadyError(f"What the training {job} left cannot be read: {error}") from error
        folder.mkdir(exist_ok=True)
        for file in (REPORT_FILE, *files):
            (folder / file).unlink(missing_ok=True)  # of another time, or a link
            if (unpacked / file).exists():
                (unpacked / file).rename(folder / file)
    return folder


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read a training's `metrics.json`; raise NotReadyError when there is none, or it is not one."""
    path = folder / METRICS
    try:
        if path.stat().st_size > _MAX_METRICS_BYTES:
            raise ValueError(f"more than {_MAX_METRICS_BYTES:,} bytes are no metrics")
        metrics = json.loads(path.read_bytes())
        if not isinstance(metrics, dict):
            raise ValueError("these are no metrics of a training")
    except (FileNotFoundError, NotADirectoryError):
        raise NotReadyError(
            f"There is no {METRICS} in {folder}: no training has left its outputs there.",
            "Without --from, kennel report fetches those of a training job.",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise NotReadyError(f"{path} cannot be read: {error}") from error
    return metrics


def figures_table(metrics: dict[str, Any], *, title: str) -> Table:
    """Return the headline figures as a table."""
    table = Table("", "", title=title, title_justify="left", show_header=False)
    split, name = ("valid", "validation") if metrics["test"] is None else ("test", "test")
    measured, calibration, data = metrics[split], metrics["calibration"], metrics["data_set"]
    low, high = measured["accuracy_interval"]
    before, after = (calibration[split][when]["expected_calibration_error"] for when in ("before", "after"))
    images = sum(one["images"] for one in measured["per_class"])
    workers = f" by {metrics['workers']} workers" if metrics["workers"] > 1 else ""
    accuracy = f"{measured['accuracy']:.2%} (95%: {low:.1%} to {high:.1%}), {images} images"
    table.add_row(f"accuracy, {name} split", accuracy)
    table.add_row("F1, mean of the classes", f"{measured['macro_f1']:.2%}")
    table.add_row("loss", f"{measured['loss']:.4f}")
    temperature = f"temperature {calibration['temperature']:.3f}"
    table.add_row("calibration error", f"{after:.1%} ({before:.1%} before), {temperature}")
    table.add_row("best epoch", f"{metrics['best_epoch']} of {len(metrics['epochs'])}")
    speed = f"{metrics['images_per_second']:,.0f} images/s{workers}"
    table.add_row("training", f"{speed}, {metrics['seconds']:.0f} s in all")
    if quantization := metrics["quantization"]:
        table.add_row("precision", f"{quantization['precision']}: {quantization['reason']}")
    notes = [
        (metrics["diverged_epoch"], f"diverged in epoch {metrics['diverged_epoch']}"),
        (metrics["interrupted"], "stopped before its end"),
        (data["skipped"], f"unreadable files: {len(data['skipped'])}"),
        (data["left_out"], f"files or folders left out: {len(data['left_out'])}"),
        (data["also_in_training"], f"images that are in the training split, too: {len(data['also_in_training'])}"),
        (data["also_in_valid"], f"test images that are in the validation split, too: {len(data['also_in_valid'])}"),
        (data["in_two_classes"], f"images that are in another class, too: {len(data['in_two_classes'])}"),
        (data["held_out"], f"held out of the training images: {', '.join(data['held_out'])}"),
        (data["absent_classes"], "classes without images in a split"),
    ]
    if warnings := [text for holds, text in notes if holds]:
        table.add_row("beware", "; ".join(warnings))
    return table
