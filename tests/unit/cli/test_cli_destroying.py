"""`kennel destroy` on an account in memory: the order, what is tried all the same, and what it says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import botocore.exceptions
import pytest
from fake_account import FakeAccount
from fake_stage import FakeStage

from cli.errors import WorkFailedError
from cli.operating import destroying, stopping

STORAGE, TRAINING, INFERENCE = (f"kennel-dev-{kind}" for kind in ("storage", "training", "inference"))
TRAINING_LOGS = "/aws/sagemaker/TrainingJobs"
ENDPOINT_LOGS = "/aws/sagemaker/Endpoints/kennel-dev-instance"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> FakeAccount:
    monkeypatch.setattr(stopping, "_POLL_SECONDS", 0.0)
    return account("dev")


def account(stage: str) -> FakeAccount:
    """Three stacks of a stage with what is in them, and a neighbour's things."""
    aws = FakeAccount()
    for kind in ("storage", "training", "inference"):
        aws.add_stack(f"kennel-{stage}-{kind}", EndpointName="dogs")
    aws.resources = {
        f"kennel-{stage}-storage": [
            ("AWS::S3::Bucket", "data"),
            ("AWS::S3::Bucket", "logs"),
            ("AWS::KMS::Key", "the-key"),
            ("AWS::ECR::Repository", "images"),
        ],
        f"kennel-{stage}-inference": [("AWS::SageMaker::Endpoint", "dogs")],
    }
    aws.buckets = {
        "data": [{"Key": "a", "VersionId": version} for version in "12"],
        "logs": [{"Key": "log", "VersionId": "null"}],
    }
    aws.uploads = {"data": [{"Key": "half", "UploadId": "u"}]}
    aws.add_endpoint("dogs", "ml.m5.large", 1, project="kennel", stage=stage)
    aws.add_endpoint("cats", "ml.m5.large", 1, project="kennel", stage="other")
    aws.log_groups = {
        ENDPOINT_LOGS: [],
        "/aws/sagemaker/Endpoints/cats": [],
        f"kennel-{stage}-inference-Logs1": [],
        TRAINING_LOGS: [f"kennel-{stage}-1/algo-1", "kennel-other-1/algo-1"],
    }
    return aws


def destroy(stage: FakeStage) -> None:
    context: Any = SimpleNamespace(obj=stage)
    destroying.destroy(context, yes=True)


def test_the_order_is_the_one_in_which_aws_lets_go(aws, capsys):
    aws.jobs = {
        "hyper_parameter_tuning": {"kennel-dev-tune-1": ["InProgress", "Stopping", "Completed"]},
        "training": {
            "kennel-dev-1": ["InProgress", "Stopping", "Stopping", "Failed"],
            "kennel-dev-2": ["Stopping", "Stopped"],
            "not-kennel-dev-4": ["InProgress"],
        },
        "transform": {"kennel-dev-batch-1": ["InProgress", "Stopping", "Stopped"]},
    }
    destroy(FakeStage("dev", aws))
    assert aws.calls == [
        *("stop kennel-dev-tune-1", "stop kennel-dev-1", "stop kennel-dev-batch-1"),
        *(f"delete_stack {INFERENCE}", f"delete_stack {TRAINING}"),
        *("put_bucket_logging data", "put_bucket_logging logs", "delete_objects data", "delete_objects logs"),
        f"delete_stack {STORAGE}",
        *(f"delete_log_group {ENDPOINT_LOGS}", "delete_log_group kennel-dev-inference-Logs1"),
    ]
    assert [status for (status,) in aws.jobs["training"].values()] == ["Failed", "Stopped", "InProgress"]
    assert not aws.stacks and not aws.buckets and list(aws.endpoints) == ["cats"]
    assert aws.log_groups == {"/aws/sagemaker/Endpoints/cats": [], TRAINING_LOGS: ["kennel-other-1/algo-1"]}
    printed = capsys.readouterr()
    assert printed.err.startswith("Stage dev: account 123456789012, region us-east-1")
    assert "Nothing of the stage 'dev' is left in account 123456789012, region us-east-1" in printed.out


def test_a_step_that_fails_keeps_only_what_a_job_still_needs(aws, monkeypatch):
    monkeypatch.setattr(stopping, "_STOP_SECONDS", 0.0)
    aws.jobs, aws.refused = {"training": {"kennel-dev-1": ["Stopping"]}}, {"describe_log_streams"}
    with pytest.raises(WorkFailedError, match=r"(?s)2 step.* kennel-dev-1: not ended.* perform describe_log_streams"):
        destroying.destroy_stage(FakeStage("dev", aws))
    assert sorted(aws.stacks) == [STORAGE, TRAINING]
    assert list(aws.endpoints) == ["cats"] and aws.buckets["data"]
    assert ENDPOINT_LOGS not in aws.log_groups, "each step is tried"


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ({"Stacks": [{"StackStatus": "DELETE_FAILED", "StackStatusReason": "[Vpc] is in use"}]}, "[Vpc] is in use"),
        ({"Stacks": [{"StackStatus": "DELETE_IN_PROGRESS", "StackStatusReason": "User Initiated"}]}, "too long"),
        ({"Stacks": [{"StackStatus": "DELETE_FAILED", "StackStatusReason": ""}]}, "too long"),
        ({"Stacks": []}, "too long"),
        ({"Error": {"Code": "AccessDenied"}}, "too long"),
    ],
)
def test_a_stack_that_stays_is_named_with_why_and_where_to_read_on(aws, monkeypatch, last, reason):
    def wait(**_):
        raise botocore.exceptions.WaiterError("StackDeleteComplete", "too long", last)

    monkeypatch.setattr(aws, "get_waiter", lambda _: SimpleNamespace(wait=wait))
    with pytest.raises(WorkFailedError) as failed:
        destroying.destroy_stage(FakeStage("dev", aws))
    for line in str(failed.value).splitlines()[1:]:
        assert reason in line and "describe-stack-events --stack-name kennel-dev-" in line


def test_an_endpoint_that_lost_its_stack_is_deleted(aws):
    del aws.stacks[INFERENCE]
    destroying.destroy_stage(FakeStage("dev", aws))
    assert list(aws.endpoints) == ["cats"]
    assert ENDPOINT_LOGS not in aws.log_groups


def test_a_protected_stack_keeps_its_data_whatever_the_settings_say(aws):
    aws.add_stack(STORAGE, protected=True)
    with pytest.raises(WorkFailedError, match=r"protected against deletion.*kennel deploy storage"):
        destroying.destroy_stage(FakeStage("dev", aws))
    assert aws.buckets["data"]


def test_a_stage_that_retains_its_data_says_what_is_left_and_what_it_costs(aws, capsys):
    aws = account("prod")
    aws.add_stack("kennel-prod-storage", protected=True)
    destroy(FakeStage("prod", aws))
    assert list(aws.stacks) == ["kennel-prod-storage"]
    assert "delete_stack kennel-prod-storage" not in aws.calls and aws.buckets["data"]
    printed = capsys.readouterr().out
    for part in (
        "bucket data: 0.023 USD a month for each GB, kept as the settings say",
        "repository images: 0.1 USD a month for each GB",
        "key the-key: 1 USD a month",
        "log group kennel-prod-inference-Logs1: 0.03 USD a month for each GB",
        "retain = false under [storage] in infra/environments/prod.toml, then kennel deploy storage",
    ):
        assert part in printed


def test_what_costs_and_should_be_gone_is_an_error_that_names_it(aws, capsys):
    names = ("kennel-dev", "kennel-dev-own", "kennel-dev2")
    aws.answers["list_dashboards"] = {"DashboardEntries": [{"DashboardName": name} for name in names]}
    aws.answers["get_dashboard"] = {}
    left = "dashboard kennel-dev, dashboard kennel-dev-own"
    with pytest.raises(WorkFailedError, match=rf"2 thing\(s\) of dev are left that cost: {left}\."):
        destroy(FakeStage("dev", aws))
    assert "dashboard kennel-dev: 3 USD a month" in capsys.readouterr().out
