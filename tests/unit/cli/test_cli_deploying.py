"""`kennel deploy`: what runs in which order, what is asked, and the quotas that it looks at before anything starts."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import typer
from fake_account import FakeAccount
from fake_stage import FakeStage
from serving_fixtures import make_artifact

from cli.errors import NotAgreedError, NotReadyError
from cli.operating import deploying
from cli.operating.preflight import require_room
from cli.serving import container_image
from infra.tables.function import ConcurrencyScalingSettings
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
    def confirm(question: str, *, err: bool) -> bool:
        assert "account 123456789012, region us-east-1" in question
        printed = capsys.readouterr().out
        assert all(word in printed for word in ("bucket", "roles", "AdministratorAccess", "CDKToolkit"))
        steps.append("asked")
        return agreed

    monkeypatch.setattr(typer, "confirm", confirm)
    with nullcontext() if agreed else pytest.raises(NotAgreedError):
        deploying.deploy_stacks(FakeStage("dev", FakeAccount()), ["storage"], ask=True)
    assert steps == ["asked", *(["cdk bootstrap", "cdk deploy", "limit logs"] if agreed else [])]


ENDPOINTS = "Number of instances across active endpoints"
M5 = "ml.m5.large for endpoint usage"
ARM_BUILDS = "Concurrently running builds for ARM/Small environment"
LINUX_BUILDS = "Concurrently running builds for Linux/Small environment"

Change = Callable[[FakeAccount], Any]


@pytest.fixture
def aws() -> FakeAccount:
    """An account with room for everything, some of it by AWS's defaults, and endpoints of another type."""
    aws = FakeAccount()
    aws.quotas = {M5: 4, ENDPOINTS: 20}
    aws.default_quotas = {M5: 0, ARM_BUILDS: 1, LINUX_BUILDS: 1, "ml.c7g.large for endpoint usage": 4}
    aws.add_endpoint("larger", "ml.m5.xlarge", 9)
    return aws


def stage_of(aws: FakeAccount, provisioned: int = 0, reserved: int | None = None, **serving: Any) -> FakeStage:
    stage = FakeStage("dev", aws)
    stage.configure("function", provisioned_concurrency=provisioned, reserved_concurrency=reserved)
    stage.configure("serving", **serving)
    return stage


def limit(concurrency: int, unreserved: int) -> Change:
    return lambda aws: aws.limit_concurrency(concurrency, unreserved)


def quotas(values: dict[str, float]) -> Change:
    return lambda aws: aws.quotas.update(values)


def instances(others: int = 0, own: int = 0, quota: int = 4) -> Change:
    def change(aws: FakeAccount) -> None:
        aws.quotas[M5] = quota
        aws.add_endpoint("another", "ml.m5.large", others)
        if own:
            aws.add_stack("kennel-dev-inference", EndpointName="own")
            aws.add_endpoint("own", "ml.m5.large", own)

    return change


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (limit(1000, 1000), {"reserved": 901}, "leaves 900 of the account's 1000 "),
        (limit(1000, 150), {"reserved": 51}, "leaves 50 of"),
        (limit(10, 10), {"provisioned": 1}, "provisioned_concurrency is 1: lower it, or set 0 for none, in infra"),
        (instances(quota=0), {}, "is 0, and 0 are in use; 1 more are needed"),
        (instances(others=4), {}, "is 4, and 4 are in use; 1 more are needed"),
        (instances(own=2, quota=3), {}, "is 3, and 2 are in use; 2 more are needed to run the old and the new"),
        (quotas({ENDPOINTS: 9}), {}, f"{ENDPOINTS!r} is 9, and 9 are in use"),
        (quotas({LINUX_BUILDS: 0}), {}, "kennel image push"),
        (quotas({ARM_BUILDS: 0}), {"instance_type": "ml.c7g.large"}, "kennel image push"),
        (lambda aws: aws.jobs.update(transform={"kennel-dev-batch-1": ["InProgress"]}), {}, "batch-1 still runs"),
    ],
)
def test_what_would_fail_is_refused(aws, change, settings, message):
    change(aws)
    with pytest.raises(NotReadyError) as raised:
        require_room(stage_of(aws, **settings))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        (limit(1000, 1000), {"reserved": 900, "provisioned": 900}),
        (limit(10, 10), {}),
        (instances(own=1), {}),
        (instances(quota=0), {"kind": "serverless"}),
        (quotas({LINUX_BUILDS: 0}), {"image": "111122223333.dkr.ecr.eu-west-1.amazonaws.com/team/runtime:7"}),
    ],
)
def test_what_fits_is_deployed_without_a_word(aws, change, settings, capsys):
    change(aws)
    require_room(stage_of(aws, **settings))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("reserved", "provisioned"), [(50, []), (None, [20, 30])])
def test_what_the_function_holds_already_is_not_counted_twice(aws, reserved, provisioned):
    aws.add_stack("kennel-dev-inference", FunctionName="f")
    aws.limit_concurrency(1000, unreserved=100)
    aws.answers["get_function_concurrency"] = {} if reserved is None else {"ReservedConcurrentExecutions": reserved}
    configs = [{"RequestedProvisionedConcurrentExecutions": number} for number in provisioned]
    aws.answers["list_provisioned_concurrency_configs"] = {"ProvisionedConcurrencyConfigs": configs}
    require_room(stage_of(aws, provisioned=50))
    with pytest.raises(NotReadyError, match="leaves 50 of"):
        require_room(stage_of(aws, provisioned=51))


def test_no_builds_are_needed_once_the_image_has_been_pushed(aws):
    quotas({LINUX_BUILDS: 0})(aws)
    aws.add_stack("kennel-dev-storage", ImageRepositoryUri="123456789012.dkr.ecr.us-east-1.amazonaws.com/images")
    aws.images.add(("images", container_image.stage_tag(stage_of(aws))))
    require_room(stage_of(aws))


@pytest.mark.parametrize(
    ("change", "printed"),
    [
        (lambda aws: aws.refused.add("list_service_quotas"), "not checked: quotas for endpoint instances: AWS refused"),
        (lambda aws: aws.quotas.pop(ENDPOINTS), f"quota {ENDPOINTS!r}, which Service Quotas does not list"),
        (quotas({M5: 3}), f"warning: quota {M5!r} is 3, and 0 are in use; 4 are needed to"),
        (limit(1000, 105), "max_provisioned is 6"),
    ],
)
def test_what_is_not_known_or_does_not_hold_at_full_load_is_said(aws, capsys, change, printed):
    change(aws)
    stage = stage_of(aws, provisioned=1)
    stage.configure("function", scaling=ConcurrencyScalingSettings(min_provisioned=1, max_provisioned=6))
    require_room(stage)
    assert printed in capsys.readouterr().out


def test_every_refusal_is_in_one_message_or_a_warning_while_the_model_is_missing(aws, capsys):
    aws.quotas |= {M5: 0, LINUX_BUILDS: 0}
    with pytest.raises(NotReadyError, match=r"(?s)is 0.*is 0"):
        require_room(stage_of(aws))
    require_room(stage_of(aws), now=False)
    assert capsys.readouterr().out.count("warning: ") == 2
