"""Opt-in: these tests create real resources, cost money, and always take down what they made."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--real-account", metavar="ACCOUNT_ID", help="run against this AWS account (costs money)")
    parser.addoption("--real-region", metavar="REGION", help="in this region")
