"""`kennel models list | approve | deploy | rollback`."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.aws import Stage, announce
from cli.console import AsJson, Yes, console, show
from cli.errors import NotReadyError
from cli.help import Sections
from cli.models import registry
from cli.models.registry import APPROVED, REJECTED, Version
from cli.operating.deploying import deploy_stacks, require_answers

app = typer.Typer(cls=Sections, help="The packaged models: list, approve, deploy, roll back.", no_args_is_help=True)


@app.command("list")
def list_versions(context: typer.Context, as_json: AsJson = False) -> None:
    """List the versions, and which of them is deployed."""
    stage: Stage = context.obj
    versions, deployed = registry.versions(stage), registry.deployed_digest(stage)
    rows = [asdict(version) | {"deployed": version.digest == deployed} for version in versions]
    table = Table("version", "status", "registered", "accuracy", "digest", "")
    for version in versions:
        known, here = version.metadata, "deployed" if version.digest == deployed else ""
        status = version.status.removesuffix("ManualApproval")  # a line has room for "Pending"
        accuracy = known.get("test_accuracy") or known.get("valid_accuracy", "")
        digest = version.digest.removeprefix("sha256:")[:12]
        table.add_row(str(version.number), status, f"{version.registered:%Y-%m-%d %H:%M}", accuracy, digest, here)
    document = {"deployed_digest": deployed, "versions": rows}
    show(document, table if versions else f"No model is registered yet: {stage.kennel} package")
    if deployed and deployed not in {version.digest for version in versions}:
        console.print(f"The deployed model, {deployed[:19]}, is not registered.")


@app.command()
def approve(
    context: typer.Context, version: Annotated[int, typer.Argument(help="The version that may be deployed.")]
) -> None:
    """Approve a version, so that it can be deployed."""
    stage: Stage = context.obj
    announce(stage)
    chosen = _find(stage, registry.versions(stage), version)
    registry.set_status(stage, chosen, APPROVED, "kennel models approve")
    console.print(f"Version {version} is approved. Deploy it: {stage.kennel} models deploy {version}")


@app.command()
def deploy(
    context: typer.Context,
    version: Annotated[int | None, typer.Argument(help="Default: the newest approved one.")] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Deploy an approved version, whose digest is checked."""
    stage: Stage = context.obj
    require_answers(f"{stage.kennel} models deploy", yes=yes)
    announce(stage)
    versions = registry.versions(stage)
    approved = [found for found in versions if found.status == APPROVED]
    if version is None and not approved:
        hint = f"{stage.kennel} models list, then {stage.kennel} models approve VERSION"
        raise NotReadyError("No version is approved.", hint)
    chosen = approved[0] if version is None else _find(stage, versions, version)
    if chosen not in approved:
        hint = f"Approve it: {stage.kennel} models approve {version}"
        raise NotReadyError(f"Version {version} is not approved (status {chosen.status}).", hint)
    _deploy(stage, chosen, ask=not yes)


@app.command()
def rollback(context: typer.Context, yes: Yes = False, as_json: AsJson = False) -> None:
    """Reject the deployed version, deploy the one before it."""
    stage: Stage = context.obj
    require_answers(f"{stage.kennel} models rollback", yes=yes)
    announce(stage)
    versions, digest = registry.versions(stage), registry.deployed_digest(stage)
    earlier = [found for found in versions if found.deployed and found.status != REJECTED and found.digest != digest]
    if not earlier:
        hint = f"Choose one: {stage.kennel} models list, then {stage.kennel} models deploy VERSION"
        raise NotReadyError("No other version has been deployed before, or they are all rejected.", hint)
    chosen = max(earlier, key=lambda found: found.deployed)
    for present in versions:  # first: however the deployment ends, nothing deploys this one again
        if present.digest == digest:
            registry.set_status(stage, present, REJECTED, f"kennel models rollback to version {chosen.number}")
            again = f"{stage.kennel} models approve {present.number}"
            console.print(f"Version {present.number} is rejected. If it was not to blame: {again}")
    _deploy(stage, chosen, ask=not yes)


def _find(stage: Stage, versions: list[Version], number: int) -> Version:
    for version in versions:
        if version.number == number:
            return version
    has = ", ".join(str(version.number) for version in versions) or "none"
    raise NotReadyError(f"There is no version {number}. There are: {has}.", f"{stage.kennel} models list")


def _deploy(stage: Stage, version: Version, *, ask: bool) -> None:
    """Deploy a version as `kennel deploy` does; its artifact becomes the stage's, which a later deployment keeps."""
    console.print(f"Deploying version {version.number}, {version.digest[:19]}.")
    stage.artifact.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=stage.artifact.parent) as folder:
        fetched = Path(folder, "model.tar.gz")
        registry.fetch(stage, version, fetched)
        deploy_stacks(stage, ["inference"], ask=ask, artifact=fetched)
        fetched.replace(stage.artifact)
    show({"deployed": asdict(version)}, f"Version {version.number} is deployed.")
