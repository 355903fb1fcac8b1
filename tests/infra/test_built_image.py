"""What the serving image, its repository and its build promise."""

import json
from dataclasses import replace

import pytest
from templates import SynthesisedStage, text

from infra.serving_image import DOCKERFILE, SOURCES, image_tag
from infra.settings import ROOT
from programs.image_build import image_build


@pytest.fixture
def project(stage) -> dict:
    return stage.properties("inference", "AWS::CodeBuild::Project")


@pytest.fixture
def builder(stage) -> dict:
    return stage.resources("inference", "AWS::Lambda::Function")["ImageBuilderBBE87C93"]["Properties"]


def custom_resource(stage: SynthesisedStage) -> dict:
    return stage.properties("inference", "Custom::ContainerImage")


def staged(stage: SynthesisedStage, key: str) -> set[str]:
    """Files of the asset that is uploaded under a key."""
    folder = stage.assembly / f"asset.{key.rsplit('/', 1)[-1].removesuffix('.zip')}"
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_old_images_expire_by_number_and_never_by_age(stage):
    policy = stage.properties("storage", "AWS::ECR::Repository")["LifecyclePolicy"]["LifecyclePolicyText"]
    kept = {rule["selection"]["tagStatus"]: rule["selection"]["countType"] for rule in json.loads(policy)["rules"]}
    assert kept == {"untagged": "sinceImagePushed", "any": "imageCountMoreThan"}


def test_builder_deploys_one_module_with_the_handler_it_names(stage, builder):
    module, _, name = builder["Handler"].partition(".")
    assert callable(getattr(image_build, name))
    assert staged(stage, builder["Code"]["S3Key"]) == {f"{module}.py"}


def test_a_build_ends_before_the_function_does_and_the_function_before_cloudformation_gives_up(stage, project, builder):
    build = 60 * (project["TimeoutInMinutes"] + project["QueuedTimeoutInMinutes"])
    assert build + image_build.RESERVE_SECONDS + image_build.POLL_SECONDS < builder["Timeout"] <= 900
    assert builder["Timeout"] < int(custom_resource(stage)["ServiceTimeout"])


def test_build_reads_the_dockerfile_and_what_it_copies_and_nothing_else(stage, project):
    assert staged(stage, text(project["Source"]["Location"])) == set(SOURCES)
    lines = (ROOT / "model" / DOCKERFILE).read_text(encoding="utf-8").splitlines()
    copied = [line.split()[-2] for line in lines if line.startswith("COPY") and "--from" not in line]
    assert {DOCKERFILE, *copied} == set(SOURCES)


def test_build_pushes_the_tag_that_the_builder_names(project):
    commands = json.loads(project["Source"]["BuildSpec"])["phases"]["build"]["commands"]
    assert [command.split()[:2] for command in commands] == [["docker", "build"], ["aws", "ecr"], ["docker", "push"]]
    assert all("$REPOSITORY:$IMAGE_TAG" in command for command in commands if command.startswith("docker"))


@pytest.mark.parametrize(
    ("instance_type", "kind", "architecture"),
    [("ml.m5.large", "LINUX_CONTAINER", "x86_64"), ("ml.c7g.large", "ARM_CONTAINER", "arm64")],
)
def test_image_is_built_for_the_instance_types_instruction_set(synthesise, stages, instance_type, kind, architecture):
    settings = stages["dev"].settings
    stage = synthesise(replace(settings, serving=replace(settings.serving, instance_type=instance_type)))
    assert stage.properties("inference", "AWS::CodeBuild::Project")["Environment"]["Type"] == kind
    assert custom_resource(stage)["Tag"] == image_tag(ROOT / "model", architecture)
