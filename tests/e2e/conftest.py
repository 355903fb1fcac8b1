"""Opt-in: these tests create real resources, cost money, and always take down what they made."""

from __future__ import annotations

import boto3
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--real-account", metavar="ACCOUNT_ID", help="run against this AWS account (costs money)")
<<<<<<< HEAD
    parser.addoption("--real-region", metavar="REGION", help="in this region")
=======


@pytest.fixture(scope="session")
def account(request: pytest.FixtureRequest) -> str:
    """The account that was named on the command line, which must be the one that the credentials open."""
    named = request.config.getoption("--real-account", default=None)
    if not named:
        pytest.skip("needs --real-account ACCOUNT_ID: it costs money")
    actual = boto3.client("sts").get_caller_identity()["Account"]
    if actual != named:
        pytest.exit(f"--real-account says {named}, but the credentials are those of {actual}", returncode=2)
    return str(named)
>>>>>>> c7111e5 (Documentation: deploying, destroying, which region; quotas are asked for as early as there is a stage)
