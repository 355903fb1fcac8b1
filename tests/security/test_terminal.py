"""Text that comes from data, logs, files or AWS is shown by a terminal, and never obeyed by it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from fake_s3 import FakeS3
from fake_stage import FakeStage
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.color import ColorSystem

from cli import console, main
from cli.aws import ROOT, Stage
from cli.console import SafeConsole, plain
from cli.serving import classify as classifying
from cli.serving.function_client import Answer
from cli.training import sagemaker as training

#: Clipboard, title, a cleared screen in both forms of an introducer, the start of the line, the other direction, half a
#: character, and markup, some of it nonsense.
HOSTILE = "\x1b]52;c;aGk=\a\x1b]0;mine\x1b\\\x1b[2J\x9b2J\x1bc\r\u202ecod\u2066\udce9[bold]x[/nonsense]:dog:"
#: The same where it may be part of a name of a file.
HOSTILE_NAME = HOSTILE.replace("/", "")
#: What rich itself sends to a terminal: colours, a cursor that is hidden, lines that are drawn again.
_OWN = re.compile(r"\x1b\[(\?25[lh]|[0-9;]*m|[0-9]*[AK])|\r")
_UNSAFE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class HostileAws:
    """SageMaker and CloudWatch Logs, all of whose texts are hostile; a training job has failed."""

    def describe_training_job(self, **_: Any) -> dict[str, Any]:
        return {"TrainingJobStatus": "Failed", "FailureReason": HOSTILE}

    def describe_log_streams(self, **_: Any) -> dict[str, Any]:
        return {"logStreams": [{"logStreamName": f"job/{HOSTILE}{number}-1"} for number in range(2)]}

    def get_log_events(self, *, nextToken: str | None = None, **_: Any) -> dict[str, Any]:
        return {"events": [] if nextToken else [{"message": HOSTILE}], "nextForwardToken": "end"}

    def describe_endpoint(self, **_: Any) -> dict[str, Any]:
        return {"EndpointConfigName": HOSTILE}

    def describe_endpoint_config(self, **_: Any) -> dict[str, Any]:
        return {"ProductionVariants": [{"ModelName": HOSTILE}]}


class Screen:
    """Runs commands and keeps what they print, in a terminal or into a file."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *, terminal: bool) -> None:
        self._capsys, self._terminal = capsys, terminal

    def kennel(self, *arguments: str, code: int) -> str:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
            patch.setattr("sys.argv", ["kennel", *arguments])
            main.main()
        assert stopped.value.code in (code, None)
        return self.shown()

    def shown(self) -> str:
        """What has been printed; the test fails when a terminal would obey any of it."""
        captured = self._capsys.readouterr()
        text = captured.out + captured.err
        if self._terminal:
            text = _OWN.sub("", text)
        assert not _UNSAFE.findall(text), text
        return text


@pytest.fixture(params=[True, False], ids=["terminal", "file"])
def screen(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Screen:
    for made in (console.console, console.error_console):
        monkeypatch.setattr(made, "_width", 4000)
        if request.param:
            monkeypatch.setattr(made, "_force_terminal", True)
            monkeypatch.setattr(made, "_color_system", ColorSystem.TRUECOLOR)
    return Screen(capsys, terminal=request.param)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Any:
    stage: Any = FakeStage(s3=FakeS3(), aws=HostileAws())
    monkeypatch.setattr(main, "Stage", lambda *_: stage)
    monkeypatch.delenv("KENNEL_STAGE", raising=False)
    monkeypatch.setattr(training, "_POLL_SECONDS", 0.0)
    return stage


def shows(text: str) -> bool:
    """Whether the hostile text is there, so that no test passes because nothing was printed."""
    return r"\x1b]52;c;aGk=" in text and r"\x9b2J" in text and "[bold]x[" in text and ":dog:" in text


def test_the_command_line_prints_in_no_other_way() -> None:
    others = re.compile(
        r"\bprint\((?<!console\.print\()|\bConsole\(|from_markup|from_ansi|markup=True|std(out|err)\.write"
    )
    exact = re.compile(r"typer\.echo\((json\.dumps\(|f\"(unset|export) )")  # JSON escapes, as does a shell's quoting
    for path in (ROOT / "cli").rglob("*.py"):
        for line in path.read_text().splitlines():
            if path.name != "console.py":
                assert not others.search(line), f"{path}: {line}"
            assert "typer.echo" not in line or exact.search(line), f"{path}: {line}"


@given(st.text())
def test_any_text_is_plain(text: str) -> None:
    printed = io.StringIO()
    made = SafeConsole()
    made.file = printed
    made.print(text, style="bold")
    assert not _UNSAFE.findall(printed.getvalue().replace("\n", ""))
    assert plain(plain(text)) == plain(text)


def test_colours_of_a_log_are_left_out_and_letters_of_the_world_are_not() -> None:
    assert plain("\x1b[1;31mred\x1b[0m\tépagneul 犬 🐕 כלב\n") == "red\tépagneul 犬 🐕 כלב\n"


def test_log_lines_and_reasons_of_a_training_job(screen: Screen, stage: Any) -> None:
    text = screen.kennel("train", "--follow", "job", code=5)
    assert shows(text)
    assert text.count("mine") >= 3  # two lines, and the reason


def test_pictures_answers_and_errors_of_the_function(
    screen: Screen, stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / HOSTILE_NAME
    picture.write_bytes(b"")
    body: dict[str, Any] = {"predictions": [{"label": HOSTILE, "probability": 0.5}]}

    class Client:
        def __init__(self, _: Stage) -> None: ...

        def classify_bytes(self, *_: Any, **__: Any) -> Answer:
            return Answer(200 if "predictions" in body else 400, body)

    monkeypatch.setattr(classifying, "FunctionClient", Client)
    assert shows(screen.kennel("classify", str(picture), code=0))
    answer = json.loads(screen.kennel("classify", str(picture), "--json", code=0))
    assert answer["predictions"] == body["predictions"]
    body.clear()
    body["error"] = {"message": HOSTILE, "code": HOSTILE}
    assert shows(screen.kennel("classify", str(picture), code=5))
    assert shows(screen.kennel("classify", f"{picture}?", code=3))


def test_classes_and_files_of_a_data_set(screen: Screen, stage: Any, tmp_path: Path) -> None:
    folder = tmp_path / "dogs"
    for split, name in product(("train", "valid"), ("a", HOSTILE_NAME)):
        label = folder / split / name
        label.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(label / "a.png")
        (label / f"{HOSTILE_NAME}.png").write_bytes(b"no picture")
        (label / f"{HOSTILE_NAME}.txt").write_bytes(b"no picture")
    assert shows(screen.kennel("data", "check", str(folder), code=3))  # one class's name is no text
    assert '"usable": false' in screen.kennel("data", "check", str(folder), "--json", code=3)
    assert shows(screen.kennel("data", "shrink", str(folder), str(tmp_path / "small"), code=0))
    assert shows(screen.kennel("data", "check", str(tmp_path / HOSTILE_NAME), code=3))
    (folder / "valid" / HOSTILE_NAME).rename(folder / "valid" / f"{HOSTILE_NAME}2")
    assert shows(screen.kennel("data", "push", str(folder), "--name", "dogs", code=3))


def test_the_log_of_the_local_aws(screen: Screen, tmp_path: Path) -> None:
    from emulator.platform import lifecycle

    path = lifecycle.log_path(tmp_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(HOSTILE.encode(errors="surrogateescape") + b"\n")
    assert r"\x1b]52;c;aGk=" in screen.kennel("local", "logs", "--state-dir", str(tmp_path), code=0)


def refusal() -> Exception:
    error = {"Error": {"Code": HOSTILE, "Message": HOSTILE}}
    return botocore.exceptions.ClientError(error, HOSTILE)  # type: ignore[arg-type]


@pytest.mark.parametrize(("error", "code"), [(refusal, 4), (lambda: RuntimeError(HOSTILE), 1)])
def test_errors_of_aws_and_of_ours(
    screen: Screen, stage: Any, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception], code: int
) -> None:
    def fail(**_: Any) -> None:
        raise error()

    monkeypatch.setattr(stage.aws, "describe_training_job", fail, raising=False)
    assert shows(screen.kennel("train", "--follow", "job", code=code))


@pytest.mark.parametrize("arguments", [[f"--{HOSTILE}"], [HOSTILE], ["train", "--set", HOSTILE], ["train", HOSTILE]])
def test_arguments_that_are_file_names(screen: Screen, stage: Any, arguments: list[str]) -> None:
    assert "x1b]52;c;aGk" in screen.kennel(*arguments, code=2)


def test_progress_names_what_it_is_of(screen: Screen) -> None:
    with console.progress_bar(HOSTILE, 2) as report_steps:
        report_steps(1)
    with console.byte_progress(HOSTILE) as report_bytes:
        report_bytes(1, 2)
    screen.shown()
