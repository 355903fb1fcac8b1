"""`kennel drift`: what is no drift, what is, and of which figure; captures that are none."""

from __future__ import annotations

import base64
import json
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_s3 import FakeS3
from fake_stage import FakeStage
from PIL import Image, ImageEnhance, ImageFilter
from serving_fixtures import encode

from cli.console import console
from cli.drift import captures, command
from cli.drift.command import read_reference
from cli.drift.comparison import compare
from cli.errors import NotReadyError, UnhealthyError
from infra.tables.alarms import DriftSettings
from model.training.artifact.reference import look

NOW, RANDOM = datetime.now(UTC), np.random.default_rng(7)
PLACE = f"captured/kennel-dev-instance/main/{NOW:%Y/%m/%d/%H}/00.jsonl"


def darker(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def picture(change: Any = lambda image: image) -> bytes:
    size = tuple(RANDOM.integers(56, 72, 2).tolist())
    coarse, grain = (
        Image.fromarray(RANDOM.integers(0, 255, (side, side, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        for side in (8, 64)
    )
    mixed = Image.blend(coarse, grain, RANDOM.uniform(0.1, 0.4))
    return encode(change(darker(mixed, RANDOM.uniform(0.6, 1))), "JPEG", quality=95)


def answer(label: str = "", **more: Any) -> dict[str, Any]:
    first = {"label": label or str(RANDOM.choice(["pug", "beagle", "collie"])), "probability": RANDOM.beta(5, 2)}
    return {"predictions": [first], "model": {"name": "dogs", "version": "v1"}, **more}


def line(image: bytes, answered: dict[str, Any], hours_ago: float = 0) -> bytes:
    sides = {"Input": (image, "application/x-image; top_k=1"), "Output": (json.dumps(answered).encode(), "")}
    record = {
        f"endpoint{side}": {"data": base64.b64encode(data).decode(), "encoding": "BASE64", "observedContentType": kind}
        for side, (data, kind) in sides.items()
    }
    metadata = {"inferenceTime": (NOW - timedelta(hours=hours_ago)).isoformat()}
    return json.dumps({"captureData": record, "eventMetadata": metadata}).encode() + b"\n"


ORDINARY = [look(picture(), answer(known=True)) for _ in range(400)]


def stage_with(content: bytes) -> FakeStage:
    s3 = FakeS3()
    s3.objects[PLACE] = content
    sent: list[dict[str, Any]] = []
    return FakeStage(s3=s3, sent=sent, cloudwatch=SimpleNamespace(put_metric_data=lambda **given: sent.append(given)))


def read(content: bytes) -> captures.Captures:
    return captures.Captures(stage_with(content), NOW - timedelta(hours=1), "v1", lambda images: None)


def test_of_200_samples_of_the_same_images_at_most_one_in_a_hundred_has_drift():
    halves = [np.split(RANDOM.permutation(np.array(ORDINARY)), 2) for _ in range(200)]
    found = [compare(*both) for both in halves]
    assert {len(figures) for figures in found} == {9}
    assert sum(any(each["p"] < 0.01 for each in figures) for figures in found) <= 2  # fewer have a large effect


@pytest.mark.parametrize(
    ("figures", "change", "answered"),
    [
        ({"brightness"}, lambda image: darker(image, 0.6), answer),
        ({"sharpness", "contrast"}, lambda image: image.filter(ImageFilter.GaussianBlur(1)), answer),
        ({"aspect", "sharpness"}, lambda image: image.resize((image.width * 5 // 4, image.height * 4 // 5)), answer),
        ({"blank", "brightness", "contrast", "sharpness"}, lambda image: image.point(lambda grey: grey // 128), answer),
        ({"predicted"}, lambda image: image, lambda: answer("pug" if RANDOM.random() < 0.8 else "")),
        ({"unknown"}, lambda image: image, lambda: answer(known=RANDOM.random() > 0.3)),
    ],
)
def test_a_shift_is_found_by_its_own_figure(figures, change, answered):
    now = [look(picture(change), answered()) for _ in range(150)]
    drifted = {each["figure"] for each in compare(ORDINARY, now) if each["drifted"]}
    assert drifted == figures


def test_of_a_hundred_thousand_images_a_small_difference_is_significant_and_no_drift():
    samples = [[{"predicted": "pug", "confidence": one} for one in RANDOM.normal(by, 1, 10**5)] for by in (0, 0.05)]
    found, _ = compare(*samples)
    assert found["p"] < 1e-6 and not found["drifted"]


def test_what_is_no_capture_is_skipped_counted_and_named():
    bomb = encode(Image.new("1", (20_000, 20_000)))
    good = line(picture(), answer())
    foreign = [b"{}\n", b"[" * 10**5 + b"\n", b"\xff\n", b'{"captureData": 1, "eventMetadata": {"inferenceTime": 2}}\n']
    other = line(picture(), answer(model={"name": "dogs", "version": "v0"}))
    bad, early = line(bomb, answer()), line(picture(), answer(), hours_ago=2)
    found = read(b"".join([good, *foreign, other, bad, early, good[:900]]))
    assert (found.images, len(found.rows)) == (1, 1)
    names = "no whole capture of an image and its answer", "of another model", "with an image that cannot be decoded"
    assert found.skipped == dict(zip(names, (5, 1, 1), strict=True))
    assert found.examples[names[0]] == f"s3://bucket/{PLACE} line 2"


@pytest.mark.parametrize("wrong", [{"size": "x"}, {"predicted": 5.0}, {"size": 1e308}, {"aspect": -1}, {"blank": None}])
def test_the_figures_of_an_artifact_are_those_that_are_compared(wrong):
    rows = [ORDINARY[0], {name: value for name, value in ORDINARY[1].items() if name != "unknown"}]
    read = command._Metrics.model_validate_json(json.dumps({"reference": rows})).model_dump(exclude_none=True)
    assert read["reference"] == rows
    with pytest.raises(ValueError, match=f"reference.1.{next(iter(wrong))}"):
        command._Metrics.model_validate_json(json.dumps({"reference": [ORDINARY[0], ORDINARY[1] | wrong]}))


@pytest.mark.slow
def test_of_100_000_captures_a_fair_sample_is_read_in_little_memory(monkeypatch):
    monkeypatch.setattr(captures, "SAMPLE", 200)
    both = [line(picture(), answer(label)) for label in ("early", "late")]
    content = both[0] * 50_000 + both[1] * 50_000
    tracemalloc.start()
    found = read(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.images, len(found.rows)) == (100_000, 200)
    assert 60 < sum(row["predicted"] == "early" for row in found.rows) < 140
    assert peak < 10 * 2**20 < len(content)


def test_the_command_reports_publishes_and_shows_no_image(monkeypatch, tmp_path, capsys):
    dark = [picture(lambda image: darker(image, 0.4)) for _ in range(120)]
    stage = stage_with(b"".join(line(image, answer("<script>" if n % 2 else "pug")) for n, image in enumerate(dark)))
    stage.__dict__["settings"] = replace(stage.settings, drift=DriftSettings(ignore=("predicted",)))
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(command, "read_reference", lambda artifact: (ORDINARY, "v1"))
    monkeypatch.setattr(console, "stderr", True)  # as --json does
    with pytest.raises(UnhealthyError, match="Drift: brightness"):
        command.drift(SimpleNamespace(obj=stage), publish=True, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert {each["figure"] for each in printed["figures"] if each["drifted"]} == {"brightness", "predicted"}
    assert [period["images"] for period in printed["periods"]] == [120]
    assert (stage.sent[0]["Namespace"], stage.sent[0]["MetricData"][0]["Value"]) == ("Kennel", 1)
    page = (tmp_path / "build/drift/dev.html").read_text()
    assert "Brightness: drift" in page and "<script" not in page and "<img" not in page and "data:" not in page
    with pytest.raises(NotReadyError, match="0 images of the last 7d"):
        command.drift(SimpleNamespace(obj=stage_with(b"")))
    with pytest.raises(NotReadyError, match="No model to compare with: There is no model artifact at") as raised:
        read_reference(tmp_path / "model.tar.gz")
    assert "have to be captured" in raised.value.hint
