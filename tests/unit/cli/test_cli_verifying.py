"""What `kennel deploy` checks when all is deployed: the endpoint's configuration, and one call."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, repeat
from types import SimpleNamespace

import pytest
from fake_account import FakeAccount
from fake_stage import FakeStage

from cli.errors import AwsError, WorkFailedError
from cli.operating import verifying
from cli.serving.function_client import Answer

VERSION = "sha256:" + "1" * 64
RIGHT = {"predictions": [{"label": "Pug", "probability": 0.5}], "model": {"name": "m", "version": VERSION}}
OTHER = RIGHT | {"model": {"name": "m", "version": "sha256:old"}}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> FakeAccount:
    monkeypatch.setattr(verifying, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(verifying, "_SETTLING_SECONDS", 0.0)
    aws = FakeAccount()
    aws.add_stack("kennel-dev-inference", EndpointName="Dogs-1", FunctionUrl="https://function/")
    aws.resources["kennel-dev-inference"] = [("AWS::SageMaker::EndpointConfig", "arn:aws:sagemaker:::config/dogs-1")]
    aws.add_endpoint("Dogs-1", "ml.m5.large", 1)
    return aws


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[bytes]]:
    """Let the function answer these, the last one for ever; returns the images that it is sent."""

    def answer_with(*given: Answer | Exception) -> list[bytes]:
        left, sent = chain(given, repeat(given[-1])), list[bytes]()

        def classify_bytes(image: bytes, *, top_k: int) -> Answer:
            sent.append(image)
            if isinstance(answer := next(left), Exception):
                raise answer
            return answer

        monkeypatch.setattr(verifying, "FunctionClient", lambda _: SimpleNamespace(classify_bytes=classify_bytes))
        return sent

    return answer_with


def test_the_function_is_called_until_it_has_settled(aws, answers, capsys, monkeypatch):
    monkeypatch.setattr(verifying, "_SETTLING_SECONDS", 60.0)
    sent = answers(AwsError("no such host"), Answer(403, {}), Answer(503, {}), Answer(200, RIGHT))
    verifying.verify_inference(FakeStage("dev", aws), VERSION)
    assert len(sent) == 4 and sent[0].startswith(b"\x89PNG")
    assert "The function answers with the model sha256:1111" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Answer(424, {"error": {"code": "model_failed", "message": "It failed."}}), r"It failed. \(model_failed, HTTP"),
        (Answer(200, OTHER), "the model sha256:old answers in place"),
        (Answer(503, {"message": "not ready"}), "not ready"),
    ],
)
def test_a_failed_or_wrong_answer_is_an_error(aws, answers, answer, problem):
    answers(answer)
    with pytest.raises(WorkFailedError, match=problem) as raised:
        verifying.verify_inference(FakeStage("dev", aws), VERSION)
    assert "/aws/sagemaker/Endpoints/Dogs-1" in raised.value.hint


def test_a_deployer_who_may_not_call_the_function_is_told(aws, answers, capsys):
    answers(Answer(403, {"Message": "Forbidden"}))
    verifying.verify_inference(FakeStage("dev", aws), VERSION)
    assert "not checked: these credentials may not call the function" in capsys.readouterr().out


def test_an_endpoint_that_was_rolled_back_silently_is_an_error(aws, answers):
    sent = answers(Answer(200, RIGHT))
    aws.resources["kennel-dev-inference"] = [("AWS::SageMaker::EndpointConfig", "arn:aws:sagemaker:::config/dogs-2")]
    with pytest.raises(WorkFailedError, match="still serves Dogs-1 in place of dogs-2"):
        verifying.verify_inference(FakeStage("dev", aws), VERSION)
    assert not sent
