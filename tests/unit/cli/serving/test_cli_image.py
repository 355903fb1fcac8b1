"""`kennel image`, with programs that stand for the container builders."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_account import FakeAccount
from fake_stage import FakeStage

from cli.errors import NotReadyError, WorkFailedError
from cli.serving import container_image

REGISTRY = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
#: Writes down what it is asked for, and the password that it is given.
BUILDER = """#!/bin/sh
[ "$1" = info ] && exit $INFO
echo "$@" >> "$LOG"
[ "$1" = login ] && { read -r password; echo "password: $password" >> "$LOG"; }
[ "$1" != "$FAILS" ]
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the builders were asked for; no other program is on the path."""
    for name, value in {"PATH": tmp_path, "LOG": tmp_path / "log", "INFO": 0, "FAILS": ""}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    return tmp_path / "log"


def install(log: Path, name: str) -> None:
    (log.parent / name).write_text(BUILDER)
    (log.parent / name).chmod(0o755)


def context_of(**serving: Any) -> Any:
    aws = FakeAccount()
    aws.add_stack("kennel-dev-storage", ImageRepositoryUri=f"{REGISTRY}/images")
    stage = FakeStage("dev", aws)
    stage.configure("serving", **serving)
    return SimpleNamespace(obj=stage)


@pytest.mark.parametrize(
    ("builder", "one_image", "push", "instance_type", "platform"),
    [
        ("docker", "--provenance=false --sbom=false", "push", "ml.m5.large", "linux/amd64"),
        ("podman", "--format docker", "push --format v2s2", "ml.c7g.large", "linux/arm64"),
        ("buildah", "--format docker", "push --format v2s2", "ml.m5.large", "linux/amd64"),
    ],
)
def test_push_builds_one_platform_and_pushes_the_tag_of_the_deployment(
    log: Path, builder: str, one_image: str, push: str, instance_type: str, platform: str
) -> None:
    install(log, builder)
    context = context_of(instance_type=instance_type)
    container_image.push(context, base="debian")
    uri = f"{REGISTRY}/images:{container_image.stage_tag(context.obj)}"
    assert log.read_text().splitlines() == [
        f"build {one_image} --network host --file {container_image.DOCKERFILE} --tag {uri} --platform {platform} "
        f"--build-arg BASE=debian {container_image.CONTEXT}",
        f"login --username AWS --password-stdin {REGISTRY}",
        "password: password",
        f"{push} {uri}",
    ]


def test_an_image_that_is_there_is_not_built_again(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(log, "docker")
    context = context_of()
    context.obj.aws.images.add(("images", container_image.stage_tag(context.obj)))
    container_image.push(context)
    assert not log.exists()
    assert "is there already" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["build", "login", "push"])
def test_a_step_that_fails_is_the_last_one(log: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    install(log, "docker")
    monkeypatch.setenv("FAILS", command)
    with pytest.raises(WorkFailedError, match=f"docker {command} failed"):
        container_image.push(context_of())


def test_what_needs_no_image_of_ours_gets_none(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotReadyError, match="nothing to push"):
        container_image.push(context_of(image=f"{REGISTRY}/team:7"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    with pytest.raises(NotReadyError, match="local AWS stores no images"):
        container_image.push(context_of())


def test_without_a_builder_that_works_it_says_what_to_install(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(log, "docker")
    monkeypatch.setenv("INFO", "1")
    with pytest.raises(NotReadyError, match="No container builder works here"):
        container_image.find_builder()
