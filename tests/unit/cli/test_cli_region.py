"""Which account and region a command works in: one answer for boto3 and for the CDK, or a refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli import cdk
from cli.aws import Stage
from cli.errors import NotReadyError

ACCOUNT = "111111111111"
FIRST, SECOND = "AWS_REGION in the environment is eu-west-1", "AWS_DEFAULT_REGION in the environment"


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, no_aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of `ACCOUNT`, and a configuration file with the profile `work`."""
    (tmp_path / "config").write_text("[profile work]\nregion = eu-west-3\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", lambda *_: {"Account": ACCOUNT})


def stage_of(account: str | None = None, region: str | None = None) -> Stage:
    stage = Stage("dev")
    stage.__dict__["settings"] = replace(stage.settings, account=account, region=region)
    return stage


@pytest.mark.parametrize(
    ("variables", "settings", "region"),
    [
        ({"AWS_REGION": "eu-north-1"}, None, "eu-north-1"),
        ({"AWS_DEFAULT_REGION": "eu-north-1"}, None, "eu-north-1"),
        ({"AWS_PROFILE": "work"}, None, "eu-west-3"),
        ({"AWS_PROFILE": "work", "AWS_REGION": "eu-west-2"}, None, "eu-west-2"),
        ({"AWS_PROFILE": "work"}, "ap-south-1", "ap-south-1"),
    ],
    ids=str,
)
def test_boto3_and_the_cdk_have_one_region(variables, settings, region, tmp_path, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stage = stage_of(ACCOUNT if settings else None, settings)
    program, seen = tmp_path / "cdk", tmp_path / "seen"
    program.write_text(f'#!/bin/sh\necho "$AWS_REGION $AWS_DEFAULT_REGION $(command -v node)" > {seen}\n')
    program.chmod(0o755)
    monkeypatch.setattr(cdk, "_COMMAND", program)
    cdk.run_cdk("deploy", stage=stage)
    *regions, node = seen.read_text().split()
    assert regions == [region, region]
    assert Path(node).read_bytes()[:2] != b"#!"  # Node itself: a script in Python answers Ctrl-C with a stack trace
    assert stage.client("s3").meta.region_name == region


@pytest.mark.parametrize(
    ("variables", "settings", "parts"),
    [
        ({}, None, ["No AWS region is set", "AWS_REGION"]),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-east-1"}, None, [FIRST, f"{SECOND} is us-east-1"]),
        ({"AWS_REGION": "eu-west-1"}, "us-east-1", [FIRST, "infra/environments/dev.toml is us-east-1", "Unset"]),
    ],
)
def test_no_region_and_two_regions_are_refused_by_name(variables, settings, parts, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(NotReadyError) as raised:
        stage_of(ACCOUNT if settings else None, settings).client("s3")
    assert [part for part in parts if part not in str(raised.value) + raised.value.hint] == []


@pytest.mark.parametrize("use", [lambda stage: stage.client("s3"), lambda stage: stage.account])
def test_credentials_of_another_account_than_the_settings_are_refused(use: Any) -> None:
    with pytest.raises(NotReadyError, match=r"111111111111.*dev\.toml names 222222222222"):
        use(stage_of("222222222222", "us-east-1"))
    use(stage_of(ACCOUNT, "us-east-1"))
