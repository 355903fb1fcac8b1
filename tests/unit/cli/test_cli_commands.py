"""What holds for every command: help, examples, completion, --json, and what is said without an account."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from fake_stage import FakeStage

from cli import console, main
from cli.help import _HELP

KENNEL: Any = typer.main.get_command(main.app)
NO_FIGURES = {"init", "ui", "train", "tune", "tune stop", "models approve", "image build", "image push", "data sample"}
NO_FIGURES |= {f"local {command}" for command in ("up", "down", "env", "logs")}
NEED_AWS = """train|train --on ec2|train --follow a|report|package|tune|tune status|tune stop|deploy --yes storage
models list|models deploy --yes|image push|batch s3://a/b/|status|doctor|audit|destroy --yes""".replace("\n", "|")


def commands(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command, and each group that does something itself, by what is typed."""
    for name, command in getattr(group, "commands", {}).items():
        if not getattr(command, "no_args_is_help", False):
            yield f"{path}{name}", command
        yield from commands(command, f"{path}{name} ")


COMMANDS = dict(commands(KENNEL))


def test_the_list_has_each_command_in_one_line(kennel, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, printed = kennel()
    rows = [line for line in printed.splitlines() if line[:2] == "  " and line.split()[0] in KENNEL.commands]
    assert (code, len(rows)) == (0, len(KENNEL.commands)), "each has its place in cli/help.toml"
    assert [line for line in rows if not line.endswith(".") or "..." in line] == []


def test_every_command_has_examples_of_its_own(kennel):
    assert COMMANDS.keys() == _HELP["examples"].keys()
    for path, lines in _HELP["examples"].items():
        assert [line for line in lines if not re.search(f"kennel( --stage prod)? {path}\\b", line)] == []
    assert "Examples:\n    kennel data push\n" in kennel("data", "push", "--help")[1]


@pytest.mark.parametrize(
    ("typed", "offered"), [("--stage p", "prod"), ("local d", "down"), ("report k", "k-1")], ids=str
)
def test_the_shell_completes_without_aws(tmp_path: Path, typed: str, offered: str) -> None:
    (tmp_path / "build/reports/k-1").mkdir(parents=True)
    program = f"import sys, cli.aws, pathlib; sys.argv[0] = 'kennel'; cli.aws.ROOT = pathlib.Path({str(tmp_path)!r})"
    command = [sys.executable, "-c", f"{program}; import cli.main; cli.main.main()"]
    words = {"COMP_WORDS": f"kennel {typed}", "COMP_CWORD": str(len(typed.split()))}
    environment = {"PATH": os.environ["PATH"], "_KENNEL_COMPLETE": "complete_bash", **words}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == offered, done.stderr


def test_every_command_has_json_but_those_that_print_no_figures() -> None:
    without = {path for path, each in COMMANDS.items() if not any("--json" in option.opts for option in each.params)}
    assert without == NO_FIGURES


@pytest.mark.parametrize("line", NEED_AWS.split("|"))
def test_without_an_account_each_says_the_two_ways_on(kennel, no_aws, line):
    assert kennel(*line.split()) == (
        4,
        "error: No AWS credentials in the environment.\n"
        'On this machine, without an account: kennel local up, then eval "$(kennel local env)"\n'
        "In an AWS account: aws configure, then docs/first-deploy.md\n",
    )


@pytest.mark.parametrize(("speed", "said"), [(2.0, "2.0/s, 0:00:30 left"), (0.1, "10 s each, 0:00:30 left")])
def test_progress_says_rate_and_time_left(speed: float, said: str) -> None:
    task: Any = SimpleNamespace(elapsed=10.2, speed=speed, time_remaining=30, fields={"in_bytes": False})
    assert console._Pace().render(task).plain == f"0:00:10, {said}"


def test_ctrl_c_says_what_goes_on_what_it_costs_and_how_to_end_it(kennel, monkeypatch):
    machines = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 30}
    limits = {"StoppingCondition": {"MaxRuntimeInSeconds": 3600}, "EnableManagedSpotTraining": False}
    job = {"HyperParameters": {}, "ResourceConfig": machines, "TrainingJobStatus": "InProgress", **limits}
    sagemaker = SimpleNamespace(describe_training_job=lambda **_: job)
    logs = SimpleNamespace(describe_log_streams=lambda **_: os.kill(os.getpid(), signal.SIGINT))
    monkeypatch.setattr(main, "Stage", lambda *_: FakeStage(sagemaker=sagemaker, logs=logs))
    code, printed = kennel("train", "--follow", "job-1")
    assert code == 130
    assert re.search(r"interrupted\nThe training job-1 goes on \(0\.[0-9]+ USD per hour, at most .* USD", printed)
    assert "Stop it: kennel train --stop job-1" in printed


@pytest.mark.parametrize(("line", "code"), [("cost <&-", 0), ("init --endpoint x <&-", 2), ("-h >/dev/full", 3)])
def test_what_the_shell_gives_is_no_bug(no_aws, line, code):
    command = f"PYTHONIOENCODING=ascii {Path(sys.executable).with_name('kennel')} {line}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == code and ("error: No space left on device" in done.stderr) == (code == 3), done.stderr


def test_ctrl_c_while_it_is_imported_is_no_stack_trace():
    slow = "type('', (), {'__getattr__': lambda *_: signal.raise_signal(signal.SIGINT)})()"
    program = f"import signal, sys; sys.modules['cli.main'] = {slow}; from cli import start; start()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "\ninterrupted\n")


def test_a_bug_is_one_line_and_a_file_for_its_owner_only(kennel, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(main, "Stage", lambda *_: FakeStage())  # which has no SageMaker
    code, printed = kennel("train", "--stop", "job-1")
    (file,) = tmp_path.glob("kennel-bug-*.txt")
    assert (code, file.stat().st_mode & 0o777) == (1, 0o600)
    assert "error: this is a bug in kennel: AttributeError: " in printed
    assert str(file) in printed
    assert "Traceback" in file.read_text()
    assert "ValueError: x\n" in main.BugError(ValueError("x"), show=True).hint
