"""What a person sees when something is missing or wrong: one message, a next step, an exit code, no stack trace."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_stage import FakeStage

from cli import aws, main
from cli.errors import AwsError
from emulator.platform import lifecycle


class Shell:
    """Runs `kennel` in this process, in an empty folder, with no AWS in the environment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def kennel(self, *arguments: str) -> tuple[int, str]:
        """Exit code and everything that was printed."""
        self._monkeypatch.setattr("sys.argv", ["kennel", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        captured = self._capsys.readouterr()
        return int(stopped.value.code or 0), captured.out + captured.err


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_PROFILE", "KENNEL_STAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(aws, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    return Shell(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["data", "push", "nowhere"], 3, ["There is no data set at nowhere", "kennel data sample"]),
        (["data", "push", "empty"], 3, ["There are no pictures in empty", "train/<class>"]),
        (["classify", "missing.jpg"], 3, ["There is no picture at missing.jpg"]),
        (["deploy", "inference"], 3, ["There is no model artifact at", "kennel train, then kennel package"]),
        (["package", "--from", "junk.tar.gz"], 3, ["The model cannot be deployed", "junk.tar.gz"]),
        (["package", "--from", "other.tar.gz"], 3, ["The model cannot be deployed", "model.json"]),
        (["package", "--from", "gone.tar.gz"], 3, ["The model cannot be deployed", "gone.tar.gz"]),
        (["--stage", "produktion", "deploy"], 3, ["There is no stage 'produktion'", "dev"]),
        (["train", "--set", "lr:0.1"], 2, ["--set 'lr:0.1' is not NAME=VALUE"]),
        (["report", "--from", "empty"], 3, ["There is no metrics.json in empty", "kennel report"]),
        (["report", "../escape"], 2, ["'../escape' is not the name of a job"]),
        (["package", "--job", "a/../b"], 2, ["'a/../b' is not the name of a job"]),
        (["train", "--follow", ".."], 2, ["'..' is not the name of a job"]),
        (["train", "a-tuning-job"], 2, ["What is 'a-tuning-job'?", "--best"]),
        (["train", "--spot"], 2, ["--resume and --spot are for trainings on EC2", "--on ec2"]),
        (["train", "--on", "ec2", "--instances", "2"], 2, ["on EC2 one instance trains"]),
        (["train", "--follow", "a", "--stop", "a"], 2, ["--follow and --stop do not go together"]),
        (["train", "--resume", "a", "--set", "lr=1"], 2, ["--resume takes a training as it was started"]),
        (["tune", "--max-jobs", "2", "--parallel", "3"], 2, ["--parallel 3 is more than the 2 training jobs"]),
        (["data", "push", "empty", "--name", "a/b"], 2, ["'a/b' does not do as a data set's name"]),
        (["data", "pull", "--sha256", "0"], 2, ["'0' is no SHA-256 checksum"]),
        (["train"], 4, ["No AWS credentials", "kennel local up"]),
        (["local", "status"], 3, ["The local AWS is not running", "kennel local up"]),
        (["local", "logs"], 3, ["There is no log at"]),
        (["nonsense"], 2, ["No such command 'nonsense'"]),
        (["train", "--wat"], 2, ["No such option"]),
    ],
)
def test_one_clear_message_and_an_exit_code(shell: Shell, arguments: list[str], code: int, parts: list[str]) -> None:
    Path("empty").mkdir()
    Path("junk.tar.gz").write_bytes(b"this is no archive")
    with tarfile.open("other.tar.gz", "w:gz"):
        pass
    exit_code, output = shell.kennel(*arguments)
    assert exit_code == code, output
    for part in parts:
        assert part in output
    assert "Traceback" not in output


def test_an_unreachable_aws_is_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    exit_code, output = shell.kennel("train")
    assert exit_code == 4
    assert "http://127.0.0.1:1" in output


@pytest.mark.parametrize(
    "command",
    ["deploy --yes storage", "destroy --yes", "train", "train --on ec2", "train --stop a", "tune stop", "batch s3://bucket/a/",
     "data push dogs --no-check"],
)  # fmt: skip
def test_what_changes_something_says_where_first(
    shell: Shell, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Somewhere(aws.Stage):
        account, region = "123456789012", "eu-north-1"

        def client(self, service: str, **options: object) -> None:
            raise AwsError("here the work would begin")

    monkeypatch.setattr(main, "Stage", Somewhere)
    for folder in [tmp_path / "dogs" / split / breed for split in ("train", "valid") for breed in ("Poodle", "Pug")]:
        folder.mkdir(parents=True)
        (folder / "1.jpg").write_bytes(b"x")
    exit_code, output = shell.kennel(*command.split())
    assert exit_code in (4, 5), output
    where, begin = "Stage dev: account 123456789012, region eu-north-1.", "here the work would begin"
    assert -1 < output.find(where) < output.find(begin), output


def test_help_lists_every_command(shell: Shell) -> None:
    exit_code, output = shell.kennel("--help")
    assert exit_code == 0
    for command in ("local", "data", "train", "package", "deploy", "classify", "evaluate", "destroy", "demo"):
        assert f"  {command} " in output


@pytest.mark.parametrize(
    "option",
    [("--interrupt-spot-after", "5"), ("--quota", "Concurrent executions=10"), ("--access-log-delay", "1"),
     ("--port", "4567")],
    ids=lambda option: option[0],
)  # fmt: skip
def test_a_local_aws_that_runs_already_does_not_begin_to_be_otherwise(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, option: tuple[str, str]
) -> None:
    def up(state_dir: Path, *rest: object, **conditions: object) -> lifecycle.Status:
        running = lifecycle.Status("http://127.0.0.1:4566", 4566, 1, state_dir)
        raise lifecycle.AlreadyRunningError("The local AWS is already running on port 4566 (process 1).", running)

    monkeypatch.setattr(lifecycle, "up", up)
    assert shell.kennel("local", "up")[0] == 0
    assert shell.kennel("local", "up", "--port", "4566")[0] == 0
    code, printed = shell.kennel("local", "up", *option)
    assert code == 3
    assert "on port 4566" in printed and option[0] in printed and "kennel local down" in printed


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("", 130)])
def test_an_answer_of_no_is_told_from_an_interruption(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    monkeypatch.setattr(main, "Stage", lambda *_: FakeStage())
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    exit_code, output = shell.kennel("destroy")
    assert exit_code == code
    assert "Destroy the stage dev in account 123456789012, region us-east-1?" in output
    assert output.splitlines()[-1].startswith("error: Not agreed to" if code == 1 else "interrupted")
    assert "Traceback" not in output


def test_a_model_that_was_packaged_for_another_stage_is_not_deployed(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "build" / "local").mkdir(parents=True)
    (tmp_path / "build" / "local" / "model.tar.gz").write_bytes(b"a model of the demo")
    code, output = shell.kennel("deploy", "inference")
    assert code == 3
    assert f"There is no model artifact at {tmp_path}/build/dev/model.tar.gz" in output


def test_without_a_terminal_a_deployment_has_to_be_agreed_to_beforehand(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, output = shell.kennel("--stage", "prod", "deploy", "storage")
    assert code == 2
    assert "kennel --stage prod deploy --yes" in output


@pytest.mark.parametrize(
    ("options", "command"),
    [([], "kennel local env"), (["--state-dir", "my state"], "kennel local env --state-dir 'my state'")],
    ids=str,
)
def test_the_next_step_after_a_start_names_the_same_state(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, options: list[str], command: str
) -> None:
    monkeypatch.delenv("KENNEL_LOCAL_STATE", raising=False)
    running = SimpleNamespace(endpoint_url="http://127.0.0.1:4566", pid=1)
    monkeypatch.setattr("cli.local.commands.start", lambda *_, **__: running)
    code, output = shell.kennel("local", "up", *options)
    assert code == 0, output
    assert f'eval "$({command})"' in output
