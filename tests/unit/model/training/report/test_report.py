"""The page that a training leaves behind: its figures, and what it warns of. Hostile names: tests/security."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from report_fixtures import make_metrics
from training_fixtures import fill_disk

from model.training.loop.metrics import Evaluation
from model.training.report.report import HISTORY_FILE, REPORT_FILE, render, thumbnail, write_report

LABELS = ("Disc hound", "Épagneul barré", "plain")
ROOT = Path("data")


def text_of(labels=LABELS, **changes) -> str:
    """Return a page's text, without its style and its script."""
    page = render(make_metrics(ROOT, labels, **changes))
    return re.sub("<[^>]*>", "", re.sub("<(style|script)>.*?</", "</", page, flags=re.DOTALL))


def test_the_figures_are_those_of_the_metrics():
    metrics, text = make_metrics(ROOT, LABELS), text_of()
    test = metrics["test"]
    shares = [test["accuracy"], test["macro_f1"], *test["accuracy_interval"]]
    shares += [one[name] for one in test["per_class"] for name in ("precision", "recall", "f1")]
    shares += [metrics["calibration"]["test"]["after"]["expected_calibration_error"]]
    shares += [mistake["probability"] for mistake in metrics["mistakes"]]
    # The temperature, the best epoch, the data set's fingerprint, the duration.
    expected = [*LABELS, "0.750", "epoch 9 ", "sha256:" + "1" * 64, "1 min 15 s", *(f"{share:.1%}" for share in shares)]
    assert [one for one in expected if one not in text] == []


def test_what_weakens_the_figures_is_said():
    text = text_of(test=None, mistakes=[], best_epoch=1, epochs=make_metrics(ROOT, LABELS)["epochs"][:1])
    assert "Validation accuracy" in text
    assert "every image of the validation split got the right answer" in text
    assert "Nothing was tested: the training was stopped before it" in text
    text = text_of(
        interrupted=True,
        diverged_epoch=10,
        data_set={
            "fingerprint": "", "counts": {"train": 5, "valid": 5, "test": 5},
            "absent_classes": {"test": ["plain"]}, "skipped": {f"train/{i}.jpg": "damaged" for i in range(50)},
            **{kind: [f"test/plain/{kind}.jpg"] for kind in ("also_in_training", "also_in_valid", "in_two_classes")},
            "left_out": {"@eaDir/": "a folder of the system", "a.psd": "no image"}, "held_out": ["test"],
        },
        workers=4,
    )  # fmt: skip
    expected = (
        "4 workers", "diverged in epoch 10: this is the model of epoch 9",
        "stopped after 10 epochs", "50 files could not be read", "and 30 more, in metrics.json",
        "1 image of the other splits found in the training split", "test/plain/also_in_training.jpg",
        "1 image of the test split found in the validation split", "1 image found in another class",
        "2 files or folders left out of the data set", "@eaDir/: a folder of the system", "5, held out of the training",
        "The test split has no images of 1 of 3 classes",
    )  # fmt: skip
    assert [one for one in expected if one not in text] == []
    assert not any(one in text_of() for one in expected)


def test_both_intervals_of_int8_are_shown():
    compared = {
        "valid": {"images": 835}, "training": {"images": 2000}, "agreement": 0.993,
        "agreement_interval": [0.989, 0.996], "accuracy_loss_interval": [-0.0023, 0.0061],
        "fp32_accuracy": 0.8, "int8_accuracy": 0.8, "fp32_loss": 0.5,
        "int8_loss": 0.5, "fp32_ms": 3.0, "int8_ms": 1.0, "kept_fp32": [],
    }  # fmt: skip
    text = text_of(quantization={"reason": "fast", "machine": "one", "comparison": compared})
    expected = ("98.9% to 99.6%", "-0.23 to 0.61", "835 validation images and 2,000 training images")
    assert [one for one in expected if one not in text] == []


def test_of_many_classes_the_page_shows_the_worst():
    def page(classes: int) -> str:
        truth = np.repeat(np.arange(classes), 5)
        guesses = np.where(np.arange(len(truth)) % 3, truth, np.roll(truth, 7))
        measured = Evaluation.of(truth / classes, truth, guesses, classes).recorded()
        return render(make_metrics(ROOT, LABELS) | {"test": measured, "mistakes": [], **named(classes)})

    def named(classes: int) -> dict[str, Any]:
        labels = [f"class {number}" for number in range(classes)]
        return {"labels": labels, "model": {**make_metrics(ROOT, LABELS)["model"], "display_labels": labels}}

    many, more = page(2000), page(6000)
    assert "The 150 classes with the most mistakes, of 2000" in many
    assert "The 500 with the lowest F1; the others are in metrics.json" in many
    assert abs(len(more) - len(many)) < 50_000 < len(many) < 600_000
    assert "most mistakes" not in page(133)


def test_mistakes_are_shown_as_images_as_far_as_they_can_be_read(tmp_path):
    metrics = make_metrics(tmp_path, LABELS, accuracy=0.1)
    metrics["mistakes"][2]["image"] += "\udce9"  # what a file name that is no UTF-8 becomes
    first, second = (tmp_path / mistake["image"] for mistake in metrics["mistakes"][:2])
    for path in (first, second):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (900, 600), "red").save(first)
    second.write_text("no image")
    assert write_report(tmp_path, metrics, tmp_path)
    text = (tmp_path / REPORT_FILE).read_text()
    assert len(re.findall('<img src="data:image/jpeg;base64,', text)) == 1
    shown = (mistake["image"].replace("\udce9", "?") for mistake in metrics["mistakes"])
    assert [name for name in shown if f'<figure title="{name}">' not in text] == []
    assert text.count("no image") == len(metrics["mistakes"]) - 1
    assert len(thumbnail(first) or bytes(20_000)) < 20_000
    with (tmp_path / HISTORY_FILE).open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == metrics["epochs"]


def test_a_report_that_cannot_be_written_is_a_warning_and_leaves_nothing_half_done(tmp_path, caplog, monkeypatch):
    (tmp_path / REPORT_FILE).write_text("the older one")
    fill_disk(monkeypatch)
    assert not write_report(tmp_path, make_metrics(tmp_path, LABELS), tmp_path)
    assert "the report could not be written" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [REPORT_FILE]
    assert (tmp_path / REPORT_FILE).read_text() == "the older one"
