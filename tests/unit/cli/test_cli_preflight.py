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
REFUSED = "is {}, and {} are in use; {} more are needed"


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


@pytest.mark.parametrize(
    ("limit", "unreserved", "reserved", "provisioned", "refused"),
    [
        (1000, 1000, 900, 900, None),
        (1000, 1000, 901, 0, "leaves 900 of .* 1000 .*reserved_concurrency is 901"),
        (1000, 150, 51, 0, "leaves 50 of"),
        (10, 10, None, 1, "leaves 0 of .* 10 .*is 1: lower it, or set 0 for none, in infra"),
        (10, 10, None, 0, None),
    ],
)
def test_lambda_keeps_a_hundred_unreserved(
    aws: FakeAccount, limit: int, unreserved: int, reserved: int | None, provisioned: int, refused: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    aws.limit_concurrency(limit, unreserved)
    stage = stage_of(aws, provisioned, reserved)
    if refused is None:
        preflight.require_room(stage)
        assert capsys.readouterr().out == ""
    else:
        with pytest.raises(NotReadyError, match=refused):
            preflight.require_room(stage)


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
    with pytest.raises(NotReadyError, match="leaves 50 of"):
        preflight.require_room(stage_of(aws, provisioned=51))


def test_full_load_beyond_lambdas_concurrency_is_a_warning(
    aws: FakeAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.limit_concurrency(1000, unreserved=105)
    stage = stage_of(aws, provisioned=1)
    stage.configure("function", scaling=SimpleNamespace(min_provisioned=1, max_provisioned=6))
    preflight.require_room(stage)
    assert "max_provisioned is 6" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("quota", "others", "own", "outcome"),
    [
        # dev: one instance at first, two at the most, four while an update runs at full load
        (4, 0, 0, "fine"),
        (1, 0, 0, "warning"),
        (0, 0, 0, REFUSED.format(0, 0, 1)),
        (4, 4, 0, REFUSED.format(4, 4, 1)),
        (4, 0, 1, "fine"),
        (3, 0, 2, f"{REFUSED.format(3, 2, 2)} to run the old and the new"),
    ],
)
def test_endpoint_instances_are_counted_with_those_in_use_and_twice_for_an_update(
    aws: FakeAccount, quota: int, others: int, own: int, outcome: str, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.quotas[M5] = quota
    aws.add_endpoint("another", "ml.m5.large", others)
    aws.add_endpoint("larger", "ml.m5.xlarge", 9)
    if own:
        aws.add_stack("kennel-dev-inference", EndpointName="own")
        aws.add_endpoint("own", "ml.m5.large", own)
    if outcome in ("fine", "warning"):
        preflight.require_room(stage_of(aws))
        assert ("warning: quota 'ml.m5.large" in capsys.readouterr().out) == (outcome == "warning")
    else:
        with pytest.raises(NotReadyError, match=outcome):
            preflight.require_room(stage_of(aws))


def test_the_quota_over_all_endpoints_counts_every_type(aws: FakeAccount) -> None:
    aws.quotas[ENDPOINTS] = 9
    aws.add_endpoint("larger", "ml.m5.xlarge", 9)
    with pytest.raises(NotReadyError, match="'Number of instances across active endpoints' is 9, and 9 are in use"):
        preflight.require_room(stage_of(aws))


def test_aws_defaults_hold_where_the_account_has_no_quota_of_its_own(aws: FakeAccount) -> None:
    del aws.quotas[M5]
    aws.default_quotas = {M5: 0, ENDPOINTS: 0}
    with pytest.raises(NotReadyError, match=f"'{M5}' is 0") as raised:
        preflight.require_room(stage_of(aws))
    assert ENDPOINTS not in str(raised.value)


@pytest.mark.parametrize(
    ("instance_type", "quota", "refused"),
    [("ml.m5.large", LINUX_BUILDS, True), ("ml.m5.large", ARM_BUILDS, False), ("ml.c7g.large", ARM_BUILDS, True)],
)
def test_no_builds_are_an_error_until_the_image_has_been_pushed(
    aws: FakeAccount, instance_type: str, quota: str, refused: bool
) -> None:
    aws.quotas |= {quota: 0, "ml.c7g.large for endpoint usage": 4}
    aws.add_stack("kennel-dev-storage", ImageRepositoryUri="123456789012.dkr.ecr.us-east-1.amazonaws.com/images")
    stage = stage_of(aws, instance_type=instance_type)
    if refused:
        with pytest.raises(NotReadyError, match="kennel image push"):
            preflight.require_room(stage)
        aws.images.add(("images", container_image.stage_tag(stage)))
    preflight.require_room(stage)


def test_an_image_of_the_settings_needs_no_build(aws: FakeAccount) -> None:
    aws.quotas[LINUX_BUILDS] = 0
    preflight.require_room(stage_of(aws, image="111122223333.dkr.ecr.eu-west-1.amazonaws.com/team/runtime:7"))


@pytest.mark.parametrize(
    ("operation", "what"),
    [("list_service_quotas", "quotas for endpoint instances"), ("get_account_settings", "Lambda's concurrency")],
)
def test_what_may_not_be_asked_is_not_called_fine(
    aws: FakeAccount, operation: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.refused = {operation}
    preflight.require_room(stage_of(aws))
    assert f"not checked: {what}: AWS refused" in capsys.readouterr().out


def test_a_quota_that_is_not_listed_is_not_called_fine(aws: FakeAccount, capsys: pytest.CaptureFixture[str]) -> None:
    del aws.quotas[M5]
    preflight.require_room(stage_of(aws))
    assert f"not checked: the quota {M5!r}, which Service Quotas does not list" in capsys.readouterr().out


def test_every_refusal_is_in_one_message(aws: FakeAccount) -> None:
    aws.quotas |= {M5: 0, LINUX_BUILDS: 0}
    aws.limit_concurrency(10, unreserved=10)
    with pytest.raises(NotReadyError) as raised:
        preflight.require_room(stage_of(aws, provisioned=1))
    assert len(str(raised.value).splitlines()) == 4


def test_a_batch_that_runs_would_lose_its_role(aws: FakeAccount) -> None:
    aws.jobs = {"transform": {"kennel-dev-batch-1": ["InProgress"], "kennel-other-batch-1": ["InProgress"]}}
    with pytest.raises(NotReadyError, match=r"transform job kennel-dev-batch-1 still runs.*--stop") as raised:
        preflight.require_room(stage_of(aws))
    assert "kennel-other" not in str(raised.value)


def test_a_deployment_that_waits_for_a_model_is_warned_and_goes_on(
    aws: FakeAccount, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.quotas[M5] = 0
    preflight.require_room(stage_of(aws), now=False)
    assert f"warning: quota {M5!r} is 0" in capsys.readouterr().out
