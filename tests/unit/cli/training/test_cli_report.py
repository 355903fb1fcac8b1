"""Fetching a training's report: which one, what is taken out of its archive, what is printed, what is opened."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from fake_s3 import FakeS3
from fake_stage import FakeStage
from report_fixtures import make_answers, make_metrics
from typer.testing import CliRunner

from cli import main
from cli.errors import NotReadyError
from cli.training import report as command
from cli.training.report import fetch_report, figures_table, read_metrics
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
    metrics = make_metrics(make_answers(folder, LABELS), LABELS, folder)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert write_report(folder, metrics, folder)
    (folder / "other.html").write_text("evil")
    return folder


def archive(folder: Path, *members: tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        tar.add(folder, ".")
        for member in members:
            tar.addfile(member)
    return file.getvalue()


def leave(stage: FakeStage, job: str, body: bytes) -> None:
    stage.s3.objects[f"training/{job}/output/output.tar.gz"] = body  # type: ignore[attr-defined]


def test_the_newest_of_the_stage_is_fetched_whatever_ran_it(stage, outputs, tmp_path):
    for job in ("kennel-dev-2", "kennel-dev-1-ec2", "kennel-prod-3"):  # in the order of time
        leave(stage, job, archive(outputs))
    stage.s3.objects["training/kennel-dev-9/output/model.tar.gz"] = b""  # not yet any report
    folder = fetch_report(stage, tmp_path / "reports")
    assert folder == tmp_path / "reports" / "kennel-dev-1-ec2"
    assert {path.name for path in folder.iterdir()} == {"metrics.json", "history.csv"}
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["kennel-dev-1-ec2"]


def test_fetching_again_replaces_what_was_there(stage, outputs, tmp_path):
    leave(stage, "kennel-dev-1", archive(outputs))
    (tmp_path / "kennel-dev-1").mkdir()
    for name in ("trials.csv", "report.html", "notes.txt"):
        (tmp_path / "kennel-dev-1" / name).write_text("of another time")
    left = {path.name for path in fetch_report(stage, tmp_path).iterdir()}
    assert left == {"metrics.json", "history.csv", "notes.txt"}  # the operator's own file stays


@pytest.mark.parametrize(("name", "link"), [("data/../../escaped", ""), ("trials.csv", "/etc/passwd"), (None, "")])
def test_an_archive_that_reaches_out_or_is_damaged_leaves_nothing(stage, outputs, tmp_path, name, link):
    body = archive(outputs)[:-40]
    if name:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = tarfile.SYMTYPE if link else tarfile.REGTYPE, link
        body = archive(outputs, member)
    leave(stage, "kennel-dev-1", body)
    with pytest.raises(NotReadyError, match="What the training kennel-dev-1 left cannot be read"):
        fetch_report(stage, tmp_path / "reports")
    assert list((tmp_path / "reports").iterdir()) == []
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("job", [None, "kennel-dev-404"])
def test_no_report_is_said_with_the_next_step(stage, tmp_path, job):
    with pytest.raises(NotReadyError, match=r"left (a|no) report") as error:
        fetch_report(stage, tmp_path, job=job)
    assert "kennel train" in error.value.hint


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_metrics_that_are_none_are_refused(tmp_path, text):
    (tmp_path / "metrics.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(NotReadyError, match=r"metrics\.json"):
        read_metrics(tmp_path)


def test_the_command_prints_the_figures_and_opens_the_page(outputs, opened):
    result = CliRunner().invoke(main.app, ["report", "--from", str(outputs)])
    test = json.loads((outputs / "metrics.json").read_text())["test"]
    assert result.exit_code == 0, result.output
    for part in (f"{test['accuracy']:.2%}", f"{test['macro_f1']:.2%}", str(outputs / "report.html")):
        assert part in result.output
    assert opened == [(outputs / "report.html").as_uri()]


@pytest.mark.parametrize("options", [["--no-open"], []])
def test_no_browser_is_asked_for_without_a_desktop_or_when_unwanted(outputs, opened, monkeypatch, options):
    if not options:
        monkeypatch.delenv("DISPLAY")
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        monkeypatch.setattr(command.sys, "platform", "linux")
    assert CliRunner().invoke(main.app, ["report", "--from", str(outputs), *options]).exit_code == 0
    assert opened == []


def test_what_makes_the_figures_doubtful_is_printed(outputs):
    metrics = json.loads((outputs / "metrics.json").read_text()) | {"interrupted": True, "test": None}
    metrics["data_set"]["skipped"] = {"a": "b"}
    table = figures_table(metrics, title="job")
    cells = dict(zip(table.columns[0].cells, table.columns[1].cells, strict=True))
    assert cells["beware"] == "stopped before its end; unreadable files: 1"
    assert "accuracy, validation split" in cells
