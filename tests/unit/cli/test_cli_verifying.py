"""What `kennel deploy` checks when all is deployed: the endpoint's configuration, and one call."""

from __future__ import annotations

from typing import Any

import pytest
from fake_account import FakeAccount, FakeStage

from cli.errors import AwsError, WorkFailedError
from cli.operating import verifying
from cli.serving.function_client import Answer

VERSION = "sha256:" + "1" * 64
RIGHT = {"predictions": [{"label": "Pug", "probability": 0.5}], "model": {"name": "m", "version": VERSION}}


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> FakeStage:
    """A stage whose endpoint has the stack's configuration."""
    monkeypatch.setattr(verifying, "_PAUSE_SECONDS", 0.0)
    aws = FakeAccount()
    aws.add_stack("kennel-dev-inference", EndpointName="Dogs-1", FunctionUrl="https://function/")
    aws.resources["kennel-dev-inference"] = [("AWS::SageMaker::EndpointConfig", "arn:aws:sagemaker:::config/dogs-1")]
    aws.add_endpoint("Dogs-1", "ml.m5.large", 1)
    return FakeStage("dev", aws)


def answers(monkeypatch: pytest.MonkeyPatch, *given: Answer | Exception) -> list[bytes]:
    """Let the function answer these, the last one for ever; returns the pictures that it is sent."""
    left, sent = list(given), list[bytes]()

    class Function:
        def __init__(self, stage: Any) -> None: ...

        def classify_bytes(self, image: bytes, *, top_k: int) -> Answer:
            sent.append(image)
            answer = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

    monkeypatch.setattr(verifying, "FunctionClient", Function)
    return sent


def test_the_function_is_called_once_with_a_picture(
    deployed: FakeStage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = answers(monkeypatch, Answer(200, RIGHT))
    verifying.verify_inference(deployed, VERSION)
    assert len(sent) == 1 and sent[0].startswith(b"\x89PNG")
    assert "The function answers with the model sha256:1111" in capsys.readouterr().out


def test_what_settles_by_itself_is_waited_for(deployed: FakeStage, monkeypatch: pytest.MonkeyPatch) -> None:
    settling: list[Answer | Exception] = [Answer(status, {}) for status in (403, 429, 502, 503)]
    sent = answers(monkeypatch, AwsError("no such host"), *settling, Answer(200, RIGHT))
    verifying.verify_inference(deployed, VERSION)
    assert len(sent) == 6


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (
            Answer(424, {"error": {"code": "model_failed", "message": "It failed."}}),
            r"It failed. \(model_failed, HTTP 424",
        ),
        (Answer(200, {"message": "hello"}), r"hello \(HTTP 200\)"),
        (
            Answer(200, RIGHT | {"model": {"version": "sha256:old"}}),
            "the model sha256:old answers in place",
        ),
    ],
)
def test_a_failed_or_wrong_answer_is_an_error(
    deployed: FakeStage, answer: Answer, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, answer)
    with pytest.raises(WorkFailedError, match=problem) as raised:
        verifying.verify_inference(deployed, VERSION)
    assert "/aws/sagemaker/Endpoints/Dogs-1" in raised.value.hint


@pytest.mark.parametrize("answer", [Answer(503, {"message": "not ready"}), AwsError("cannot be reached")])
def test_waiting_for_an_answer_has_an_end(
    deployed: FakeStage, answer: Answer | AwsError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "_SETTLING_SECONDS", 0.0)
    answers(monkeypatch, answer)
    with pytest.raises((WorkFailedError, AwsError), match=r"not ready|cannot be reached"):
        verifying.verify_inference(deployed, VERSION)


def test_who_may_not_call_the_function_has_the_endpoint_called(
    deployed: FakeStage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verifying, "_SETTLING_SECONDS", 0.0)
    answers(monkeypatch, Answer(403, {"Message": "Forbidden"}))
    aws: Any = deployed.client("sagemaker-runtime")
    aws.answer = RIGHT
    verifying.verify_inference(deployed, VERSION)
    assert "The endpoint answers with the model" in capsys.readouterr().out
    aws.answer = RIGHT | {"model": {"name": "m", "version": "sha256:old"}}
    with pytest.raises(WorkFailedError, match="the endpoint does not answer as it should: the model sha256:old"):
        verifying.verify_inference(deployed, VERSION)


def test_an_endpoint_that_was_rolled_back_silently_is_an_error(
    deployed: FakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = answers(monkeypatch, Answer(200, RIGHT))
    aws: Any = deployed.client("cloudformation")
    aws.resources["kennel-dev-inference"] = [("AWS::SageMaker::EndpointConfig", "arn:aws:sagemaker:::config/dogs-2")]
    with pytest.raises(WorkFailedError, match="still serves Dogs-1 in place of dogs-2"):
        verifying.verify_inference(deployed, VERSION)
    assert not sent
