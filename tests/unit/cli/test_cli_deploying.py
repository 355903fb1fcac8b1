"""`kennel deploy`: what runs in which order, and what is asked."""

from __future__ import annotations

import tarfile
from contextlib import nullcontext
from pathlib import Path

import pytest
import typer
from fake_account import FakeAccount
from fake_stage import FakeStage
from serving_fixtures import make_artifact

from cli.errors import NotAgreedError, NotReadyError
from cli.operating import deploying
from model.core.artifact import ModelCard


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    steps: list[str] = []
    monkeypatch.setattr(deploying, "run_cdk", lambda command, *_, **__: steps.append(f"cdk {command}"))
    monkeypatch.setattr(deploying, "limit_logs", lambda stage, kinds: steps.append("limit logs"))
    monkeypatch.setattr(deploying, "verify_inference", lambda stage, version: steps.append(f"verify {version}"))
    return steps


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(make_artifact(tmp_path / "model"), ".")
    return tmp_path / "model.tar.gz"


@pytest.mark.parametrize("problem", ["quota", "The model cannot be deployed"])
def test_what_cannot_work_stops_the_deployment_before_bootstrapping(steps, artifact, problem):
    aws = FakeAccount()
    if problem == "quota":
        aws.quotas["ml.m5.large for endpoint usage"] = 0
    else:
        artifact.write_bytes(b"junk")
    with pytest.raises(NotReadyError, match=problem):
        deploying.deploy_stacks(FakeStage("dev", aws), ["storage", "inference"], artifact=artifact)
    assert steps == []


def test_every_deployment_of_the_endpoint_is_verified(steps, artifact):
    aws = FakeAccount()
    aws.add_stack("CDKToolkit")
    deploying.deploy_stacks(FakeStage("dev", aws), ["inference"], artifact=artifact)
    assert steps == ["cdk deploy", "limit logs", f"verify {ModelCard.load(artifact.parent / 'model').version}"]


def test_an_endpoint_that_was_deleted_is_taken_out_of_its_stack_and_made_again(monkeypatch, steps, artifact):
    aws = FakeAccount()
    aws.add_stack("CDKToolkit")
    aws.add_stack("kennel-dev-inference", EndpointName="kennel-dev-instance")
    options: list[tuple[str, ...]] = []
    monkeypatch.setattr(deploying, "run_cdk", lambda *given, **_: options.append(given))
    monkeypatch.setattr(deploying, "note_deployment", lambda stage: None)
    deploying.deploy_stacks(FakeStage("dev", aws), ["inference"], artifact=artifact)
    assert [given[-1] == "endpoint=deleted" for given in options] == [True, False]
    aws.add_endpoint("kennel-dev-instance", "ml.m5.large", 1)
    deploying.deploy_stacks(FakeStage("dev", aws), ["inference"], artifact=artifact)
    assert len(options) == 3


@pytest.mark.parametrize("agreed", [True, False])
def test_bootstrapping_says_what_it_makes_and_asks(steps, agreed, monkeypatch, capsys):
    def confirm(question: str) -> bool:
        assert "account 123456789012, region us-east-1" in question
        printed = capsys.readouterr().out
        assert all(word in printed for word in ("bucket", "roles", "AdministratorAccess", "CDKToolkit"))
        steps.append("asked")
        return agreed

    monkeypatch.setattr(typer, "confirm", confirm)
    with nullcontext() if agreed else pytest.raises(NotAgreedError):
        deploying.deploy_stacks(FakeStage("dev", FakeAccount()), ["storage"], ask=True)
    assert steps == ["asked", *(["cdk bootstrap", "cdk deploy", "limit logs"] if agreed else [])]
