"""The page that `kennel report` opens is made here, of figures: nothing that a training wrote runs in a browser."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import tar_gz
from fake_s3 import FakeS3
from fake_stage import FakeStage
from PIL import Image
from report_fixtures import make_metrics
from typer.testing import CliRunner

from cli import main
from model.training.report import report
from model.training.report.report import IMAGE_FILES, render

EVIL = "<script>alert(1)</script>\"'></svg><img src=x onerror=alert(1)>"


@pytest.fixture
def metrics(tmp_path: Path) -> dict[str, Any]:
    return json.loads(json.dumps(make_metrics(tmp_path, ("one", "two"), accuracy=0.3)))


@pytest.fixture
def outputs(tmp_path: Path, metrics: dict[str, Any]) -> Path:
    """What a hostile training leaves: a page of its own, and images that are more than images."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "report.html").write_text(EVIL)
    Image.new("RGB", (64, 64), "red").save(folder / IMAGE_FILES[0])
    with (folder / IMAGE_FILES[0]).open("ab") as file:
        file.write(EVIL.encode())
    (folder / IMAGE_FILES[1]).write_text(f"<svg xmlns='http://www.w3.org/2000/svg'>{EVIL}</svg>")
    (folder / IMAGE_FILES[2]).write_bytes(bytes(2**20 + 1))
    return folder


@pytest.mark.parametrize("fetched", [True, False])
def test_a_page_that_the_training_wrote_is_made_anew(
    outputs: Path, opened: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetched: bool
) -> None:
    stage = FakeStage(s3=FakeS3())
    archive = tar_gz({path.name: path.read_bytes() for path in outputs.iterdir()})
    stage.s3.objects["training/kennel-dev-1/output/output.tar.gz"] = archive
    monkeypatch.setattr(main, "Stage", lambda *_: stage)
    options = ["kennel-dev-1", "--output", str(tmp_path / "reports")] if fetched else ["--from", str(outputs)]
    result = CliRunner().invoke(main.app, ["report", *options])
    assert result.exit_code == 0, result.output
    path = (tmp_path / "reports" / "kennel-dev-1" if fetched else outputs) / "report.html"
    assert opened == [path.as_uri()]
    page = path.read_text()
    assert "alert" not in page
    assert page.count('<img src="data:image/jpeg;base64,') == 1, "the one good image"


def test_nothing_is_fetched_and_no_other_script_may_run(metrics: dict[str, Any]) -> None:
    page = render(metrics, [b"jpeg"])
    addresses = re.findall(r"""(?:src|href|action)=["']([^"']*)""", page)
    assert [one.partition(",")[0] for one in addresses] == ["data:image/jpeg;base64"]
    script = (Path(report.__file__).parent / "templates" / "report.js").read_bytes()
    assert "default-src 'none'" in page
    assert page.count(f"script-src 'sha256-{b64encode(hashlib.sha256(script).digest()).decode()}'") == 1


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a document with each of its keys; of a list, the first."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, one in list(inner):
        yield value, key
        yield from places(one)


def test_whatever_stands_in_the_figures_is_text(metrics: dict[str, Any]) -> None:
    metrics["data_set"] |= {"skipped": {"a": "b"}, "also_in_training": ["c"], "absent_classes": {"test": ["one"]}}
    shown = 0
    for container, key in places(metrics):
        before, container[key] = container[key], EVIL
        try:
            page = render(metrics)
        except Exception:  # of such figures there is no page
            continue
        finally:
            container[key] = before
        shown += "alert(1)" in page
        assert EVIL not in page
        assert page.count("<script") == 1
        assert "<img src=x" not in page
    assert shown > 20  # escaped
