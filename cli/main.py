"""`kennel`: the command line, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer
from rich.text import Text

from cli.auditing import command as auditing
from cli.aws import Stage
from cli.batch import commands as batch
from cli.console import error_console
from cli.costs import command as costs
from cli.data import commands as data
from cli.errors import KennelError
from cli.load import command as loading
from cli.local import commands as local
from cli.local import demo
from cli.models import commands as models
from cli.operating import deploying, destroying
from cli.operating import status as looking
from cli.operating.doctor import command as doctor
from cli.planning import command as planning
from cli.serving import classify as classifying
from cli.serving import container_image
from cli.training import commands as training
from cli.training import packaging, report
from cli.tuning import commands as tuning

app = typer.Typer(
    name="kennel",
    help="Train, deploy and call an image classifier on the AWS that the environment names.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(local.app, name="local")
app.add_typer(data.app, name="data")
app.add_typer(tuning.app, name="tune")
app.add_typer(models.app, name="models")
app.add_typer(container_image.app, name="image")
app.command("train")(training.train)
app.command("report")(report.report)
app.command("package")(packaging.package)
app.command("deploy")(deploying.deploy)
app.command("classify")(classifying.classify)
app.command("evaluate")(classifying.evaluate)
app.command("batch")(batch.batch)
app.command("cost")(costs.cost)
app.command("load-test")(loading.load_test)
app.command("plan")(planning.plan)
app.command("status")(looking.status)
app.command("doctor")(doctor.doctor)
app.command("audit")(auditing.audit)
app.command("destroy")(destroying.destroy)
app.command("demo")(demo.demo)
app.command("demo-scaling")(demo.demo_scaling)


@app.callback()
def select_stage(
    context: typer.Context,
    stage: Annotated[
        str,
        typer.Option(envvar="KENNEL_STAGE", help="A file in infra/environments: local, dev, serverless, prod, …"),
    ] = "dev",
) -> None:
    """Remember the stage for the command that follows."""
    given = getattr(context.get_parameter_source("stage"), "name", None) == "COMMANDLINE"
    context.obj = Stage(stage, f"kennel --stage {stage}" if given else "kennel")


def main() -> None:
    """Run the command line and exit with the code that `cli.errors` documents."""
    try:
        sys.exit(app(standalone_mode=False))
    except KennelError as error:
        error_console.print(Text("error:", style="bold red"), str(error))
        if error.hint:
            error_console.print(error.hint)
        sys.exit(error.exit_code)
    except typer.TyperException as error:  # arguments that are no use, which may be file names: any text
        error_console.print(error.format_message())
        error_console.print("What is allowed: kennel --help, kennel COMMAND --help")
        sys.exit(error.exit_code)
    except typer.Abort:  # Ctrl-C at a question, or nobody there to answer it
        error_console.print("\ninterrupted; where nobody can answer: --yes")
        sys.exit(130)
    except KeyboardInterrupt:
        error_console.print("interrupted")
        sys.exit(130)
    except BrokenPipeError:  # the reader (head, less) went away: not an error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception:  # a bug, whose message may hold any text, too
        error_console.print(traceback.format_exc(), end="")
        sys.exit(1)
