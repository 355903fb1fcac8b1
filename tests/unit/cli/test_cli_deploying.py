"""`kennel deploy`: what runs in which order, and what is asked."""

from __future__ import annotations

import tarfile
from contextlib import nullcontext
from pathlib import Path

import pytest
import typer
from fake_account import FakeAccount, FakeStage
from serving_fixtures import make_artifact

from cli.errors import NotAgreedError, NotReadyError
from cli.operating import deploying
from model.core.artifact import ModelCard

M5 = "ml.m5.large for endpoint usage"


@pytest.fixture
def aws() -> FakeAccount:
    """A bootstrapped account with room for the stage's endpoint."""
    aws = FakeAccount()
    aws.add_stack("CDKToolkit")
    aws.quotas = {M5: 4}
    return aws


@pytest.fixture
def steps(aws: FakeAccount, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `deploy_stacks` has started."""
    steps: list[str] = []
    monkeypatch.setattr(deploying, "run_cdk", lambda command, *_, **__: steps.append(f"cdk {command}"))
    monkeypatch.setattr(deploying, "limit_logs", lambda stage, kinds: steps.append("limit logs"))
    monkeypatch.setattr(deploying, "verify_inference", lambda stage, version: steps.append(f"verify {version}"))
    return steps


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A model.tar.gz."""
    folder = make_artifact(tmp_path / "model")
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        for file in folder.iterdir():
            archive.add(file, file.name)
    return tmp_path / "model.tar.gz"


def test_a_quota_stops_the_deployment_before_bootstrapping(aws: FakeAccount, steps: list[str], artifact: Path) -> None:
    del aws.stacks["CDKToolkit"]
    aws.quotas[M5] = 0
    with pytest.raises(NotReadyError, match=f"quota {M5!r} is 0"):
        deploying.deploy_stacks(FakeStage("dev", aws), ["storage", "inference"], artifact=artifact)
    assert steps == []


def test_an_artifact_that_is_none_stops_it_too(aws: FakeAccount, steps: list[str], tmp_path: Path) -> None:
    (tmp_path / "junk.tar.gz").write_bytes(b"junk")
    with pytest.raises(NotReadyError, match="The model cannot be deployed"):
        deploying.deploy_stacks(FakeStage("dev", aws), ["inference"], artifact=tmp_path / "junk.tar.gz")
    assert steps == []


def test_every_deployment_of_the_endpoint_is_verified(aws: FakeAccount, steps: list[str], artifact: Path) -> None:
    deploying.deploy_stacks(FakeStage("dev", aws), ["inference"], artifact=artifact)
    assert steps == ["cdk deploy", "limit logs", f"verify {ModelCard.load(artifact.parent / 'model').version}"]
    steps.clear()
    deploying.deploy_stacks(FakeStage("dev", aws), ["storage"])
    assert steps == ["cdk deploy", "limit logs"]


@pytest.mark.parametrize("agreed", [True, False])
def test_bootstrapping_says_what_it_makes_and_asks(
    aws: FakeAccount,
    steps: list[str],
    agreed: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    del aws.stacks["CDKToolkit"]

    def confirm(question: str) -> bool:
        assert "account 123456789012, region us-east-1" in question
        printed = capsys.readouterr().out
        assert all(word in printed for word in ("bucket", "roles", "AdministratorAccess", "CDKToolkit"))
        steps.append("asked")
        return agreed

    monkeypatch.setattr(typer, "confirm", confirm)
    with nullcontext() if agreed else pytest.raises(NotAgreedError):
        deploying.deploy_stacks(FakeStage("dev", aws), ["storage"], ask=True)
    assert steps == ["asked", *(["cdk bootstrap", "cdk deploy", "limit logs"] if agreed else [])]
    steps.clear()
    deploying.deploy_stacks(FakeStage("dev", aws), ["storage"])  # kennel deploy --yes, kennel demo
    assert steps == ["cdk bootstrap", "cdk deploy", "limit logs"]
