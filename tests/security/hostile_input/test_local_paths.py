"""Names that come from a bucket lead nowhere on this machine but into the folder that they are for."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import tar_gz
from fake_s3 import FakeS3
from fake_stage import FakeStage
from hypothesis import given
from hypothesis import strategies as st

from cli.errors import KennelError
from cli.training.job_names import job_path
from cli.training.report import fetch_report


@pytest.fixture
def stage() -> Any:
    return FakeStage(s3=FakeS3())


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of the operator's, two folders above the reports."""
    path = tmp_path / "victim" / "notes.txt"
    path.parent.mkdir()
    path.write_text("mine")
    return path


def leave(stage: Any, job: str) -> None:
    """Put a report where a training called `job` would."""
    stage.s3.objects[f"training/{job}/output/output.tar.gz"] = tar_gz({"metrics.json": b"{}"})


@given(st.text())
def test_whatever_a_job_is_called_its_path_is_in_the_folder(drawn: str) -> None:
    folder = Path("reports")
    for name in (drawn, "..", ".", "", "a/../../b", "/etc/passwd", "a\0b", "a\n", "C:\\b"):
        with contextlib.suppress(KennelError):
            path = job_path(folder, name, ".svg")
            assert (path.parent, path.name) == (folder, f"{name}.svg")


@pytest.mark.parametrize(
    "job", ["kennel-dev-1/../../victim", "kennel-dev-/../../victim", "../victim", "kennel-dev-1/."]
)
def test_a_report_deletes_and_writes_nothing_elsewhere(stage: Any, tmp_path: Path, victim: Path, job: str) -> None:
    for name in ("kennel-dev-1", "kennel-dev-"):
        (tmp_path / "reports" / name).mkdir(parents=True)
    leave(stage, job)
    with pytest.raises(KennelError, match="is not the name of a job"):
        fetch_report(stage, tmp_path / "reports", job=job)
    assert [path.name for path in victim.parent.iterdir()] == ["notes.txt"]
    assert {path.name for path in tmp_path.iterdir()} == {"reports", "victim"}


def test_links_that_lie_in_the_folder_are_not_followed(stage: Any, tmp_path: Path, victim: Path) -> None:
    reports = tmp_path / "reports"
    (reports / "kennel-dev-2").mkdir(parents=True)
    (reports / "kennel-dev-1").symlink_to(victim.parent)
    (reports / "kennel-dev-2" / "metrics.json").symlink_to(victim)
    leave(stage, "kennel-dev-1")
    with pytest.raises(KennelError, match="is a link"):
        fetch_report(stage, reports, job="kennel-dev-1")
    leave(stage, "kennel-dev-2")
    assert (fetch_report(stage, reports, job="kennel-dev-2") / "metrics.json").read_text() == "{}"
    assert victim.read_text() == "mine"
    assert [path.name for path in victim.parent.iterdir()] == ["notes.txt"]
