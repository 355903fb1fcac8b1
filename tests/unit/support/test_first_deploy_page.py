"""The page about the first deployment, and the steps that `make e2e` does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from fake_account import FakeAccount
from fake_stage import FakeStage
from first_deploy import END, STEPS, estimate, refuse_other_accounts

from cli.aws import Stage
from cli.costs.planned import planned_costs
from cli.costs.table import Total
from infra.prices import HOURS_PER_MONTH

PAGE = Path(__file__).resolve().parents[3] / "docs" / "first-deploy.md"


def test_the_page_has_the_steps_in_their_order_and_what_they_cost() -> None:
    page = PAGE.read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    commands = [line.partition("  #")[0].strip() for line in blocks.splitlines() if line.startswith("kennel ")]
    assert commands == [step.command for step in (*STEPS, END)]
    assert f"about {estimate(Stage('dev')):.2f} USD" in page


def test_what_is_deployed_already_is_left_alone() -> None:
    aws = FakeAccount()
    aws.answers["get_caller_identity"] = {"Account": "123456789012"}
    aws.add_stack("kennel-dev-training")
    with pytest.raises(ValueError, match=r"^kennel-dev-training is deployed there already"):
        refuse_other_accounts(FakeStage("dev", aws), "123456789012", "us-east-1")


@pytest.mark.parametrize("given", ["ACCOUNT=123456789012", "REGION=eu-west-1"])
def test_nothing_starts_without_an_account_and_a_region(given: str) -> None:
    command = ["make", "--dry-run", "e2e", given]
    done = subprocess.run(command, cwd=PAGE.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "make e2e ACCOUNT=123456789012 REGION=eu-west-1" in done.stderr


@pytest.mark.parametrize("name", ["README.md", "docs/tutorial-aws.md"])
def test_the_prices_are_those_of_the_table(name: str) -> None:
    page = (PAGE.parents[1] / name).read_text(encoding="utf-8")
    dev, serverless = (Total.of(planned_costs(Stage(stage).settings)).usd for stage in ("dev", "serverless"))
    assert re.search(rf"\b{dev:.2f} USD an hour.*\b{dev * HOURS_PER_MONTH:.0f} a month", page)
    assert f"{serverless * HOURS_PER_MONTH:.0f} USD a month" in page
