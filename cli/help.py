"""How `kennel --help` looks: commands in sections, each with one whole sentence; examples that can be pasted."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

_HELP = tomllib.loads(Path(__file__).with_name("help.toml").read_text("utf-8"))


class Sections(TyperGroup):
    """A group of commands; the outermost one lists them in sections."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        _explain(self)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take nothing at all as a wish for help: no error of a person who looks around."""
        return super().parse_args(ctx, args or ["--help"] * self.no_args_is_help)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the names with the first sentences of their help."""
        sections = {"Commands": list(self.commands)} if ctx.parent else _HELP["sections"]
        for heading, names in sections.items():
            with formatter.section(heading):
                width = max(map(len, self.commands))
                formatter.write_dl([(name.ljust(width), self.commands[name].short_help) for name in names])


def _explain(command: Any, *path: str) -> None:
    """Give a command, and those below it, a summary that is not cut off, and examples."""
    command.short_help = f"{(command.help or '').partition('.')[0]}."
    if examples := _HELP["examples"].get(" ".join(path)):
        command.epilog = "\n".join(["\b", "Examples:", *(f"  {line}" for line in examples)])  # \b: in lines as they are
    for name, each in getattr(command, "commands", {}).items():
        _explain(each, *path, name)
