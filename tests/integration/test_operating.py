"""Deploying and destroying on a local AWS with quotas, regions, protected stacks and access logs that arrive late."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_aws_harness import LocalAws, local_aws
from waiting import wait_until

from cli.aws import Stage
from cli.errors import NotReadyError
from cli.operating import destroying
from cli.operating.deploying import deploy_stacks
from cli.operating.preflight import require_room

NEW_ACCOUNT = {"Concurrent executions": 10, "ml.m5.large for endpoint usage": 0}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    with local_aws(tmp_path_factory.mktemp("state"), quotas=NEW_ACCOUNT, access_log_seconds=1.0) as made:
        yield made


@pytest.fixture
def log(aws: LocalAws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Points the command line at the local AWS; the CDK's output goes to this file."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "cdk.log"


def test_a_new_accounts_quotas_are_found_before_anything_starts(log: Path) -> None:
    with pytest.raises(NotReadyError) as raised:
        require_room(Stage("local"))
    assert "leaves 0 of the account's 10 concurrent executions" in str(raised.value)
    assert "quota 'ml.m5.large for endpoint usage' is 0, and 0 are in use; 1 more are needed" in str(raised.value)


@pytest.mark.slow
def test_nothing_is_said_to_be_destroyed_where_nothing_was_and_late_logs_do_not_keep_it(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage("local")
    deploy_stacks(stage, ["storage"], log=log)
    s3, logs = stage.client("s3"), destroying._resources(stage, "AWS::S3::Bucket")
    logs.remove(stage.data_bucket)
    s3.put_object(Bucket=stage.data_bucket, Key="datasets/a", Body=b"a")

    with monkeypatch.context() as elsewhere:
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            elsewhere.setenv(name, "eu-west-1")
        with pytest.raises(NotReadyError, match=r"nothing of the stage 'local' in .* region eu-west-1") as raised:
            destroying.destroy_stage(Stage("local"))
        assert "AWS_REGION and AWS_DEFAULT_REGION" in raised.value.hint

    monkeypatch.setattr(destroying, "_LATE_LOGS_PAUSE", 0.1)
    delete, waited = destroying._delete_stack, list[str]()

    def delete_after_delivery(stage: Stage, kind: str) -> int:
        if kind == "storage" and not waited:
            waited.append(kind)
            wait_until(lambda: s3.list_objects_v2(Bucket=logs[0]).get("Contents"))
        return delete(stage, kind)

    monkeypatch.setattr(destroying, "_delete_stack", delete_after_delivery)
    destroying.destroy_stage(stage)
    assert waited
    assert "Access logs have arrived meanwhile" in capsys.readouterr().out
    assert stage.find_stack("kennel-local-storage") is None
    assert not {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]} & {*logs}
