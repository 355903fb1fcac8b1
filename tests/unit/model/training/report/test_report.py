"""The page that a training leaves behind: its figures, what it warns of, and whatever names the classes have."""

from __future__ import annotations

import csv
import hashlib
import re
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from report_fixtures import make_answers, make_metrics

from model.training import whole_files
from model.training.report import report
from model.training.report.report import HISTORY_FILE, REPORT_FILE, render, thumbnail, write_report

LABELS = ("Disc hound", "Épagneul barré", "plain")
ROOT = Path("data")


class Page(HTMLParser):
    """A page as a browser takes it apart: its elements, their texts, and whether all that was opened was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attributes)
        if tag not in ("meta", "img", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(labels=LABELS, thumbnails=(), **changes) -> Page:
    answers = make_answers(ROOT, labels)
    return Page(render(make_metrics(answers, labels, ROOT, **changes), thumbnails))


def test_the_figures_are_those_of_the_metrics():
    metrics = make_metrics(make_answers(ROOT, LABELS), LABELS, ROOT)
    text = Page(render(metrics)).text
    test = metrics["test"]
    for share in (test["accuracy"], test["macro_f1"], *test["accuracy_interval"]):
        assert f"{share:.1%}" in text
    for label, one in zip(LABELS, test["per_class"], strict=True):
        assert label in text
        assert all(f"{one[name]:.1%}" in text for name in ("precision", "recall", "f1"))
    assert f"{metrics['calibration']['test']['after']['expected_calibration_error']:.1%}" in text
    assert "0.750" in text  # the temperature
    assert "epoch 9 " in text
    assert "sha256:" + "1" * 64 in text
    assert "1 min 15 s" in text
    for mistake in metrics["mistakes"]:
        assert f"{mistake['probability']:.1%}" in text


def test_nothing_is_fetched_and_no_other_script_may_run():
    page = page_of(thumbnails=[b"jpeg"])
    assert not page.all("link")
    assert all("src" not in attributes for attributes in page.all("script"))
    assert all((attributes["src"] or "").startswith("data:image/jpeg;base64,") for attributes in page.all("img"))
    policy = next(one["content"] for one in page.all("meta") if "http-equiv" in one)
    script = (Path(report.__file__).parent / "templates" / "report.js").read_bytes()
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{b64encode(hashlib.sha256(script).digest()).decode()}'" in policy


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "\" onload=alert(1) x='",
        "</title></svg></style><img src=x onerror=alert(1)>",
        "{{ 7 * 7 }}{% raw %}",
        "&lt;b&gt; & friends",
        "犬 🐕 \u202e",
        "{0} {x} %s",
        # What a file name that is no UTF-8 becomes; it cannot be a part of a test's name, which is sent as UTF-8.
        pytest.param("\udce9t\udce9", id="no UTF-8"),
    ],
)
def test_names_are_text_and_nothing_else(hostile, tmp_path):
    def written(name: str) -> Page:
        labels = (name, "plain")
        # A picture's place is not made of the name: a slash in it would be another folder.
        answers = make_answers(tmp_path, ("first", "plain"), accuracy=0.3)
        changes = {
            "data_set": {
                "fingerprint": name, "counts": {"train": 1, "test": 1}, "absent_classes": {"valid": [name]},
                "skipped": {name: name}, "also_in_training": [name],
            },
            "arguments": {"precision": "fp32", "model_name": name},
            "environment": {
                "instance_type": name, "cpu": name, "vcpus": 1, "memory_gb": 1, "gpus": [name],
                "system": name, "versions": {name: name},
            },
        }  # fmt: skip
        metrics = make_metrics(answers, labels, tmp_path, **changes)
        for mistake in metrics["mistakes"]:
            mistake["picture"] += name
        assert write_report(tmp_path, metrics, tmp_path)
        return Page((tmp_path / REPORT_FILE).read_text(encoding="utf-8"))

    def structure(page: Page) -> list[tuple[str, list[str]]]:
        return [(tag, sorted(attributes)) for tag, attributes in page.elements]

    page = written(hostile)
    assert page.text.count(hostile.encode(errors="replace").decode()) > 10
    # The very same elements with the very same attributes as for a harmless name.
    assert structure(page) == structure(written("harmless"))


def test_without_a_test_the_validation_split_is_shown_and_the_reader_warned():
    page = page_of(test=None)
    assert "Validation accuracy" in page.text
    assert "Nothing was tested: the training was stopped before it" in page.text
    counts = {"fingerprint": "", "counts": {"train": 5, "valid": 5}, "absent_classes": {}, "skipped": {},
              "also_in_training": []}  # fmt: skip
    assert "the data set has no test split" in page_of(test=None, data_set=counts).text


def test_what_weakens_the_figures_is_said():
    text = page_of(
        interrupted=True,
        data_set={
            "fingerprint": "", "counts": {"train": 5, "valid": 5, "test": 5},
            "absent_classes": {"test": ["plain"]}, "skipped": {f"train/{i}.jpg": "damaged" for i in range(50)},
            "also_in_training": ["test/plain/copy.jpg"],
        },
        workers=4, efficiency=0.876,
    ).text  # fmt: skip
    assert "4 workers" in text
    assert "87.6%" in text
    assert "stopped after 10 epochs" in text
    assert "50 files could not be read" in text
    assert "and 30 more, in metrics.json" in text
    assert "1 picture of the other splits found in the training split" in text
    assert "test/plain/copy.jpg" in text
    assert "The test split has no pictures of 1 of 3 classes" in text
    assert "warnings" not in {attributes.get("class") for _, attributes in page_of().elements}


def test_no_mistakes_one_epoch_and_an_absent_class_are_no_trouble():
    labels = ("one", "two", "never seen")
    answers = make_answers(ROOT, labels[:2], accuracy=1.0)
    wider = make_metrics(make_answers(ROOT, labels, accuracy=1.0), labels, ROOT)
    epoch = wider["epochs"][:1]
    measured = {
        **make_metrics(answers, labels[:2], ROOT)["test"],
        "confusion_matrix": [[6, 0, 0], [0, 6, 0], [0, 0, 0]],
        "per_class": [*wider["test"]["per_class"][:2], {"pictures": 0, "precision": None, "recall": None, "f1": None}],
    }
    metrics = {**wider, "test": measured, "mistakes": [], "epochs": epoch, "best_epoch": 1}
    text = Page(render(metrics)).text
    assert "every picture of the test split got the right answer" in text
    assert "never seen" in text


def test_hundreds_of_classes_stay_a_small_page():
    labels = [f"class {index}" for index in range(400)]
    text = render(make_metrics(make_answers(ROOT, labels), labels, ROOT))
    assert len(text.encode()) < 1_500_000


def test_mistakes_are_shown_as_pictures_as_far_as_they_can_be_read(tmp_path):
    metrics = make_metrics(make_answers(tmp_path, LABELS, accuracy=0.1), LABELS, tmp_path)
    first, second = (tmp_path / mistake["picture"] for mistake in metrics["mistakes"][:2])
    first.parent.mkdir(parents=True)
    second.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (900, 600), "red").save(first)
    second.write_text("no picture")
    assert write_report(tmp_path, metrics, tmp_path)
    text = (tmp_path / REPORT_FILE).read_text()
    assert len(re.findall('<img src="data:image/jpeg;base64,', text)) == 1
    assert text.count("no picture") == len(metrics["mistakes"]) - 1
    assert len(thumbnail(first) or bytes(20_000)) < 20_000
    with (tmp_path / HISTORY_FILE).open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == metrics["epochs"]


def test_a_report_that_cannot_be_written_is_a_warning_and_leaves_nothing_half_done(tmp_path, caplog, monkeypatch):
    metrics = make_metrics(make_answers(tmp_path, LABELS), LABELS, tmp_path)
    (tmp_path / REPORT_FILE).write_text("the older one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole_files.os, "fsync", full)
    assert not write_report(tmp_path, metrics, tmp_path)
    assert "the report could not be written" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [REPORT_FILE]
    assert (tmp_path / REPORT_FILE).read_text() == "the older one"
    assert not write_report(tmp_path, {}, tmp_path)  # metrics of another shape
    assert "KeyError" in caplog.text
