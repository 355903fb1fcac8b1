"""Text that comes from data, logs, files or AWS is shown by a terminal, and never obeyed by it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from fake_stage import FakeStage
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.color import ColorSystem

from cli import console, main
from cli.aws import ROOT
from cli.console import SafeConsole, plain
from cli.errors import aws_errors

#: A link, a question to the terminal, a title in 8 bits, clipboard, title, a cleared screen in both forms of an
#: introducer, the start of the line, the other direction, half a character, and markup, some of it nonsense.
HOSTILE = (
    "\x1b]8;;x:\a\x1bP+q\x1b\\\x9d0;x\x9c\x1b]52;c;aGk=\a\x1b]0;mine\x1b\\\x1b[2J\x9b2J\x1bc\r\u202ecod\u2066\udce9"
    "[bold]x[/nonsense]:dog:"
)
#: The same where it may be part of a name of a file.
HOSTILE_NAME = HOSTILE.replace("/", "")
#: What rich itself sends to a terminal: colours, a cursor that is hidden, lines that are drawn again.
_OWN = re.compile(r"\x1b\[(\?25[lh]|[0-9;]*m|[0-9]*[AK])|\r")
_UNSAFE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Gives what has been printed in a terminal; it fails when the terminal would obey any of it."""
    for made in (console.console, console.error_console):
        monkeypatch.setattr(made, "_width", 4000)
        monkeypatch.setattr(made, "_force_terminal", True)
        monkeypatch.setattr(made, "_color_system", ColorSystem.TRUECOLOR)

    def shown() -> str:
        text = _OWN.sub("", "".join(capsys.readouterr()))
        assert not _UNSAFE.findall(text), text
        return text

    return shown


@pytest.fixture
def kennel(shown: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs `kennel` and gives what it shows."""
    monkeypatch.setattr(main, "Stage", lambda *_: FakeStage())
    monkeypatch.delenv("KENNEL_STAGE", raising=False)

    def run(*arguments: str, code: int) -> str:
        monkeypatch.setattr("sys.argv", ["kennel", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        assert stopped.value.code in (code, None)
        return shown()

    return run


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


def test_classes_and_files_of_a_data_set(kennel: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "dogs"
    for split, name in product(("train", "valid"), ("a", HOSTILE_NAME)):
        label = folder / split / name
        label.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(label / "a.png")
        for suffix in ("png", "txt"):
            (label / f"{HOSTILE_NAME}.{suffix}").write_bytes(b"no image")
    assert shows(kennel("data", "check", str(folder), code=3))  # one class's name is no text
    assert '"usable": false' in kennel("data", "check", str(folder), "--json", code=3)
    for split in ("train", "valid"):
        (folder / split / HOSTILE_NAME).rename(folder / split / "b")
    assert shows(kennel("data", "shrink", str(folder), str(tmp_path / "small"), code=0))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (botocore.exceptions.ClientError({"Error": {"Code": HOSTILE, "Message": HOSTILE}}, HOSTILE), 4),
        (RuntimeError(HOSTILE), 1),
    ],
    ids=["of AWS", "of ours"],
)
def test_errors(kennel: Callable[..., str], monkeypatch: pytest.MonkeyPatch, error: Exception, code: int) -> None:
    def fail(*_: Any, **__: Any) -> None:
        with aws_errors():  # as every client is made
            raise error

    monkeypatch.setattr(FakeStage, "client", fail)
    assert shows(kennel("train", "--follow", "job", code=code))


@pytest.mark.parametrize("arguments", [[f"--{HOSTILE}"], [HOSTILE], ["train", "--set", HOSTILE]])
def test_arguments_that_are_file_names(kennel: Callable[..., str], arguments: list[str]) -> None:
    assert "x1b]52;c;aGk" in kennel(*arguments, code=2)


def test_progress_names_what_it_is_of(shown: Callable[[], str]) -> None:
    for in_bytes in (False, True):
        with console.progress_bar(HOSTILE, 2, in_bytes=in_bytes) as report:
            report(1)
    shown()
