"""`kennel deploy`: the CDK app's stacks, with what can be known before and what has to be checked after."""

from __future__ import annotations

import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.aws import Stage, announce
from cli.cdk import run_cdk
from cli.console import AsJson, Yes, console, show
from cli.console import ask as ask_person
from cli.costs.command import compare
from cli.costs.table import Total
from cli.errors import NotReadyError, UsageError, goes_on
from cli.models.registry import note_deployment, refuse_rejected
from cli.operating.log_retention import limit_logs
from cli.operating.preflight import require_room
from cli.operating.verifying import endpoint_is_deleted, verify_inference
from model.core.artifact import CARD_FILE, ArtifactError, ModelCard


class StackKind(StrEnum):
    """The stacks that can be deployed on their own."""

    STORAGE = "storage"
    TRAINING = "training"
    INFERENCE = "inference"


_BOOTSTRAP_STACK = "CDKToolkit"
_BOOTSTRAP = (
    "This account and region have not been prepared for the CDK yet. cdk bootstrap makes, once for all CDK apps, the "
    f"stack {_BOOTSTRAP_STACK}: a bucket and a container registry for what is deployed, and five roles. CloudFormation "
    "makes the stacks with one of them, which has the policy AdministratorAccess: users of the other roles can deploy "
    "anything in this account. For a narrower policy run cdk bootstrap --cloudformation-execution-policies yourself."
)


def deploy(
    context: typer.Context,
    stacks: Annotated[list[StackKind] | None, typer.Argument(help="Default: all that can be deployed.")] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Deploy the stacks; that of inference once there is a model."""
    stage: Stage = context.obj
    kinds = [str(kind) for kind in stacks or StackKind]
    if waits := "inference" in kinds and not stage.artifact.exists():
        if stacks:
            hint = "Make one: kennel train, then kennel package"
            raise NotReadyError(f"There is no model artifact at {stage.artifact}.", hint)
        kinds.remove("inference")
    require_answers(f"{stage.kennel} deploy", yes=yes)
    announce(stage)
    if "inference" not in kinds and stage.find_stack(stage.stack_name("inference")) is None:
        require_room(stage, now=False)
    deploy_stacks(stage, kinds, ask=not yes)
    lines = [f"Deployed {', '.join(kinds)}."]
    url = stage.output("inference", "FunctionUrl") if "inference" in kinds else None
    if waits:
        lines.append(
            "The inference stack waits for a model artifact: kennel data push, kennel train, kennel package, then "
            "kennel deploy again."
        )
    elif url:
        lines += [f"The function answers at {url}", "Try it: kennel classify IMAGE"]
    show({"deployed": kinds, "function_url": url}, *lines)


def require_answers(command: str, *, yes: bool) -> None:
    """Refuse a command that deploys where nobody can answer its questions."""
    if not yes and not sys.stdin.isatty():
        raise UsageError(
            "There is no terminal to ask on, and a deployment asks about permissions.",
            f"Agree beforehand: {command} --yes",
        )


def deploy_stacks(
    stage: Stage, kinds: list[str], *, ask: bool = False, log: Path | None = None, artifact: Path | None = None
) -> None:
    """Deploy some of the stage's stacks: say the costs, check the quotas, bootstrap, deploy, call the function once.

    With `ask`, a person has to agree to bootstrapping and to new permissions. `artifact` replaces that of the settings.
    """
    version = _model_version(artifact or stage.artifact) if "inference" in kinds else None
    comparison = compare(stage, kinds)
    comparison.tell()
    note = f"What CloudFormation has begun goes on, then billed with {Total.of(comparison.after)}."
    with goes_on(f"{note}\nBring it to an end: {stage.kennel} deploy. Remove it: {stage.kennel} destroy"):
        if version:
            refuse_rejected(stage, artifact or stage.artifact)
            require_room(stage)
        if stage.find_stack(_BOOTSTRAP_STACK) is None:
            console.print(_BOOTSTRAP)
            ask_person(f"Bootstrap {stage.place}?", yes=not ask)
            run_cdk("bootstrap", f"aws://{stage.account}/{stage.region}", stage=stage, log=log)
        approval = ["--require-approval", "broadening" if ask else "never"]
        names = [stage.stack_name(kind) for kind in kinds]
        model = [] if artifact is None else ["-c", f"artifact={artifact}"]
        if "inference" in kinds and endpoint_is_deleted(stage):
            console.print("The endpoint was deleted, as the cost guard does when nobody calls it. It is made again.")
            taken_out = [stage.stack_name("inference"), "--exclusively", *approval, *model, "-c", "endpoint=deleted"]
            run_cdk("deploy", *taken_out, stage=stage, log=log)
        run_cdk("deploy", *names, "--exclusively", *approval, *model, stage=stage, log=log)
        limit_logs(stage, kinds)
        if version:
            verify_inference(stage, version)
            note_deployment(stage)


def _model_version(artifact: Path) -> str:
    from model.core import packaging  # numpy and the inference engine: not needed by the other commands

    try:
        with tempfile.TemporaryDirectory() as folder:
            packaging.unpack(artifact, Path(folder), (CARD_FILE,))
            return ModelCard.load(Path(folder)).version
    except ArtifactError as error:
        raise NotReadyError(f"The model cannot be deployed: {error}", "Make it again: kennel package") from error
