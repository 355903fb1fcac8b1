"""The tag of the serving image stands for what the image holds, and for nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from infra.serving_image import SOURCES, image_tag
from infra.settings import ROOT


@pytest.mark.parametrize("file", [*SOURCES, "serving/server.py"])
def test_another_content_of_the_image_and_nothing_else_is_another_tag(tmp_path: Path, file: str) -> None:
    for source in SOURCES:
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "model" / source, tmp_path / source)
    with (tmp_path / file).open("a", encoding="utf-8") as written:
        written.write("\n")
    before, after = image_tag(ROOT / "model", "arm64"), image_tag(tmp_path, "arm64")
    assert before.startswith("arm64-")
    assert (before != after) == (file in SOURCES)
