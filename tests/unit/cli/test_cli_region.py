"""Which account and region a command works in: one answer for boto3 and for the CDK, or a refusal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from local_aws_harness import wait_until

from cli import cdk
from cli.aws import Stage
from cli.errors import NotReadyError


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No AWS in the environment; returns the configuration file, which is not there yet."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    return tmp_path / "config"


def stage_of(account: str | None = None, region: str | None = None, credentials: str = "111111111111") -> Stage:
    """The stage dev with these settings, and credentials of an account."""

    class Known(Stage):
        def _new_session(self, region: str | None) -> Any:
            session = super()._new_session(region)
            make = session.client
            identity = SimpleNamespace(get_caller_identity=lambda: {"Account": credentials})
            session.client = lambda service, **options: identity if service == "sts" else make(service, **options)
            return session

    stage = Known("dev")
    object.__setattr__(stage, "settings", replace(stage.settings, account=account, region=region))
    return stage


def regions(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The region as boto3 and as the CDK's process see it."""
    program, seen = tmp_path / "cdk", tmp_path / "seen"
    program.write_text(f'#!/bin/sh\necho "$AWS_REGION $AWS_DEFAULT_REGION" > {seen}\n')
    program.chmod(0o755)
    monkeypatch.setattr(cdk, "_COMMAND", program)
    cdk.run_cdk("deploy", stage=stage)
    (region, default_region) = seen.read_text().split()
    return {"boto3": stage.client("s3").meta.region_name, "AWS_REGION": region, "AWS_DEFAULT_REGION": default_region}


@pytest.mark.parametrize("named", [("AWS_REGION",), ("AWS_DEFAULT_REGION",), ("AWS_REGION", "AWS_DEFAULT_REGION")])
def test_either_variable_holds_for_boto3_and_for_the_cdk(
    named: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in named:
        monkeypatch.setenv(name, "eu-north-1")
    assert set(regions(stage_of(), tmp_path, monkeypatch).values()) == {"eu-north-1"}


def test_the_profile_is_asked_when_nothing_else_names_a_region(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.write_text("[profile work]\nregion = eu-west-3\n")
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert set(regions(stage_of(), tmp_path, monkeypatch).values()) == {"eu-west-3"}
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    assert set(regions(stage_of(), tmp_path, monkeypatch).values()) == {"eu-west-2"}
    monkeypatch.delenv("AWS_REGION")
    pinned = stage_of("111111111111", "ap-south-1")
    assert set(regions(pinned, tmp_path, monkeypatch).values()) == {"ap-south-1"}


@pytest.mark.parametrize(
    ("variables", "region", "parts"),
    [
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-east-1"}, None, ["AWS_REGION", "AWS_DEFAULT_REGION"]),
        ({"AWS_REGION": "eu-west-1"}, "us-east-1", ["AWS_REGION", "infra/environments/dev.toml"]),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, "us-east-1", ["AWS_DEFAULT_REGION", "infra/environments/dev.toml"]),
    ],
)
def test_two_regions_are_refused_by_name(
    variables: dict[str, str], region: str | None, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(NotReadyError) as raised:
        stage_of("111111111111" if region else None, region).client("s3")
    for part in [*parts, "eu-west-1", "us-east-1"]:
        assert part in str(raised.value)
    assert "Unset" in raised.value.hint


def test_no_region_is_refused_and_not_guessed() -> None:
    with pytest.raises(NotReadyError, match="No AWS region is set") as raised:
        stage_of().client("s3")
    assert "AWS_REGION" in raised.value.hint


@pytest.mark.parametrize("use", [lambda stage: stage.client("s3"), lambda stage: stage.account])
def test_credentials_of_another_account_than_the_settings_are_refused(use: Any) -> None:
    with pytest.raises(NotReadyError, match=r"111111111111.*dev\.toml names 222222222222"):
        use(stage_of("222222222222", "us-east-1"))
    use(stage_of("111111111111", "us-east-1"))


def test_ctrl_c_ends_the_cdk_without_a_stack_trace(tmp_path: Path) -> None:
    """The CDK's script is interpreted by Node itself; the `node` beside our Python would print one."""
    script, ready = tmp_path / "cdk", tmp_path / "ready"
    script.write_text(
        f"#!/usr/bin/env node\nrequire('fs').writeFileSync({str(ready)!r}, ''); setInterval(() => {{}}, 1000);\n"
    )
    script.chmod(0o755)
    program = (
        "import pathlib, sys; from cli import cdk, main; from cli.aws import Stage;"
        f"cdk._COMMAND = pathlib.Path({str(script)!r}); sys.argv = ['kennel', 'local', 'status'];"
        "main.app = lambda **_: cdk.run_cdk('deploy', stage=Stage('dev')); main.main()"
    )
    environment = {**os.environ, "AWS_REGION": "eu-west-1"}
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=environment,
        cwd=cdk.ROOT,
    )
    wait_until(ready.exists)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "What CloudFormation has begun goes on" in output
    assert "Traceback" not in output
