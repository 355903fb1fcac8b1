"""`kennel drift`."""

from __future__ import annotations

import re
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import BaseModel, Field, create_model
from rich.table import Table

from cli.aws import ROOT, Stage
from cli.console import AsJson, error_console, open_in_browser, progress_bar, show
from cli.errors import NotReadyError, UnhealthyError, UsageError, aws_errors
from infra.tables.alarms import DriftSettings, Figure

LEAST = 100  # images in each sample, with which drift is found
# An artifact may hold anything.
_Number = Annotated[float, Field(ge=0, le=1e9)]
_FIGURES: dict[str, Any] = dict.fromkeys(get_args(Figure), (_Number, ...))
_OTHERS = {"unknown": (_Number | None, None), "predicted": (Annotated[str, Field(max_length=2000)], ...)}
_Image: Any = create_model("_Image", **_FIGURES | _OTHERS)


class _Metrics(BaseModel):
    reference: list[_Image] | None = None


def drift(
    context: typer.Context,
    since: Annotated[str, typer.Option(help="How far to look back, in days or hours: 7d, 24h.")] = "7d",
    publish: Annotated[bool, typer.Option("--publish", help="Send CloudWatch the number of drifted figures.")] = False,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page where there is a browser.")] = True,
    as_json: AsJson = False,
) -> None:
    """Compare callers' images with training's (exit code 6: drift).

    Needs captured requests ([serving.capture]). Exit code 3: there are too few, or the model has no reference.
    """
    stage: Stage = context.obj
    if not (given := re.fullmatch(r"([1-9]\d{0,3})([dh])", since)):
        raise UsageError(f"--since {since} is no time.", "Days or hours: --since 7d, --since 24h")
    if publish and not stage.settings.drift:
        raise UsageError("--publish is for the alarm of [drift].", f"Add [drift] to {stage.settings_file} and deploy.")
    from cli.drift import comparison, page  # scipy: not needed by the other commands
    from cli.drift.captures import OTHER_MODEL, Captures

    window = timedelta(hours=int(given[1]) * {"h": 1, "d": 24}[given[2]])
    reference, version = read_reference(stage.artifact)
    with progress_bar("Reading captures") as report:
        found = Captures(stage, datetime.now(UTC) - window, version, report)
    for reason, count in found.skipped.items():
        error_console.print(f"Left out: {count:,} ({reason}), such as {found.examples[reason]}")
    if found.images < LEAST:
        hint = "Look further back (--since 30d), capture more (serving.capture.sampling_percent), or wait for callers."
        if not stage.settings.serving.capture:
            hint = f"Nothing is captured: add [serving.capture] to {stage.settings_file}, then {stage.kennel} deploy"
        elif found.skipped[OTHER_MODEL]:
            hint = f"The model here must be the deployed one: {stage.kennel} package, {stage.kennel} deploy"
        raise NotReadyError(f"{found.images} images of the last {since} can be used; {LEAST} are needed.", hint)
    figures = comparison.compare(reference, found.rows)
    ignored = (stage.settings.drift or DriftSettings()).ignore
    drifted = [each["figure"] for each in figures if each["drifted"] and each["figure"] not in ignored]
    periods = comparison.by_period(found.rows, "%Y-%m-%d %H:00" if window <= timedelta(days=2) else "%Y-%m-%d")
    facts = {"images": found.images, "compared": len(found.rows), "skipped": found.skipped, "figures": figures}
    table = Table("figure", "reference", "now", "effect", "limit", "p", "", title=f"{found.images:,} images")
    for figure, *numbers, bad in (each.values() for each in figures):
        cells = ("–" if number is None else f"{number:.3g}" for number in numbers)
        table.add_row(figure, *cells, "drift" if bad else "ok", style="red" if bad else None)
    show({**facts, "periods": periods}, table)
    file = ROOT / "build" / "drift" / f"{stage.name}.html"
    facts |= {"stage": stage.name, "since": since, "examples": found.examples, "periods": periods}
    page.write(file, reference, found.rows, **facts)
    error_console.print(f"The page: {file}")
    if open_ and not as_json:
        open_in_browser(file.resolve().as_uri())
    if publish:
        names = {"EndpointName": stage.settings.endpoint_name, "VariantName": stage.settings.serving.variant_name}
        dimensions = [{"Name": name, "Value": value} for name, value in names.items()]
        data = [{"MetricName": "DriftedFigures", "Dimensions": dimensions, "Value": len(drifted)}]
        with aws_errors():
            stage.client("cloudwatch").put_metric_data(Namespace=stage.settings.project.capitalize(), MetricData=data)
    if drifted:
        raise UnhealthyError(f"Drift: {', '.join(drifted)}.", "docs/drift.md says what each figure may mean.")


def read_reference(artifact: Path) -> tuple[list[dict[str, Any]], str]:
    """Return the figures of the validation images that a model.tar.gz has, and its version."""
    from model.core.artifact import ArtifactError, ModelCard
    from model.core.packaging import METRICS_FILE, unpack

    with tempfile.TemporaryDirectory() as name:
        try:
            unpack(artifact, Path(name))
            version = ModelCard.load(Path(name)).version
            metrics = _Metrics.model_validate_json(Path(name, METRICS_FILE).read_bytes())
        except (ArtifactError, OSError, ValueError) as error:
            hint = "Fetch the deployed one: kennel package. Requests have to be captured, too: docs/drift.md"
            raise NotReadyError(f"No model to compare with: {error}", hint) from error
    reference = metrics.model_dump(exclude_none=True).get("reference", [])
    if len(reference) < LEAST:
        message = f"{artifact} has figures of {len(reference)} images of its training; {LEAST} are needed."
        raise NotReadyError(message, "Train again, with so many validation images: this version keeps their figures.")
    return reference, version
