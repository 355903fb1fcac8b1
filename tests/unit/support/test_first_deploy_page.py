"""The page about the first deployment, the steps that `make e2e` does, and that these always end with a destruction."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest
from fake_account import FakeAccount
from fake_stage import FakeStage
from first_deploy import END, STEPS, Step, Walk, estimate, refuse_other_accounts

from cli.aws import Stage

PAGE = Path(__file__).resolve().parents[3] / "docs" / "first-deploy.md"


def test_the_page_has_the_steps_in_their_order_and_what_they_cost() -> None:
    page = PAGE.read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"^```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    commands = [line.partition("  #")[0].strip() for line in blocks.splitlines() if line.startswith("kennel ")]
    assert commands == [step.command for step in (*STEPS, END)]
    assert f"about {estimate(Stage('dev')):.2f} USD" in page


def test_another_account_and_what_is_deployed_already_are_left_alone() -> None:
    aws = FakeAccount()
    aws.answers["get_caller_identity"] = {"Account": "123456789012"}
    aws.add_stack("kennel-dev-training")
    with pytest.raises(ValueError, match=r"^kennel-dev-training is deployed there already"):
        refuse_other_accounts(FakeStage("dev", aws), "123456789012", "us-east-1")
    with pytest.raises(ValueError, match=r"^210987654321 in us-east-1 was named"):
        refuse_other_accounts(FakeStage("dev", aws), "210987654321", "us-east-1")


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("kennel fail", AssertionError),
        ("kennel interrupt INT", KeyboardInterrupt),
        ("kennel interrupt TERM", KeyboardInterrupt),
    ],
)
def test_everything_is_taken_down_whatever_happens(tmp_path: Path, command: str, error: type[BaseException]) -> None:
    """Also when a destruction fails at first, and while somebody goes on pressing Ctrl-C."""
    program = tmp_path / "kennel"
    program.write_text(
        "#!/bin/bash\n"
        f'echo "$@" >>{tmp_path}/asked\n'
        'case "$1" in\n'
        "  fail) exit 4 ;;\n"
        '  interrupt) kill -s "$2" "$PPID"; exec sleep 60 ;;\n'
        f"  destroy) kill -INT $PPID; echo {END.seen}; mkdir {tmp_path}/first || exit 0; exit 5 ;;\n"
        "esac\n"
    )
    program.chmod(0o755)
    walk = Walk(tmp_path, {"PATH": f"{tmp_path}:/usr/bin:/bin"})
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(error), walk.taken_down():
        walk.do(Step(command, ""))
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == [command.removeprefix("kennel "), "destroy --yes", "destroy --yes"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize("given", ["ACCOUNT=123456789012", "REGION=eu-west-1"])
def test_nothing_starts_without_an_account_and_a_region(given: str) -> None:
    command = ["make", "--dry-run", "e2e", given]
    done = subprocess.run(command, cwd=PAGE.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "make e2e ACCOUNT=123456789012 REGION=eu-west-1" in done.stderr
