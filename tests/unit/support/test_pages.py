"""What the pages let a reader type, write or follow: commands, settings, examples and links."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple, NoReturn

import pytest
import typer.main
import yaml

from cli.main import app
from emulator.__main__ import main as loopback_aws
from infra.settings import Settings
from infra.validation import read_table

ROOT = Path(__file__).resolve().parents[3]
FENCE = re.compile(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", re.MULTILINE)
KENNEL: Any = typer.main.get_command(app)
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
#: Need no AWS and little time: they are run as printed. What draws images comes before what reads them.
RUN = ("kennel data sample data/tutorial", "kennel data check data/tutorial", "kennel cost", "kennel plan --rate")


class Block(NamedTuple):
    place: str
    language: str
    text: str


def pages() -> Iterator[tuple[str, str]]:
    listing = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", "*.md", "*.ipynb"], cwd=ROOT)
    for name in listing.decode().split():
        text = (ROOT / name).read_text(encoding="utf-8")
        if name.endswith(".ipynb"):  # whose code a test of the integration runs
            cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
            text = "\n\n".join("".join(cell["source"]) for cell in cells)
        yield name, text
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        steps = [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]]
        yield path.name, "\n".join(f"```sh\n{step['run'].strip()}\n```" for step in steps if "run" in step)
    examples = tomllib.loads((ROOT / "cli/help.toml").read_text(encoding="utf-8"))["examples"].values()
    yield "cli/help.toml", "\n".join(f"```sh\n{line}\n```" for lines in examples for line in lines)


PAGES = dict(pages())
BLOCKS = [
    Block(f"{page}:{text[: found.start()].count(chr(10)) + 1}", found[2], dedent(found[3]))
    for page, text in PAGES.items()
    for found in FENCE.finditer(text)
]


def each(*languages: str) -> Any:
    found = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize("block", found, ids=[block.place for block in found])


def commands(script: str) -> Iterator[list[str]]:
    """Yield the words of each command in a script, also of those in $(…)."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            words = [*lexer, ";"]
        except ValueError:  # a text that goes on in the next line
            continue
        while words:
            end = next(index for index, word in enumerate(words) if set(word) <= set("();<>|&"))
            command, words = words[:end], words[end + 1 :]
            yield [word for index, word in enumerate(command) if index or not re.match(r"[A-Z_]+=", word)]
            for word in command:
                yield from commands(word[2:-1]) if word.startswith("$(") else ()


class ParsedError(BaseException):
    """The arguments are allowed; the program would begin now."""


def stop(parser: Any, *given: Any, parse: Any = argparse.ArgumentParser.parse_known_args) -> NoReturn:
    if unknown := parse(parser, *given)[1]:
        parser.error(f"unknown: {unknown}")
    raise ParsedError


def test_every_block_says_what_it_is() -> None:
    known = {"sh", "bash", "text", "toml", "json", "yaml", "python"}
    assert [block.place for block in BLOCKS if block.language not in known] == []


@each("sh", "bash")
def test_commands_exist_and_take_these_options(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    for program, *words in filter(None, commands(block.text)):
        if program == "loopback-aws" or words[:2] == ["-m", "emulator"]:
            monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
            with pytest.raises(ParsedError):
                loopback_aws(words[2:] if program == "python" else words)
            continue
        if Path(program).name == "kennel":
            context = KENNEL.make_context("kennel", words)  # parses, and raises what it would print
            while left := hasattr(context.command, "resolve_command") and context._protected_args + context.args:
                name, command, rest = context.command.resolve_command(context, left)
                context = command.make_context(name, rest, parent=context)
        elif program == "make":
            assert {word for word in words if "=" not in word} <= TARGETS
        elif program == "python" and words[0] == "-m":
            assert importlib.util.find_spec(words[1])
            if words[2:] and words[1] != "pytest":
                monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
                monkeypatch.setattr(sys, "argv", words[1:])
                with pytest.raises(ParsedError):
                    runpy.run_module(words[1], run_name="__main__")


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text_exist(page: str) -> None:
    for program, rest in re.findall(r"`(kennel|make|python -m) ([a-z][^`]*)`", FENCE.sub("", PAGES[page])):
        words = re.split(r"[\s|/\[\]]+", rest)
        if program != "kennel":
            assert words[0] in TARGETS if program == "make" else importlib.util.find_spec(words[0]), rest
            continue
        command, options = KENNEL, {"--help"}
        for word in words:
            options |= {option for given in command.params for option in given.opts + given.secondary_opts}
            assert not word.startswith("--") or word.split("=")[0] in options, rest
            command = getattr(command, "commands", {}).get(word, command)
        assert command is not KENNEL, rest


def test_commands_that_need_no_aws_run(tmp_path: Path) -> None:
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    lines = sorted({shlex.join(words) for block in BLOCKS if block.language == "sh" for words in commands(block.text)})
    for start in RUN:
        found = [line for line in lines if line.startswith(start)]
        assert found, f"no page has {start}"
        for line in found:
            subprocess.run(shlex.split(line), cwd=tmp_path, env=environment, check=True)


@each("toml")
def test_a_stage_can_have_these_settings(block: Block) -> None:
    stage = {"stage": "dev", "storage": {"retain": False}, "alarms": {}}
    read_table(Settings, stage | tomllib.loads(block.text))


@each("json", "yaml")
def test_documents_can_be_read(block: Block) -> None:
    rest = block.text.strip() if block.language == "json" else ""
    while rest:  # one document or several
        rest = rest[json.JSONDecoder().raw_decode(rest)[1] :].strip()
    assert block.language == "json" or yaml.safe_load(block.text)


@each("python")
def test_programs_find_what_they_import(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(ast.unparse(node), {})


def anchors(page: str) -> set[str]:
    """The names of a page's headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.+?)\s*$", FENCE.sub("", PAGES[page]), re.MULTILINE)
    texts = [re.sub(r"\[([^]]*)]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in texts}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", PAGES[page]))
    for target in re.findall(r"(?:]\(|(?:src|href)=\")([^)\s:\"]+)[)\"]", text):
        path, _, anchor = target.partition("#")
        found = os.path.relpath((ROOT / page).parent / path, ROOT) if path else page
        assert (ROOT / found).exists(), path
        assert not anchor or anchor in anchors(found), target
