"""`report.html`, `history.csv` and the worst mistakes' images: what a training leaves behind for people.

The page needs no network and can be made again of `metrics.json` and the images where the training is not trusted.
Names may be hostile: the template engine escapes them, and the page's own policy lets no script but ours run.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import logging
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ...core.decoding import ImageError, decode
from ..whole_files import write_whole
from .charts import Chart, confusion_matrix, line_chart, reliability_diagram

log = logging.getLogger(__name__)

REPORT_FILE = "report.html"
HISTORY_FILE = "history.csv"
# The worst mistakes that the page shows, and their images.
MISTAKES = 18
IMAGE_FILES = tuple(f"mistake-{number:02}.jpg" for number in range(1, MISTAKES + 1))
TEMPLATES = Path(__file__).parent / "templates"
# Of the images in the report, pixels of the longer side: sharp at the size at which they are shown.
THUMBNAIL = 240
_THUMBNAIL_QUALITY = 78
_MAX_THUMBNAIL_BYTES = 2**20  # none that was written here is as large
# So many are listed; the rest is in metrics.json.
LISTED = 20
PAIRS = 15
CLASSES = 500  # the worst
_SPLIT_NAMES = {"train": "training", "valid": "validation", "test": "test"}


def write_report(folder: Path, metrics: Mapping[str, Any], data_root: Path) -> bool:
    """Write `history.csv`, the mistakes' images and `report.html` of what `metrics.json` holds.

    Returns False when that failed, and the log says why: a finished training must not fail for want of its report.
    """
    try:
        write_whole(folder / HISTORY_FILE, history_csv(metrics["epochs"]).encode())
        for mistake, name in zip(metrics["mistakes"], IMAGE_FILES, strict=False):
            if (small := thumbnail(data_root / mistake["image"])) is not None:
                write_whole(folder / name, small)
            else:
                (folder / name).unlink(missing_ok=True)  # of an earlier training
                log.warning("no thumbnail of %s: it cannot be read", mistake["image"])
        write_page(folder, metrics)
    except Exception:  # whatever it is: the model is written, and so is metrics.json
        log.warning("the report could not be written; all its figures are in metrics.json", exc_info=True)
        return False
    return True


def write_page(folder: Path, metrics: Mapping[str, Any]) -> Path:
    """Write `report.html` from the figures and the images beside it; return its path.

    The page holds numbers, escaped text and images that were encoded here. Other `metrics` may raise any exception.
    """
    files = [folder / name for name in IMAGE_FILES]
    small = [
        thumbnail(file) if file.is_file() and file.stat().st_size <= _MAX_THUMBNAIL_BYTES else None for file in files
    ]
    # A file name may hold bytes that are no text (surrogates); they are shown as question marks.
    write_whole(folder / REPORT_FILE, render(metrics, small).encode(errors="replace"))
    return folder / REPORT_FILE


def history_csv(epochs: Sequence[Mapping[str, Any]]) -> str:
    """Return the epochs as a table, one row each, the columns named as in `metrics.json`."""
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(epochs[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(epochs)
    return file.getvalue()


def render(metrics: Mapping[str, Any], thumbnails: Sequence[bytes | None] = ()) -> str:
    """Return the page of what `metrics.json` holds; `thumbnails` are JPEGs of the mistakes, None: no image."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "number": _number, "duration": _duration, "counted": _counted}
    environment.filters["points"] = lambda share: f"{100 * share:.2f}"
    model = metrics["model"]
    display_labels = model["display_labels"]
    names = dict(zip(metrics["labels"], display_labels, strict=True))
    split = "valid" if metrics["test"] is None else "test"
    measured, calibration = metrics[split], metrics["calibration"][split]
    cells, images = measured["confusion_cells"], [one["images"] for one in measured["per_class"]]
    script, style = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.js", "report.css"))
    return environment.get_template("report.html").render(
        model=model,
        metrics=metrics,
        split=split,
        split_name=_SPLIT_NAMES[split],
        split_names=_SPLIT_NAMES,
        measured=measured,
        calibration=calibration,
        known=(metrics.get("ood") or {}).get(f"{split}_known"),
        best=metrics["epochs"][metrics["best_epoch"] - 1],
        curves=_curves(metrics),
        # The worst F1 first, classes without any last.
        classes=sorted(
            ({"name": name, **one} for name, one in zip(display_labels, measured["per_class"], strict=True)),
            key=lambda one: (one["f1"] is None, one["f1"]),
        )[:CLASSES],
        matrix=confusion_matrix(cells, images, display_labels),
        pairs=_confused_pairs(cells, images, display_labels),
        diagrams={
            when: reliability_diagram(
                calibration[when]["bins"], description=f"Accuracy over confidence, {when} calibration"
            )
            for when in ("before", "after")
        },
        mistakes=[
            mistake
            | {"true": names[mistake["true"]], "predicted": names[mistake["predicted"]]}
            | {"thumbnail": small and f"data:image/jpeg;base64,{base64.b64encode(small).decode()}"}
            for mistake, small in zip_longest(metrics["mistakes"][:MISTAKES], thumbnails[: len(metrics["mistakes"])])
        ],
        absent_classes={
            split: [names[label] for label in labels] for split, labels in metrics["data_set"]["absent_classes"].items()
        },
        listed=LISTED,
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup(style),  # noqa: S704 - our own file
    )


def thumbnail(path: Path) -> bytes | None:
    """Return a small JPEG of an image, None when it cannot be read."""
    try:
        image = decode(path.read_bytes(), target_size=THUMBNAIL)
    except (ImageError, OSError):
        return None
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_THUMBNAIL_QUALITY)
    return file.getvalue()


def _curves(metrics: Mapping[str, Any]) -> dict[str, Chart]:
    def values(name: str) -> list[float]:
        return [epoch[name] for epoch in metrics["epochs"]]

    best = metrics["best_epoch"]
    return {
        "loss": line_chart(
            {"first": values("train_loss"), "second": values("valid_loss")},
            description="Training and validation loss over the epochs", y_format=_number, best_epoch=best,
        ),
        "accuracy": line_chart(
            {"second": values("valid_accuracy")}, best_epoch=best,
            description="Validation accuracy over the epochs", y_format=lambda share: f"{100 * share:g}%",
        ),
        "throughput": line_chart(
            {"first": values("images_per_second")},
            description="Training images per second over the epochs", y_format=_number,
        ),
    }  # fmt: skip


def _confused_pairs(
    cells: Sequence[tuple[int, int, int]], images: Sequence[int], names: Sequence[str]
) -> list[dict[str, Any]]:
    pairs: list[dict[str, Any]] = [
        {"true": names[true], "predicted": names[predicted], "count": count, "of": images[true]}
        for true, predicted, count in cells
        if true != predicted
    ]
    return sorted(pairs, key=lambda pair: (-pair["count"], -pair["count"] / pair["of"]))[:PAIRS]


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _number(value: float) -> str:
    """Return three significant digits, thousands apart, no exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or not value else f"{value:.1g}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
