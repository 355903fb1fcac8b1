"""`kennel local`: the AWS that lives on this machine."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from cli.console import AsJson, console, progress_bar, show
from cli.errors import NotReadyError, UsageError, goes_on
from cli.help import Sections
from emulator.platform.conditions import DEFAULT_SPOT_WAIT_SECONDS, MAX_CLOCK, Conditions, SpotInterruption, problems
from emulator.platform.running import lifecycle
from emulator.quotas import service as quotas

app = typer.Typer(cls=Sections, help="An AWS on this machine.", no_args_is_help=True)

STATE_DIR = Path(".kennel/local")
# What a shell that was used with a real account may hold, and what would be mixed with the local credentials.
_FOREIGN_VARIABLES = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
DEFAULT_PORT = 4566
_CONDITIONS = "--interrupt-spot-after, --quota, --access-log-delay, --clock and --instance-start"
Port = Annotated[
    int | None, typer.Option(min=1, max=65535, show_default=str(DEFAULT_PORT), help="The one port on 127.0.0.1.")
]
StateDir = Annotated[Path, typer.Option(envvar="KENNEL_LOCAL_STATE", help="Where the local AWS keeps its state.")]


@contextmanager
def _local_errors() -> Iterator[None]:
    try:
        yield
    except lifecycle.LocalAwsError as error:
        raise NotReadyError(str(error)) from error
    except quotas.QuotaError as error:
        raise UsageError(str(error)) from None
    except ValidationError as error:
        raise UsageError(problems(error)) from None


@goes_on("The local AWS goes on starting; it costs nothing. See: kennel local status  Stop it: kennel local down")
def start(state_dir: Path, port: int | None, **conditions: Any) -> lifecycle.Status:
    """Start the local AWS with members of `Conditions`, unless it runs already; in another way is a NotReadyError."""
    with _local_errors(), progress_bar("Starting the local AWS"):
        try:
            return lifecycle.up(state_dir.resolve(), port or DEFAULT_PORT, Conditions(**conditions))
        except lifecycle.AlreadyRunningError as running:
            runs_at = running.status.port
            if port not in (None, runs_at):
                raise NotReadyError(
                    f"The local AWS runs already, on port {runs_at} and not on {port}.",
                    "Leave out --port, or stop it first: kennel local down",
                ) from None
            if not conditions:
                return running.status
            # It would not do what was asked for, and a rehearsal that changes nothing looks like a success.
            message = f"{running} It takes {_CONDITIONS} at its start only."
            raise NotReadyError(message, "Stop it first: kennel local down") from None


def running(state_dir: Path) -> lifecycle.Status:
    """Return the local AWS that answers; NotReadyError where none does."""
    with _local_errors():
        if (found := lifecycle.status(state_dir.resolve())) is not None:
            return found
    raise NotReadyError("The local AWS is not running.", "Start it: kennel local up")


def environment(state_dir: Path) -> dict[str, str]:
    """The variables that point any AWS client, and `kennel` itself, at the local AWS."""
    running(state_dir)
    with _local_errors():
        return {**lifecycle.environment(state_dir.resolve()), "KENNEL_STAGE": "local"}


def enter(state_dir: Path) -> None:
    """Point this process, and what it starts, at the local AWS."""
    for name in _FOREIGN_VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(environment(state_dir))


@app.command()
def up(
    state_dir: StateDir = STATE_DIR,
    port: Port = None,
    interrupt_spot_after: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Take the instances of every managed spot training job back once, after so long a training.",
        ),
    ] = None,
    spot_wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long such a job then waits for others.")
    ] = DEFAULT_SPOT_WAIT_SECONDS,
    quota: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="What the account may have, by the name that Service Quotas lists."),
    ] = None,
    access_log_delay: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="How late S3 delivers access logs.")
    ] = None,
    clock: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=MAX_CLOCK,
            metavar="SPEED",
            help="How many seconds of AWS pass in one second: in metrics, alarms, scaling, schedules and rollouts.",
        ),
    ] = None,
    instance_start: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="How long a new endpoint instance takes to start, by that clock."),
    ] = None,
) -> None:
    """Start the local AWS in the background."""
    with _local_errors():
        taken_back = None
        if interrupt_spot_after is not None:
            taken_back = SpotInterruption(after_seconds=interrupt_spot_after, wait_seconds=spot_wait)
        asked = {
            "spot_interruption": taken_back,
            "quotas": dict(map(quotas.parse, quota)) if quota else None,
            "access_log_seconds": access_log_delay,
            "clock": clock,
            "instance_start_seconds": instance_start,
        }
    started = start(state_dir, port, **{name: given for name, given in asked.items() if given is not None})
    console.print(f"The local AWS answers at {started.endpoint_url} (process {started.pid}).")
    option = "" if state_dir == STATE_DIR else f" --state-dir {shlex.quote(str(state_dir))}"
    console.print(f'Point this shell at it: eval "$(kennel local env{option})"')


@app.command()
def status(state_dir: StateDir = STATE_DIR, as_json: AsJson = False) -> None:
    """Say whether the local AWS runs, and where (exit code 3: no)."""
    found = running(state_dir)
    warning = [found.warning] if found.warning else []
    where = f"The local AWS answers at {found.endpoint_url} (process {found.pid})."
    show({**asdict(found), "warning": found.warning}, where, *warning)


@app.command()
def env(state_dir: StateDir = STATE_DIR) -> None:
    """Print the variables that point a shell at the local AWS."""
    variables = environment(state_dir)
    typer.echo(f"unset {' '.join(_FOREIGN_VARIABLES)}")
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command()
def logs(
    state_dir: StateDir = STATE_DIR,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 100,
) -> None:
    """Show the end of the local AWS's log."""
    path = lifecycle.log_path(state_dir.resolve())
    if not path.exists():
        raise NotReadyError(f"There is no log at {path}: the local AWS has not been started yet.")
    console.print("\n".join(path.read_text(errors="replace").splitlines()[-lines:]))


@app.command()
def down(
    state_dir: StateDir = STATE_DIR,
    delete_state: Annotated[bool, typer.Option("--delete-state", help="Also forget everything it holds.")] = False,
) -> None:
    """Stop the local AWS; its state stays for the next start."""
    with _local_errors():
        running = lifecycle.status(state_dir.resolve()) is not None
        lifecycle.down(state_dir.resolve())
    console.print("The local AWS is stopped." if running else "The local AWS was not running.")
    if delete_state:
        shutil.rmtree(state_dir, ignore_errors=True)
        console.print("Its state is deleted.")
