"""What `kennel deploy` does when all is deployed: it compares the configuration, calls once, and has logs expire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain, repeat
from types import SimpleNamespace

import pytest
from fake_account import FakeAccount
from fake_stage import FakeStage

from cli.errors import AwsError, WorkFailedError
from cli.operating import verifying
from cli.operating.log_retention import limit_logs
from cli.serving.function_client import Answer
from infra.settings import NotebookSettings

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


TRAININGS, TRANSFORMS = "/aws/sagemaker/TrainingJobs", "/aws/sagemaker/TransformJobs"


def test_every_group_of_sagemaker_expires_from_its_first_line_on():
    aws = FakeAccount()
    aws.add_stack("kennel-dev-inference", EndpointName="dogs")
    aws.log_groups = {TRANSFORMS: [], f"{TRANSFORMS}-of-another": []}
    stage = FakeStage("dev", aws)
    stage.__dict__["settings"] = replace(stage.settings, notebook=NotebookSettings())
    limit_logs(stage, ["storage", "training", "inference"])
    own = {"/aws/sagemaker/NotebookInstances": 90, "/aws/sagemaker/Endpoints/dogs": 30}
    assert aws.retention == {TRAININGS: 90, TRANSFORMS: 30, **own}
    assert aws.retention.keys() <= aws.log_groups.keys()


def test_a_retention_that_somebody_has_decided_stays():
    aws = FakeAccount()
    aws.log_groups, aws.retention = {TRAININGS: []}, {TRAININGS: 3653}
    limit_logs(FakeStage("dev", aws), ["training"])
    assert aws.retention == {TRAININGS: 3653}


@pytest.mark.parametrize("operation", ["create_log_group", "put_retention_policy"])
def test_a_person_who_may_not_decide_is_told_and_the_deployment_stands(operation, capsys):
    aws = FakeAccount()
    aws.refused = {operation}
    limit_logs(FakeStage("dev", aws), ["training"])
    assert f"The log group {TRAININGS} may never expire: not authorized" in capsys.readouterr().out
