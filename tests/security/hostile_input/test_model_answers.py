"""An artifact may answer anything: no answer breaks a command, or speaks for another image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from batch_fakes import stage_with
from hypothesis import given
from hypothesis import strategies as st

from cli.batch import job as batch_job
from cli.batch.commands import label_images
from cli.batch.job import BatchFolder, BatchOptions
from cli.batch.labels import from_json_lines, label_of_answer, to_json_lines, write_parquet
from cli.errors import WorkFailedError
from cli.serving.classify import describe
from cli.serving.function_client import Answer

MODEL = {"name": "dogs", "version": "sha256:1"}
GOOD: dict[str, Any] = {"predictions": [{"label": "Pug", "probability": 0.5}], "scores": [0.5, 0.5], "model": MODEL}
GOOD |= {"known": False, "ood_score": 1.5}
RECORD = {
    "image": str, "etag": str, "sagemaker_model": str, "label": str, "probability": float, "predictions": list,
    "scores": list, "model": dict, "error": dict, "request_id": str, "known": bool, "ood_score": float,
}  # fmt: skip
DEEP = b'{"predictions":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
#: Any text, halves of characters too.
TEXT = st.text(st.characters(), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.sampled_from([*RECORD]), inner, max_size=4),
    max_leaves=8,
)
#: Answers but for one field or two, which may be one that the record has already.
ALMOST = st.dictionaries(st.sampled_from([*RECORD]), JSON, max_size=2).map(lambda changes: GOOD | changes)
PREDICTIONS = st.lists(st.fixed_dictionaries({"label": JSON, "probability": JSON}), max_size=2)
ANSWERS = st.binary(max_size=30) | (JSON | ALMOST | PREDICTIONS.map(lambda found: GOOD | {"predictions": found})).map(
    lambda document: json.dumps(document).encode()
)


def bad(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes).encode()


#: What is no answer, each for another reason.
BAD = {
    "nested": DEEP,
    "nested-open": b"[" * 200_000,
    "label-half-a-character": bad(predictions=[{"label": "\ud800", "probability": 1}]),
    "label-number": bad(predictions=[{"label": 1, "probability": 1}]),
    "label-long": bad(predictions=[{"label": "x" * 10_000, "probability": 1}]),
    "probability-text": bad(predictions=[{"label": "Pug", "probability": "x"}]),
    "probability-nan": bad(predictions=[{"label": "Pug", "probability": float("nan")}]),
    "probability-large": bad(predictions=[{"label": "Pug", "probability": 10**400}]),
    "probability-true": bad(predictions=[{"label": "Pug", "probability": True}]),
    "no-predictions": bad(predictions=[]),
    "scores-infinite": bad(scores=[float("inf")]),
    "known-number": bad(known=1),
    "ood-score-text": bad(ood_score="0.5"),
    "ood-score-negative": bad(ood_score=-0.5),
    "ood-score-infinite": bad(ood_score=float("inf")),
    "model-text": bad(model="dogs"),
    "error-text": bad(error="x"),
    "error-half-a-character": bad(error={"code": "\udfff", "message": "x"}),
    "too-long": bad(model=MODEL) + b" " * 6 * 2**20,
}


@given(ANSWERS)
def test_any_answer_is_a_record_of_its_own_image_that_can_be_written(answer: bytes) -> None:
    label = label_of_answer("mine.jpg", "e1", "model-1", answer)
    assert (label["image"], label["etag"], label["sagemaker_model"]) == ("mine.jpg", "e1", "model-1")
    assert all(isinstance(value, RECORD[name]) for name, value in label.items())
    assert ("error" in label) != ("predictions" in label)
    assert from_json_lines(to_json_lines({"mine.jpg": label})) == {"mine.jpg": label}


@given(st.integers(100, 599), ANSWERS | st.just(DEEP))
def test_any_answer_of_the_function_is_one_line_for_a_person(status: int, content: bytes) -> None:
    answer = Answer.parse(status, content)
    assert isinstance(describe(answer), str)
    assert not answer.body.keys() & {"image", "status"}  # `kennel classify --json` says these itself
    assert json.dumps(answer.body)
    assert answer.error is not None or answer.body["model"].keys() == MODEL.keys()


def test_any_records_are_a_table(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    answers = [json.dumps(GOOD).encode(), bad(image=1), *BAD.values()]
    write_parquet([label_of_answer(str(n), "e", "m", answer) for n, answer in enumerate(answers)], tmp_path / "x")
    assert parquet.read_table(tmp_path / "x").num_rows == len(answers)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(batch_job, "_POLL_SECONDS", 0.0)
    return stage_with("a.jpg", "b.jpg")


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD.keys())
def test_an_answer_that_is_none_is_named_and_the_batch_goes_on(stage: Any, answer: bytes) -> None:
    folder = BatchFolder(stage, "bucket", "batch/input/dogs/", "batch/output/dogs/")

    def run() -> None:
        label_images(folder, "model-1", BatchOptions(), again=False, parquet=False)

    good = bad(image="b.jpg", etag="e2", sagemaker_model="model-9")
    stage.sagemaker.answer = lambda name: answer if name == "b.jpg" else good
    with pytest.raises(WorkFailedError, match=r"1 answers of the transform job .* are none of a classifier: b\.jpg"):
        run()
    assert not [key for key in stage.s3.objects if "/.jobs/" in key]
    stage.sagemaker.answer = lambda name: good
    run()
    labels = from_json_lines(stage.s3.objects["batch/output/dogs/labels.jsonl"])
    assert {name: label["label"] for name, label in labels.items()} == {"a.jpg": "Pug", "b.jpg": "Pug"}
    assert len(stage.sagemaker.requests) == 2
