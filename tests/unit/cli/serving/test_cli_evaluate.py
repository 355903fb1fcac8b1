"""Calling the function: whatever comes back is an answer; `kennel evaluate`: what it measures, leaves out, refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lambda_fakes import fake_server, raw, reply
from page_server import client_of
from training_fixtures import LABELS, write_data_set

from cli.console import console
from cli.errors import AwsError, KennelError, NotReadyError, WorkFailedError
from cli.serving import classify
from cli.serving.function_client import BUSY, Answer, FunctionClient

TOO_LARGE = Answer(413, {"message": "Request Entity Too Large"})
NO_IMAGE = Answer(415, {"error": {"code": "unsupported_image", "message": "It is none."}})
TOO_MANY_PIXELS = Answer(413, {"error": {"code": "image_too_large", "message": "At most 50,331,648 pixels."}})
FAILED = Answer(424, {"error": {"code": "model_failed", "message": "The model failed on this image."}})


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A deployed model of all classes that is sure of the first one; `answers` has other answers, by the image."""
    model = {"name": "dogs", "version": "1"}
    scores = [1.0, 0.0, 0.0]
    right = Answer(200, {"predictions": [{"label": LABELS[0], "probability": 1.0}], "model": model, "scores": scores})
    stage = SimpleNamespace(artifact=tmp_path, answers={}, asked=[], right=right, labels=list(LABELS))

    def ask(content: bytes, **_: Any) -> Answer:
        stage.asked.append(content)
        return stage.answers.get(content, stage.right)

    def load(artifact: Path) -> Any:
        card = SimpleNamespace(labels=stage.labels, version="1")
        return SimpleNamespace(card=card, predict=lambda _: SimpleNamespace(scores=scores))

    monkeypatch.setattr(classify, "FunctionClient", lambda *_, **__: SimpleNamespace(classify_bytes=ask))
    monkeypatch.setattr(classify, "load_predictor", load)
    return stage


@pytest.fixture
def dogs(tmp_path: Path) -> Path:
    return write_data_set(tmp_path / "dogs", train=1, valid=1, test=2)


def evaluate(stage: Any, folder: Path, capsys: pytest.CaptureFixture) -> tuple[dict[str, Any], KennelError | None]:
    """Run the command; return its figures, and how it ends."""
    error = None
    try:
        console.stderr = True  # as --json has it
        classify.evaluate(SimpleNamespace(obj=stage), folder)  # type: ignore[arg-type]
    except KennelError as raised:
        error = raised
    finally:
        console.stderr = False
    return json.loads(capsys.readouterr().out), error


@pytest.mark.parametrize("scores", [{}, {"scores": [1.0]}], ids=["none", "too few"])
def test_an_answer_without_a_score_for_each_breed_is_an_error(stage, dogs, scores):
    del stage.right.body["scores"]
    stage.right.body.update(scores)
    with pytest.raises(WorkFailedError, match="answers have no score for each breed"):
        classify.evaluate_deployment(stage, dogs)


def test_a_class_that_the_model_lacks_is_named_before_anything_is_sent(stage, dogs):
    stage.labels = ["Pug", *LABELS[1:]]
    with pytest.raises(NotReadyError, match=f"has classes that the model lacks: '{LABELS[0]}'"):
        classify.evaluate_deployment(stage, dogs)
    assert stage.asked == []


@pytest.mark.parametrize(
    ("answer", "kind", "said", "exit_code"),
    [
        (TOO_LARGE, "left_out", "(HTTP 413, about 4.5 MB are allowed, and kennel data shrink", None),
        (TOO_MANY_PIXELS, "left_out", "pixels. (image_too_large, HTTP 413)", None),
        (NO_IMAGE, "left_out", "It is none.", None),
        (None, "left_out", "cannot be read: Is a directory", None),
        (FAILED, "unanswered", "The model failed on this image.", 5),
    ],
)
def test_one_image_does_not_lose_the_others_and_is_named(
    stage, dogs, monkeypatch, capsys, answer, kind, said, exit_code
):
    odd = dogs / "test" / LABELS[1] / "000.png"
    if answer is None:
        read = Path.read_bytes
        monkeypatch.setattr(Path, "read_bytes", lambda path: read(path.parent if path == odd else path))
    else:
        stage.answers[odd.read_bytes()] = answer
    figures, error = evaluate(stage, dogs, capsys)
    assert (figures["test_images"], figures["accuracy_online"]) == (5, 0.4)
    assert list(figures[kind]) == [str(odd)] and said in figures[kind][str(odd)]
    assert figures["left_out" if kind == "unanswered" else "unanswered"] == {}
    assert (error and error.exit_code) == exit_code


@pytest.mark.parametrize("suffix", [".png", ".xcf"], ids=["refused", "not sent"])
def test_a_class_of_which_no_image_is_left_is_named_and_changes_the_exit_code(stage, dogs, capsys, suffix):
    for path in (dogs / "test" / LABELS[2]).iterdir():
        stage.answers[path.read_bytes()] = TOO_LARGE
        path.rename(path.with_suffix(suffix))
    (dogs / "test" / "notes.txt").touch()
    figures, error = evaluate(stage, dogs, capsys)
    assert (figures["test_images"], len(figures["left_out"]), figures["lost_classes"]) == (4, 3, [LABELS[2]])
    assert isinstance(error, NotReadyError) and repr(LABELS[2]) in str(error)


def test_nothing_to_measure_is_an_error(stage, dogs, tmp_path):
    for stage.right, kind in ((NO_IMAGE, NotReadyError), (FAILED, WorkFailedError)):
        with pytest.raises(kind, match=rf"None of 6 images could be classified; .*{stage.right.error[:8]}"):
            classify.evaluate_deployment(stage, dogs)
    with pytest.raises(NotReadyError, match="has no images in test/"):
        classify.evaluate_deployment(stage, write_data_set(tmp_path / "cats", train=1, valid=1, test=0))


@pytest.mark.parametrize(("size", "said"), [(0, "is empty"), (6_000_000, "6,000,000 bytes")])
def test_what_aws_would_cut_off_and_what_is_empty_is_not_sent_and_the_image_s_fault(size, said):
    client: Any = SimpleNamespace()
    answer = FunctionClient.classify_bytes(client, bytes(size))
    assert said in str(answer.error) and answer.status in (413, 415)


def test_the_table_names_images_whole(stage, dogs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    odd = (dogs / "test" / LABELS[1] / "000.png").rename(dogs / "test" / LABELS[1] / f"{'long' * 50}.png")
    stage.answers[odd.read_bytes()] = NO_IMAGE
    classify.evaluate(SimpleNamespace(obj=stage), dogs)  # type: ignore[arg-type]
    assert odd.name in "".join(capsys.readouterr().out.split())


def test_a_connection_that_breaks_is_tried_once_more() -> None:
    with fake_server(raw(), reply()) as function:
        assert client_of(function.port).classify_bytes(b"x").error is None
    with fake_server(raw()) as function, pytest.raises(AwsError, match=rf"http://127\.0\.0\.1:{function.port}/ cannot"):
        client_of(function.port).classify_bytes(b"x")
    assert len(function.requests) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_too_much_or_nobody_to_answer_is_tried_again_when_told_to_and_not_for_ever(monkeypatch, status) -> None:
    waited, said = list[float](), list[str]()
    monkeypatch.setattr("urllib3.util.retry.time.sleep", waited.append)
    later = reply(status, {"error": {"code": "c", "message": "later"}}, headers={"Retry-After": "10"})
    with fake_server(later, reply()) as function:
        assert client_of(function.port, say=said.append).classify_bytes(b"x").error is None
    with fake_server(later) as function:
        answer = client_of(function.port).classify_bytes(b"x")
        assert (answer.error, answer.retry_after) == (f"later (c, HTTP {status})", 10)
        assert client_of(function.port, pauses=()).classify_bytes(b"x") and len(function.requests) == 4 + 1
    assert waited == [10] * (1 + 3)
    assert said == [f"{BUSY[status]}. Next try in 10 s."]
    with fake_server(reply(status, {"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded"})) as function:
        assert client_of(function.port).classify_bytes(b"x").status == status
    assert waited[4:] == [2, 4]  # Lambda's own refusal
