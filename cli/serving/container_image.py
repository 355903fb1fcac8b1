"""`kennel image`: the serving image, built with the container builder of this machine.

`kennel deploy` needs none: CodeBuild builds the image in AWS. A builder at hand shows that the image is sound before
anything is deployed, and replaces CodeBuild in an account that may not use it.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli.aws import ROOT, Stage, announce
from cli.console import console
from cli.errors import NotReadyError, WorkFailedError, aws_errors
from cli.help import Sections
from infra import instance_types, serving_image

CONTEXT = ROOT / "model"
DOCKERFILE = CONTEXT / serving_image.DOCKERFILE
PLATFORMS = {"arm64": "linux/arm64", "x86_64": "linux/amd64"}
_INSTALL = "Install one of them: podman or buildah (Debian and Fedora have packages), or Docker."

app = typer.Typer(cls=Sections, help="The serving image.", no_args_is_help=True)

Base = Annotated[str | None, typer.Option(help="Base image in place of the Dockerfile's.")]


@app.command()
def build(tag: Annotated[str, typer.Option(help="Name of the image.")] = "kennel-serving", base: Base = None) -> None:
    """Build the serving image for this machine's instruction set."""
    builder = find_builder()
    build_image(builder, tag, base=base)
    console.print(f"Built {tag} with {builder.name}.")


@app.command()
def push(context: typer.Context, base: Base = None) -> None:
    """Build the stage's image here, push it to its repository.

    The next `kennel deploy` finds it there and builds nothing.
    """
    stage: Stage = context.obj
    if stage.settings.serving.image != "own":
        raise NotReadyError(f"serving.image in {stage.settings_file} names an image that is in ECR: nothing to push.")
    if os.environ.get("AWS_ENDPOINT_URL"):
        raise NotReadyError("The local AWS stores no images: its endpoints run the artifact's program as it is.")
    announce(stage)
    repository, tag = stage.output("storage", "ImageRepositoryUri"), stage_tag(stage)
    uri = f"{repository}:{tag}"
    if is_pushed(stage):
        console.print(f"{uri} is there already.")
        return
    builder = find_builder()
    architecture = instance_types.architecture(stage.settings.serving.instance_type)
    build_image(builder, uri, base=base, platform=PLATFORMS[architecture])
    with aws_errors():
        (token,) = stage.client("ecr").get_authorization_token()["authorizationData"]
    password = base64.b64decode(token["authorizationToken"]).decode().partition(":")[2]
    _run(builder, "login", "--username", "AWS", "--password-stdin", repository.partition("/")[0], stdin=password)
    _run(builder, "push", *([] if builder.name == "docker" else ["--format", "v2s2"]), uri)
    console.print(f"Pushed {uri}.")


def stage_tag(stage: Stage) -> str:
    """Return the tag of the image that `kennel deploy` would build or find."""
    return serving_image.image_tag(CONTEXT, instance_types.architecture(stage.settings.serving.instance_type))


def is_pushed(stage: Stage) -> bool:
    """Return whether the stage's repository has the image already; False where there is no repository."""
    uri = (stage.find_outputs("storage") or {}).get("ImageRepositoryUri")
    if uri is None:
        return False
    with aws_errors():
        found = stage.client("ecr").batch_get_image(
            repositoryName=uri.partition("/")[2], imageIds=[{"imageTag": stage_tag(stage)}]
        )
    return bool(found["images"])


def find_builder() -> Path:
    """Return the path of a container builder that can be used here; a NotReadyError when there is none."""
    for name in ("docker", "podman", "buildah"):
        if program := shutil.which(name):
            builder = Path(program)
            # Docker's client is no builder where no daemon runs.
            info = subprocess.run([builder, "info"], env=builder_environment(builder), capture_output=True, check=False)
            if info.returncode == 0:
                return builder
    raise NotReadyError("No container builder works here: docker, podman and buildah were tried.", _INSTALL)


def build_image(
    builder: Path, tag: str, *, base: str | None, volumes: Sequence[str] = (), platform: str | None = None
) -> None:
    """Build `model/serving/image/Dockerfile`, its output on the terminal.

    The image has one platform, Docker's media types and no attestations: SageMaker refuses image indexes. Another
    platform than this machine's needs emulation (``qemu-user-static``).
    """
    one_image = ["--provenance=false", "--sbom=false"] if builder.name == "docker" else ["--format", "docker"]
    arguments = [*one_image, "--network", "host", "--file", str(DOCKERFILE), "--tag", tag]
    arguments += ["--platform", platform] if platform else []
    arguments += ["--build-arg", f"BASE={base}"] if base else []
    arguments += [argument for volume in volumes for argument in ("--volume", volume)]
    _run(builder, "build", *arguments, str(CONTEXT))


def _run(builder: Path, command: str, *arguments: str, stdin: str | None = None) -> None:
    environment = builder_environment(builder)
    done = subprocess.run([builder, command, *arguments], env=environment, input=stdin, text=True, check=False)
    if done.returncode != 0:
        raise WorkFailedError(f"{builder.name} {command} failed with exit code {done.returncode}; the reason is above.")


def builder_environment(builder: Path) -> dict[str, str]:
    """Return the environment to run the builder in.

    As root, as in a CI container, buildah needs neither overlay mounts nor control groups when told so.
    """
    own = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    return {**(own if builder.name == "buildah" and os.geteuid() == 0 else {}), **os.environ}
