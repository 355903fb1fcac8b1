"""The quotas that `kennel deploy` asks for before anything starts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fake_account import FakeAccount
from fake_stage import FakeStage

from cli.errors import NotReadyError
from cli.operating import preflight
from cli.serving import container_image

ENDPOINTS = "Number of instances across active endpoints"
M5 = "ml.m5.large for endpoint usage"
ARM_BUILDS = "Concurrently running builds for ARM/Small environment"
LINUX_BUILDS = "Concurrently running builds for Linux/Small environment"


def stage_of(aws: FakeAccount, provisioned: int = 0, reserved: int | None = None, **serving: Any) -> FakeStage:
    """The stage dev with other settings of its function and endpoint."""
    stage = FakeStage("dev", aws)
    stage.configure("function", provisioned_concurrency=provisioned, reserved_concurrency=reserved)
    stage.configure("serving", **serving)
    return stage


@pytest.fixture
def aws() -> FakeAccount:
    """An account with room for everything."""
    aws = FakeAccount()
    aws.quotas = {M5: 4, ENDPOINTS: 20, ARM_BUILDS: 1, LINUX_BUILDS: 1}
    return aws


def refused(stage: FakeStage) -> str:
    with pytest.raises(NotReadyError) as raised:
        preflight.require_room(stage)
    return str(raised.value)


@pytest.mark.parametrize(
    ("limit", "unreserved", "function", "expected"),
    [
        (1000, 1000, {"reserved": 900, "provisioned": 900}, None),
        (1000, 1000, {"reserved": 901}, "leaves 900 of the account's 1000 "),
        (1000, 150, {"reserved": 51}, "leaves 50 of"),
        (10, 10, {"provisioned": 1}, "provisioned_concurrency is 1: lower it, or set 0 for none, in infra"),
        (10, 10, {}, None),
    ],
)
def test_lambda_keeps_a_hundred_unreserved(
    aws: FakeAccount, limit: int, unreserved: int, function: dict[str, int], expected: str | None
) -> None:
    aws.limit_concurrency(limit, unreserved)
    stage = stage_of(aws, **function)
    if expected is None:
        preflight.require_room(stage)
    else:
        assert expected in refused(stage)


@pytest.mark.parametrize(("reserved", "provisioned"), [(50, []), (None, [20, 30])])
def test_what_the_function_holds_already_is_not_counted_twice(
    aws: FakeAccount, reserved: int | None, provisioned: list[int]
) -> None:
    aws.add_stack("kennel-dev-inference", FunctionName="f")
    aws.limit_concurrency(1000, unreserved=100)
    aws.answers["get_function_concurrency"] = {} if reserved is None else {"ReservedConcurrentExecutions": reserved}
    configs = [{"RequestedProvisionedConcurrentExecutions": number} for number in provisioned]
    aws.answers["list_provisioned_concurrency_configs"] = {"ProvisionedConcurrencyConfigs": configs}
    preflight.require_room(stage_of(aws, provisioned=50))
    assert "leaves 50 of" in refused(stage_of(aws, provisioned=51))


@pytest.mark.parametrize(
    ("quota", "others", "own", "expected"),
    [
        (0, 0, 0, "is 0, and 0 are in use; 1 more are needed"),
        (4, 4, 0, "is 4, and 4 are in use; 1 more are needed"),
        (4, 0, 1, None),
        (3, 0, 2, "is 3, and 2 are in use; 2 more are needed to run the old and the new"),
    ],
)
def test_endpoint_instances_are_counted_with_those_in_use_and_twice_for_an_update(
    aws: FakeAccount, quota: int, others: int, own: int, expected: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.quotas[M5] = quota
    aws.add_endpoint("another", "ml.m5.large", others)
    aws.add_endpoint("larger", "ml.m5.xlarge", 9)
    if own:
        aws.add_stack("kennel-dev-inference", EndpointName="own")
        aws.add_endpoint("own", "ml.m5.large", own)
    if expected is None:
        preflight.require_room(stage_of(aws))
        assert capsys.readouterr().out == ""
    else:
        assert expected in refused(stage_of(aws))


def test_the_quota_over_all_endpoints_counts_every_type(aws: FakeAccount) -> None:
    aws.quotas[ENDPOINTS] = 9
    aws.add_endpoint("larger", "ml.m5.xlarge", 9)
    assert "'Number of instances across active endpoints' is 9, and 9 are in use" in refused(stage_of(aws))


def test_aws_defaults_hold_where_the_account_has_no_quota_of_its_own(aws: FakeAccount) -> None:
    del aws.quotas[M5]
    aws.default_quotas = {M5: 0, ENDPOINTS: 0}
    message = refused(stage_of(aws))
    assert f"'{M5}' is 0" in message and ENDPOINTS not in message


@pytest.mark.parametrize(("instance_type", "quota"), [("ml.m5.large", LINUX_BUILDS), ("ml.c7g.large", ARM_BUILDS)])
def test_no_builds_are_an_error_until_the_image_has_been_pushed(
    aws: FakeAccount, instance_type: str, quota: str
) -> None:
    aws.quotas |= {ARM_BUILDS: 1, LINUX_BUILDS: 1, quota: 0, "ml.c7g.large for endpoint usage": 4}
    aws.add_stack("kennel-dev-storage", ImageRepositoryUri="123456789012.dkr.ecr.us-east-1.amazonaws.com/images")
    stage = stage_of(aws, instance_type=instance_type)
    assert "kennel image push" in refused(stage)
    aws.images.add(("images", container_image.stage_tag(stage)))
    preflight.require_room(stage)
    aws.images.clear()
    preflight.require_room(stage_of(aws, image="111122223333.dkr.ecr.eu-west-1.amazonaws.com/team/runtime:7"))


@pytest.mark.parametrize(
    ("change", "printed"),
    [
        (lambda aws: aws.refused.add("list_service_quotas"), "not checked: quotas for endpoint instances: AWS refused"),
        (lambda aws: aws.refused.add("get_account_settings"), "not checked: Lambda's concurrency: AWS refused"),
        (lambda aws: aws.quotas.pop(M5), f"not checked: the quota {M5!r}, which Service Quotas does not list"),
        (lambda aws: aws.quotas.update({M5: 3}), f"warning: quota {M5!r} is 3, and 0 are in use; 4 are needed to"),
        (lambda aws: aws.limit_concurrency(1000, 105), "max_provisioned is 6"),
    ],
)
def test_what_is_not_known_or_does_not_hold_at_full_load_is_said(
    aws: FakeAccount, capsys: pytest.CaptureFixture[str], change: Any, printed: str
) -> None:
    change(aws)
    stage = stage_of(aws, provisioned=1)
    stage.configure("function", scaling=SimpleNamespace(min_provisioned=1, max_provisioned=6))
    preflight.require_room(stage)
    assert printed in capsys.readouterr().out


def test_every_refusal_is_in_one_message_or_a_warning_while_the_model_is_missing(
    aws: FakeAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.quotas |= {M5: 0, LINUX_BUILDS: 0}
    aws.limit_concurrency(10, unreserved=10)
    assert len(refused(stage_of(aws, provisioned=1)).splitlines()) == 4
    preflight.require_room(stage_of(aws, provisioned=1), now=False)
    assert capsys.readouterr().out.count("warning: ") == 3


def test_a_batch_that_runs_would_lose_its_role(aws: FakeAccount) -> None:
    aws.jobs = {"transform": {"kennel-dev-batch-1": ["InProgress"], "kennel-other-batch-1": ["InProgress"]}}
    message = refused(stage_of(aws))
    assert "transform job kennel-dev-batch-1 still runs" in message and "--stop" in message
    assert "kennel-other" not in message
