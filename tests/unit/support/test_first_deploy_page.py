"""The page about the first deployment, the steps that `make e2e` does, and that these always end with a destruction."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from first_deploy import END, STEPS, Step, Walk, estimate, refuse_other_accounts

from cli.aws import Stage

PAGE = Path(__file__).resolve().parents[3] / "docs" / "first-deploy.md"


def test_the_page_has_the_steps_in_their_order() -> None:
    blocks = "".join(re.findall(r"^```\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    commands = [line.partition("  #")[0].strip() for line in blocks.splitlines() if line.startswith("kennel ")]
    assert commands == [step.command for step in (*STEPS, END)]


def test_the_page_says_what_it_costs() -> None:
    usd = estimate(Stage("dev"))
    assert f"about {usd:.2f} USD" in PAGE.read_text(encoding="utf-8")
    assert usd < 1


class DeployedStage:
    """A stage of which one stack is deployed; its own client of every service."""

    region = "eu-west-1"

    def client(self, service: str) -> DeployedStage:
        return self

    def stack_name(self, kind: str) -> str:
        return f"kennel-dev-{kind}"

    def get_caller_identity(self) -> dict[str, str]:
        return {"Account": "123456789012"}

    def describe_stacks(self, StackName: str) -> None:
        if StackName != "kennel-dev-training":
            raise ClientError({"Error": {"Message": f"Stack with id {StackName} does not exist"}}, "DescribeStacks")


def test_what_is_deployed_already_is_left_alone() -> None:
    with pytest.raises(ValueError, match=r"^kennel-dev-training is deployed there already"):
        refuse_other_accounts(DeployedStage(), "123456789012", "eu-west-1")
    with pytest.raises(ValueError, match=r"^210987654321 in eu-west-1 was named"):
        refuse_other_accounts(DeployedStage(), "210987654321", "eu-west-1")


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    """A walk whose `kennel` notes what it is asked for: `fail` fails, `wait` waits, `interrupt` presses Ctrl-C."""
    program = tmp_path / "kennel"
    program.write_text(
        "#!/bin/bash\n"
        f'echo "$@" >>{tmp_path}/asked\n'
        'case "$1" in\n'
        "  fail) exit 4 ;;\n"
        "  wait) echo waiting; exec sleep 60 ;;\n"
        '  interrupt) kill -s "$2" "$PPID"; exec sleep 60 ;;\n'
        f"  destroy) kill -INT $PPID; echo {END.seen}; mkdir {tmp_path}/first || exit 0; exit 5 ;;\n"
        "esac\n"
        "echo job-1\n"
    )
    program.chmod(0o755)
    return Walk(tmp_path, {"PATH": f"{tmp_path}:/usr/bin:/bin"})


def asked(walk: Walk) -> list[str]:
    return (walk.folder / "asked").read_text().splitlines()


def test_a_command_is_compared_with_what_the_page_promises(walk: Walk) -> None:
    walk.do(Step("kennel train", r"(job-\d)"))
    walk.do(Step("kennel deploy JOB", "job"))
    assert asked(walk) == ["train", "deploy job-1 --yes"]
    with pytest.raises(AssertionError, match="ended with 4"):
        walk.do(Step("kennel fail", ""))
    with pytest.raises(AssertionError, match="did not print 'more'"):
        walk.do(Step("kennel train", "more"))
    # As Ctrl-C would: bash's own code for it.
    walk.do(Step("kennel wait", "waiting", ends_with=-signal.SIGINT, interrupt_at="waiting"))


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("kennel fail", AssertionError),
        ("kennel interrupt INT", KeyboardInterrupt),
        ("kennel interrupt TERM", KeyboardInterrupt),
    ],
)
def test_everything_is_taken_down_whatever_happens(walk: Walk, command: str, error: type[BaseException]) -> None:
    """Also when a destruction fails at first, and while somebody goes on pressing Ctrl-C."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(error), walk.taken_down():
        walk.do(Step(command, ""))
    assert asked(walk) == [command.removeprefix("kennel "), "destroy --yes", "destroy --yes"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_nothing_starts_without_an_account_and_a_region() -> None:
    for target, given in (("e2e", ["ACCOUNT=123456789012"]), ("e2e", ["REGION=eu-west-1"])):
        command = ["make", "--dry-run", target, *given]
        done = subprocess.run(command, cwd=PAGE.parents[1], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "make e2e ACCOUNT=123456789012 REGION=eu-west-1" in done.stderr
