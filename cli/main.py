"""`kennel`: the command line, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from cli import batch, classifying, container_image, data, demo, deploying, local, packaging, report, training, tuning
from cli.aws import Stage
from cli.console import error_console
from cli.errors import KennelError

app = typer.Typer(
    name="kennel",
    help="Train, deploy and call a picture classifier on the AWS that the environment names.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(local.app, name="local")
app.add_typer(data.app, name="data")
app.add_typer(tuning.app, name="tune")
app.add_typer(container_image.app, name="image")
app.command("train")(training.train)
app.command("report")(report.report)
app.command("package")(packaging.package)
app.command("deploy")(deploying.deploy)
app.command("classify")(classifying.classify)
app.command("evaluate")(classifying.evaluate)
app.command("batch")(batch.batch)
app.command("destroy")(deploying.destroy)
app.command("demo")(demo.demo)


@app.callback()
def select_stage(
    context: typer.Context,
    stage: Annotated[
        str,
        typer.Option(envvar="KENNEL_STAGE", help="Which infra/environments/<stage>.toml to use: local, dev, prod, …"),
    ] = "dev",
) -> None:
    """Remember the stage for the command that follows."""
    context.obj = Stage(stage)


def main() -> None:
    """Run the command line and exit with the code that `cli.errors` documents."""
    try:
        app()
    except KennelError as error:
        error_console.print(f"[bold red]error:[/] {_escape(str(error))}")
        if error.hint:
            error_console.print(_escape(error.hint))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        error_console.print("interrupted")
        sys.exit(130)
    except BrokenPipeError:  # the reader (head, less) went away: not an error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
