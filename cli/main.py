"""`kennel`: the command line, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Annotated, Any

import typer
from rich.text import Text

from cli.auditing import command as auditing
from cli.aws import Stage
from cli.batch import commands as batch
from cli.console import console, error_console
from cli.costs import command as costs
from cli.data import commands as data
from cli.drift import command as drifting
from cli.errors import BugError, KennelError, NotReadyError
from cli.help import Sections
from cli.load import command as loading
from cli.local import commands as local
from cli.local import demo
from cli.models import commands as models
from cli.operating import deploying, destroying, new_stage
from cli.operating import status as looking
from cli.operating.doctor import command as doctor
from cli.planning import command as planning
from cli.serving import classify as classifying
from cli.serving import container_image
from cli.training import commands as training
from cli.training import packaging, report
from cli.tuning import commands as tuning
from cli.ui import command as page
from infra.settings import stages


class Kennel(Sections):
    """All commands; where they are interrupted or have a bug, that is said in a few lines."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except (KennelError, typer.TyperException, typer.Exit):
            raise
        except (KeyboardInterrupt, EOFError, typer.Abort) as interrupt:
            error_console.print("\ninterrupted", *getattr(interrupt, "__notes__", ()), sep="\n")
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader (head, less) went away: not an error of ours
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except Exception as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise  # not ours
            raise BugError(error, show=ctx.params["debug"]) from error


app = typer.Typer(
    cls=Kennel,
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
for _command in (
    *(training.train, report.report, packaging.package, new_stage.init, deploying.deploy),
    *(classifying.classify, page.ui, classifying.evaluate, batch.batch),
    *(loading.load_test, planning.plan, costs.cost),
    *(looking.status, doctor.doctor, drifting.drift, auditing.audit, destroying.destroy),
    *(demo.demo, demo.demo_scaling),
):
    app.command()(_command)


@app.callback()
def select_stage(
    context: typer.Context,
    stage: Annotated[
        str,
        typer.Option(
            envvar="KENNEL_STAGE",
            help=f"A file in infra/environments: {', '.join(stages())}.",
            autocompletion=lambda incomplete: [name for name in stages() if name.startswith(incomplete)],
        ),
    ] = "dev",
    debug: Annotated[bool, typer.Option("--debug", envvar="KENNEL_DEBUG", help="Show a bug's stack trace.")] = False,
) -> None:
    """Train, deploy and call an image classifier on the AWS that the environment names."""
    console.stderr = False
    given = getattr(context.get_parameter_source("stage"), "name", None) == "COMMANDLINE"
    context.obj = Stage(stage, f"kennel --stage {stage}" if given else "kennel")


def main() -> None:
    """Run the command line and exit with the code that `cli.errors` documents."""
    sys.stdin = sys.stdin or io.StringIO()  # closed: nobody answers
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # of what its encoding lacks
    try:
        sys.exit(app(standalone_mode=False))
    except KennelError as error:
        error_console.print(Text("error:", style="bold red"), str(error))
        if error.hint:
            error_console.print(error.hint)
        sys.exit(error.exit_code)
    except OSError as error:
        error_console.print(f"error: {error.strerror}: {error.filename or 'where the output goes'}\nMake room.")
        sys.exit(NotReadyError.exit_code)
    except typer.TyperException as error:  # arguments that are no use, which may be file names: any text
        error_console.print(error.format_message())
        error_console.print("What is allowed: kennel --help, kennel COMMAND --help")
        sys.exit(error.exit_code)
