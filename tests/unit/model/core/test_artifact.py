"""The model card: what is written is what is read, and every damage has one clear message."""

import json
from pathlib import Path

import pytest
from serving_fixtures import make_artifact, make_card

from model.core.artifact import CARD_FILE, ONNX_FILE, ArtifactError, ModelCard, verify_files


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return make_artifact(tmp_path / "artifact")


def edit_card(artifact: Path, **changes: object) -> None:
    document = json.loads((artifact / CARD_FILE).read_text())
    (artifact / CARD_FILE).write_text(json.dumps(document | changes))


def test_a_saved_card_loads_as_it_was_and_gives_the_same_bytes(artifact: Path) -> None:
    card = make_card(
        artifact / ONNX_FILE, metrics={"accuracy": 0.9}, training_job="job-1", dataset={"counts": {"a": 1}}
    )
    card.save(artifact)
    first = (artifact / CARD_FILE).read_bytes()
    loaded = verify_files(artifact)
    assert loaded == card
    loaded.save(artifact)
    assert (artifact / CARD_FILE).read_bytes() == first
    assert "Grüner Hund" in first.decode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"There is no model\.json"), (b"", "not valid JSON"), (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"), (b"[]", r"holds \[\]; it must be an object"),
        (b'{"format": 2}', "format is 2; this program reads format 1"),
        (b'{"format": 1}', "name is missing; version is missing; architecture is missing"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_card_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / CARD_FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match=message) as caught:
        ModelCard.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


UNUSABLE: dict[str, list[object]] = {
    "name": ["", 7, ["x"] * 100_000],
    "version": ["sha256:" + "g" * 64],
    "labels": ["abc", ["only one"], ["a", "", "b"]],
    "input_size": [0, True, 64.5, 10**9],
    "mean": [[0.5, 0.5], [0.5, 0.5, "x"], [0.5, 0.5, float("nan")]],
    "std": [[0.5, 0.0, 0.5]],
    "temperature": [0, float("inf"), "1.0"],
    "precision": ["fp8", ["fp32"]],
    "metrics": [None],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in UNUSABLE.items() for value in values])
def test_every_unusable_value_is_named(artifact: Path, key: str, value: object) -> None:
    edit_card(artifact, **{"code_revision": 5, key: value})
    with pytest.raises(ArtifactError, match=f"{key} is .*code_revision is 5") as caught:
        ModelCard.load(artifact)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("key", "value"),
    [("labels", ["a", "a", "b"]), ("display_labels", ["a", "b"]), ("resize_size", 1), ("temprature", 2.0)],
)
def test_what_does_not_fit_the_rest_is_named(artifact: Path, key: str, value: object) -> None:
    edit_card(artifact, **{key: value})
    with pytest.raises(ArtifactError, match=key):
        ModelCard.load(artifact)
