"""`kennel image`: the serving image, built with the container builder of this machine.

`kennel deploy` needs none: CodeBuild builds the image in AWS. A builder at hand shows that the image is sound before
anything is deployed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from cli.aws import ROOT
from cli.console import console
from cli.errors import NotReadyError, WorkFailedError

CONTEXT = ROOT / "model"
DEFAULT_TAG = "kennel-serving"
_INSTALL = "Install one of them: podman or buildah (Debian and Fedora have packages), or Docker."

app = typer.Typer(help="The serving image.", no_args_is_help=True)


@app.command()
def build(
    tag: Annotated[str, typer.Option(help="Name of the image.")] = DEFAULT_TAG,
    base: Annotated[str | None, typer.Option(help="Base image in place of the Dockerfile's.")] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(help="HOST:CONTAINER:ro, seen by the build only: certificates, pip.conf. Not with docker."),
    ] = None,
) -> None:
    """Build the serving image for this machine's instruction set."""
    builder = find_builder()
    build_image(builder, tag, base=base, volumes=volume or [])
    console.print(f"Built {tag} with {builder.name}.")


def find_builder() -> Path:
    """Return the path of a container builder that can be used here.

    Raises
    ------
    NotReadyError
        When there is none.
    """
    for name in ("docker", "podman", "buildah"):
        program = shutil.which(name)
        # Docker's client is no builder where no daemon runs.
        if program and _works(Path(program)):
            return Path(program)
    raise NotReadyError("No container builder works here: docker, podman and buildah were tried.", _INSTALL)


def _works(builder: Path) -> bool:
    environment = builder_environment(builder)
    return subprocess.run([builder, "info"], env=environment, capture_output=True, check=False).returncode == 0


def build_image(builder: Path, tag: str, *, base: str | None, volumes: list[str]) -> None:
    """Build `model/Dockerfile`, its output on the terminal.

    The image has one platform, Docker's media types and no attestations: SageMaker refuses image indexes.

    Parameters
    ----------
    builder : Path
        From `find_builder`.
    tag : str
        Name of the image.
    base : str, optional
        Base image in place of the Dockerfile's.
    volumes : list of str
        ``HOST:CONTAINER:ro``, mounted while the image is built.

    Raises
    ------
    WorkFailedError
        When the build failed.
    """
    one_image = ["--provenance=false", "--sbom=false"] if builder.name == "docker" else ["--format", "docker"]
    command = [str(builder), "build", *one_image, "--network", "host", "--tag", tag]
    command += ["--build-arg", f"BASE={base}"] if base else []
    command += [argument for volume in volumes for argument in ("--volume", volume)]
    if subprocess.run([*command, str(CONTEXT)], env=builder_environment(builder), check=False).returncode != 0:
        raise WorkFailedError(f"{builder.name} could not build the image; the reason is above.")


def builder_environment(builder: Path) -> dict[str, str]:
    """Return the environment to run the builder in.

    As root, as in a CI container, buildah needs neither a kernel with overlay mounts nor control groups when told so;
    what the environment says itself counts first.
    """
    own = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    return {**(own if builder.name == "buildah" and os.geteuid() == 0 else {}), **os.environ}
