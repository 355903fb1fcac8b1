"""Run an AWS on the loopback address of this machine: ``loopback-aws``, or ``python -m emulator``."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from emulator.ministack.configuration import ContractError
from emulator.platform.conditions import Conditions
from emulator.platform.running import lifecycle
from emulator.platform.running.layout import StateError
from emulator.quotas.service import QuotaError

_COMMANDS = {
    "up": "start it in the background",
    "down": "stop it and everything that it started",
    "status": "say whether it runs, and where",
    "env": "print the variables that point AWS tools at it, for eval",
    "notebook": "run a program, such as jupyter, as on a notebook instance with a role",
    "serve": "run it in the foreground",
    "operations": "print which operations act, as Markdown",
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="loopback-aws", description=(__doc__ or "").partition(":")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_text in _COMMANDS.items():
        command = commands.add_parser(name, help=help_text)
        command.add_argument("--state-dir", type=Path, default=Path(".local-aws"), help="default: %(default)s")
        if name == "notebook":
            command.add_argument("role", help="its ARN")
            command.add_argument("program", nargs=argparse.PARSER, help="and its arguments")
        if name in ("up", "serve"):
            command.add_argument("--port", type=int, default=4566, help="on 127.0.0.1, default: %(default)s")
            help_text = 'what it rehearses, such as {"access_log_seconds": 60}'
            command.add_argument(
                "--conditions", type=Conditions.from_json, default=Conditions(), metavar="JSON", help=help_text
            )
    try:
        return _run(parser.parse_args(arguments))
    except (lifecycle.LocalAwsError, StateError, ContractError, QuotaError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _run(options: argparse.Namespace) -> int:
    say, state_dir = sys.stdout.write, options.state_dir
    match options.command:
        case "serve":
            from emulator.platform.running.server import serve  # imports MiniStack, which takes a second

            serve(state_dir, options.port, options.conditions)
        case "notebook":
            return lifecycle.notebook(state_dir, options.role, options.program)
        case "operations":
            from emulator.operations import page

            say(page())
        case "up":
            say(_described(lifecycle.up(state_dir, options.port, options.conditions)))
        case "down":
            lifecycle.down(state_dir)
        case "status":
            found = lifecycle.status(state_dir)
            say(_described(found) if found else "The local AWS is not running.\n")
            return 0 if found else 1
        case "env":
            for name, value in lifecycle.environment(state_dir).items():
                say(f"export {name}={shlex.quote(value)}\n")
    return 0


def _described(running: lifecycle.Status) -> str:
    warning = f"{running.warning}\n" if running.warning else ""
    return f"The local AWS answers at {running.endpoint_url} (process {running.pid}).\n{warning}"


if __name__ == "__main__":
    sys.exit(main())
