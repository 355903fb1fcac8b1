"""Fetching a training's report: what is taken out of its archive, what is printed, what is opened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from emulator_fixtures import tar_gz
from fake_s3 import FakeS3
from fake_stage import FakeStage
from report_fixtures import make_metrics
from typer.testing import CliRunner

from cli import main
from cli.errors import NotReadyError
from cli.training.report import fetch_report, figures_table
from model.training.report.report import write_report

LABELS = ("one", "two", "three")


@pytest.fixture
def stage() -> FakeStage:
    return FakeStage(s3=FakeS3())


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """What a training leaves, and a file that is none of a report's."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    metrics = make_metrics(folder, LABELS)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert write_report(folder, metrics, folder)
    (folder / "other.html").write_text("evil")
    return folder


def leave(stage: FakeStage, folder: Path, *, cut: int | None = None) -> None:
    """Put an archive of a folder, cut off at its end, where the training kennel-dev-1 would."""
    archive = tar_gz({path.name: path.read_bytes() for path in folder.iterdir()})
    stage.s3.objects["training/kennel-dev-1/output/output.tar.gz"] = archive[:cut]  # type: ignore[attr-defined]


def test_fetching_again_replaces_the_files_of_the_report_and_no_others(stage, outputs, tmp_path):
    leave(stage, outputs)
    folder = tmp_path / "reports" / "kennel-dev-1"
    folder.mkdir(parents=True)
    for name in ("trials.csv", "report.html", "notes.txt"):
        (folder / name).write_text("of another time")
    assert fetch_report(stage, tmp_path / "reports", job="kennel-dev-1") == folder
    assert {path.name for path in folder.iterdir()} == {"metrics.json", "history.csv", "notes.txt"}
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["kennel-dev-1"]


def test_an_archive_that_is_damaged_leaves_nothing(stage, outputs, tmp_path):
    leave(stage, outputs, cut=-40)
    with pytest.raises(NotReadyError, match="What the training kennel-dev-1 left cannot be read"):
        fetch_report(stage, tmp_path / "reports", job="kennel-dev-1")
    assert list((tmp_path / "reports").iterdir()) == []


def test_no_report_is_said_with_the_next_step(stage, tmp_path):
    with pytest.raises(NotReadyError, match="left no report") as error:
        fetch_report(stage, tmp_path, job="kennel-dev-404")
    assert "kennel train" in error.value.hint


@pytest.mark.parametrize(("options", "desktop"), [([], True), (["--no-open"], True), ([], False)])
def test_the_figures_are_printed_and_the_page_opened_on_a_desktop(outputs, opened, monkeypatch, options, desktop):
    if not desktop:
        monkeypatch.delenv("DISPLAY")
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        monkeypatch.setattr("sys.platform", "linux")
    result = CliRunner().invoke(main.app, ["report", "--from", str(outputs), *options])
    test = json.loads((outputs / "metrics.json").read_text())["test"]
    assert result.exit_code == 0, result.output
    for part in (f"{test['accuracy']:.2%}", f"{test['macro_f1']:.2%}", str(outputs / "report.html")):
        assert part in result.output
    assert opened == ([(outputs / "report.html").as_uri()] if desktop and not options else [])


def test_what_makes_the_figures_doubtful_is_printed(outputs):
    metrics = json.loads((outputs / "metrics.json").read_text()) | {"interrupted": True, "test": None}
    metrics["data_set"]["skipped"] = {"a": "b"}
    table = figures_table(metrics, title="job")
    cells = dict(zip(table.columns[0].cells, table.columns[1].cells, strict=True))
    assert cells["beware"] == "stopped before its end; unreadable files: 1"
    assert "accuracy, validation split" in cells
