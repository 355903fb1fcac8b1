"""What a person sees when something is missing or wrong: one message, a next step, an exit code, no stack trace."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_stage import FakeStage

from cli import aws, main
from cli.errors import AwsError
from emulator.platform.running import lifecycle

Kennel = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, no_aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and no AWS in the environment."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(aws, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        ("data push nowhere", 3, ["There is no data set at nowhere", "kennel data sample"]),
        ("data push empty", 3, ["empty", "train/<class>"]),
        ("classify missing.jpg", 3, ["missing.jpg"]),
        ("deploy inference", 3, ["build/dev/model.tar.gz", "kennel train, then kennel package"]),
        ("package --from junk.tar.gz", 3, ["The model cannot be deployed", "junk.tar.gz"]),
        ("package --from other.tar.gz", 3, ["The model cannot be deployed", "model.json"]),
        ("package --from gone.tar.gz", 3, ["The model cannot be deployed", "gone.tar.gz"]),
        ("--stage prod deploy storage", 2, ["kennel --stage prod deploy --yes"]),  # nobody is there to answer
        ("--stage produktion deploy", 3, ["There is no stage 'produktion'", "dev"]),
        ("train --set lr:0.1", 2, ["--set 'lr:0.1' is not NAME=VALUE"]),
        ("report --from empty", 3, ["There is no metrics.json in empty", "kennel report"]),
        ("train --follow ..", 2, ["'..' is not the name of a job"]),
        ("train a-tuning-job", 2, ["What is 'a-tuning-job'?", "--best"]),
        ("train --spot", 2, ["--resume and --spot are for trainings on EC2", "--on ec2"]),
        ("train --on ec2 --instances 2", 2, ["on EC2 one instance trains"]),
        ("train --follow a --stop a", 2, ["--follow and --stop do not go together"]),
        ("train --follow a --instance-type x", 2, ["--follow takes a training as it was started"]),
        ("train --resume a --set lr=1", 2, ["--resume takes a training as it was started"]),
        ("local status", 3, ["The local AWS is not running", "kennel local up"]),
        ("nonsense", 2, ["No such command 'nonsense'"]),
        ("train --wat", 2, ["No such option"]),
    ],
)
def test_one_clear_message_and_an_exit_code(kennel: Kennel, arguments: str, code: int, parts: list[str]) -> None:
    Path("empty").mkdir()
    Path("junk.tar.gz").write_bytes(b"this is no archive")
    tarfile.open("other.tar.gz", "w:gz").close()
    Path("build/local").mkdir(parents=True)
    Path("build/local/model.tar.gz").write_bytes(b"a model of another stage")
    exit_code, output = kennel(*arguments.split())
    assert exit_code == code, output
    assert [part for part in parts if part not in output] == [], output


def test_an_unreachable_aws_is_named(kennel: Kennel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_MAX_ATTEMPTS"):
        monkeypatch.setenv(name, "1")
    exit_code, output = kennel("train")
    assert exit_code == 4
    assert "http://127.0.0.1:1" in output


@pytest.mark.parametrize(
    "command",
    ["deploy --yes storage", "destroy --yes", "train", "train --on ec2", "train --stop a", "tune stop", "batch s3://bucket/a/",
     "data push dogs --no-check"],
)  # fmt: skip
def test_what_changes_something_says_where_first(kennel, command, monkeypatch, tmp_path):
    class Somewhere(aws.Stage):
        account, region = "123456789012", "eu-north-1"

        def client(self, service: str, **options: object) -> None:
            raise AwsError("here the work would begin")

    monkeypatch.setattr(main, "Stage", Somewhere)
    for folder in [tmp_path / "dogs" / split / breed for split in ("train", "valid") for breed in ("Poodle", "Pug")]:
        folder.mkdir(parents=True)
        (folder / "1.jpg").write_bytes(b"x")
    exit_code, output = kennel(*command.split())
    assert exit_code in (4, 5), output
    where, begin = "Stage dev: account 123456789012, region eu-north-1.", "here the work would begin"
    assert -1 < output.find(where) < output.find(begin), output


def test_a_local_aws_that_runs_already_does_not_begin_to_be_otherwise(kennel, monkeypatch):
    def up(state_dir: Path, *rest: object, **conditions: object) -> lifecycle.Status:
        running = lifecycle.Status("http://127.0.0.1:4566", 4566, 1, state_dir)
        raise lifecycle.AlreadyRunningError("The local AWS is already running on port 4566 (process 1).", running)

    monkeypatch.setattr(lifecycle, "up", up)
    assert kennel("local", "up", "--port", "4566")[0] == 0
    code, printed = kennel("local", "up", "--quota", "Concurrent executions=10")
    assert code == 3
    assert all(part in printed for part in ("on port 4566", "--quota", "kennel local down"))


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [("n\n", 1, "error: Not agreed to"), ("", 130, "interrupted\nWhere nobody can answer: --yes\n")],
)
def test_an_answer_of_no_is_told_from_an_interruption(kennel, monkeypatch, answer, code, said):
    monkeypatch.setattr(main, "Stage", lambda *_: FakeStage())
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    exit_code, output = kennel("destroy")
    assert exit_code == code
    assert "Destroy the stage dev in account 123456789012, region us-east-1?" in output
    assert said in output
