"""The steps of docs/first-deploy.md on a real account: about an hour; everything is destroyed at the end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from clone import fresh_clone
from first_deploy import Walk, estimate, first_deploy, refuse_other_accounts

from cli.aws import Stage


def test_first_deploy(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    account, region = pytestconfig.getoption("--real-account"), pytestconfig.getoption("--real-region")
    if not account or not region:
        pytest.skip("needs --real-account ACCOUNT_ID --real-region REGION: it costs money")
    stage = Stage("dev")
    try:
        refuse_other_accounts(stage, account, region)
    except ValueError as error:
        pytest.exit(str(error), returncode=2)
    print(f"\nThe stage dev in account {account}, {region}: about {estimate(stage):.2f} USD, list prices us-east-1.")
    environment = {**os.environ, **fresh_clone(tmp_path), "KENNEL_STAGE": "dev"}
    first_deploy(Walk(tmp_path, environment), stage)
