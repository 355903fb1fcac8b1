"""The tag of the serving image: what changes it, and what does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from infra.serving_image import SOURCES, image_tag
from infra.settings import ROOT


@pytest.fixture
def context(tmp_path: Path) -> Path:
    for file in SOURCES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "model" / file, tmp_path / file)
    return tmp_path


@pytest.mark.parametrize("file", SOURCES)
def test_another_content_is_another_tag(context: Path, file: str) -> None:
    before = image_tag(context, "x86_64")
    (context / file).write_text((context / file).read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert image_tag(context, "x86_64") != before


def test_what_the_image_does_not_hold_does_not_change_its_tag(context: Path) -> None:
    (context / "serving/server.py").write_text("# another program\n", encoding="utf-8")
    (context / "serving/image/notes.txt").write_text("a note\n", encoding="utf-8")
    assert image_tag(context, "arm64") == image_tag(ROOT / "model", "arm64")


def test_each_instruction_set_has_a_tag_of_its_own(context: Path) -> None:
    arm, intel = image_tag(context, "arm64"), image_tag(context, "x86_64")
    assert arm.removeprefix("arm64-") == intel.removeprefix("x86_64-")
    assert arm != intel
