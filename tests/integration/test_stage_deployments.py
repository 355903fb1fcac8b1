"""A stage deployed by an unmodified CDK again and again: its image is built, its models and their roles change.

The tests share one deployment and run in the order in which they stand here.
"""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from local_aws_harness import ECHO_SERVER, CdkApp, LocalAws, model_archive
from waiting import wait_until

# The stage with three models on an image that is built, and with one on an image that is in ECR already.
APP = """
import json
from dataclasses import replace
from pathlib import Path
from aws_cdk import App
from infra import application
from infra.settings import ROOT, load

context = json.loads((ROOT / "cdk.json").read_text())["context"]
settings = load("local")
function = replace(settings.function, provisioned_concurrency=0)
images = dict.fromkeys(("one", "two", "broken"), "own")
for name, image in {**images, "uri": "111122223333.dkr.ecr.us-east-1.amazonaws.com/team/runtime:7"}.items():
    serving = replace(settings.serving, image=image)
    app = App(context=context, outdir=name, analytics_reporting=False)
    stage = replace(settings, serving=serving, function=function)
    application.synthesise(app, stage, Path(f"{name}.tar.gz").resolve())
"""
STACKS = ("kennel-local-storage", "kennel-local-inference")
BROKEN = "#!/bin/sh\necho 'the weights are missing' >&2; exit 1\n"


class Deployment(CdkApp):
    """The stage in a folder of its own."""

    def physical_id(self, resource_type: str) -> str:
        cloudformation = self.aws.client("cloudformation")
        found = [r for s in STACKS for r in cloudformation.describe_stack_resources(StackName=s)["StackResources"]]
        (name,) = (r["PhysicalResourceId"] for r in found if r["ResourceType"] == resource_type)
        return str(name).rpartition("/")[2]  # SageMaker's are ARNs

    def builds(self) -> list[dict[str, Any]]:
        codebuild = self.aws.client("codebuild")
        ids = codebuild.list_builds_for_project(projectName=self.physical_id("AWS::CodeBuild::Project"))["ids"]
        return codebuild.batch_get_builds(ids=ids)["builds"]

    def builder(self) -> str:
        """Name of the custom resource's function."""
        functions = self.aws.client("lambda").list_functions()["Functions"]
        (name,) = (f["FunctionName"] for f in functions if f["Handler"] == "image_build.handler")
        return str(name)

    def answer(self) -> dict[str, Any]:
        """What the endpoint says to five bytes."""
        (stack,) = self.aws.client("cloudformation").describe_stacks(StackName=STACKS[-1])["Stacks"]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        return self.aws.invoke(outputs["EndpointName"], b"12345")

    def roles(self) -> set[str]:
        """The model roles that there are."""
        pages = self.aws.client("iam").get_paginator("list_roles").paginate()
        return {role["RoleName"] for page in pages for role in page["Roles"] if "EndpointRole" in role["RoleName"]}

    def artifacts(self, role: str) -> set[str]:
        """Objects outside of the data bucket that a role may read."""
        iam = self.aws.client("iam")
        statements = [
            statement
            for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
            for statement in iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]["Statement"]
        ]
        found = [s["Resource"] for s in statements if s["Action"] == "s3:GetObject"]
        return {arn for arn in found if not arn.endswith("/*")}

    def image(self) -> str:
        model = self.physical_id("AWS::SageMaker::Model")
        return str(self.aws.client("sagemaker").describe_model(ModelName=model)["PrimaryContainer"]["Image"])


class Receiver:
    """Takes one answer in CloudFormation's place."""

    def __enter__(self) -> Receiver:
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                receiver.answer = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self.answer: dict[str, Any] = {}
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def deployment(bootstrapped: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    folder = tmp_path_factory.mktemp("app")
    for model in ("one", "two", "uri"):
        # The stack gives its model no environment, so the program knows its name by itself.
        program = ECHO_SERVER.replace('os.environ["NAME"]', f'"{model}"')
        (folder / f"{model}.tar.gz").write_bytes(model_archive(program))
    (folder / "broken.tar.gz").write_bytes(model_archive(BROKEN))
    subprocess.run([sys.executable, "-c", APP], cwd=folder, check=True, timeout=300)
    return Deployment(bootstrapped, folder)


def test_deployment_builds_the_image_and_the_endpoint_runs_on_it(deployment: Deployment) -> None:
    deployment.deploy("one", *STACKS)
    (build,) = deployment.builds()
    assert build["buildStatus"] == "SUCCEEDED"
    repository = deployment.physical_id("AWS::ECR::Repository")
    (found,) = deployment.aws.client("ecr").describe_repositories(repositoryNames=[repository])["repositories"]
    uri, _, tag = deployment.image().partition(":x86_64-")
    assert uri == found["repositoryUri"]
    assert len(tag) == 16
    assert deployment.answer() == {"model": "one", "received": 5}


def test_an_image_that_is_there_is_not_built_again(deployment: Deployment) -> None:
    """The deployed function, under its own role, asked once more after the build's push has arrived."""
    repository, tag = deployment.physical_id("AWS::ECR::Repository"), deployment.image().rpartition(":")[2]
    deployment.aws.client("ecr").put_image(repositoryName=repository, imageTag=tag, imageManifest="{}")
    event = {
        "RequestType": "Update",
        "RequestId": "1",
        "StackId": "s",
        "LogicalResourceId": "Image",
        "PhysicalResourceId": repository,
        "ResourceProperties": {
            "ProjectName": deployment.physical_id("AWS::CodeBuild::Project"),
            "RepositoryName": repository,
            "RepositoryUri": deployment.image().rpartition(":")[0],
            "Tag": tag,
        },
    }
    with Receiver() as receiver:
        deployment.aws.client("lambda").invoke(
            FunctionName=deployment.builder(), Payload=json.dumps(event | {"ResponseURL": receiver.url})
        )
    assert receiver.answer["Status"] == "SUCCESS"
    assert receiver.answer["Data"] == {"ImageUri": deployment.image()}
    assert len(deployment.builds()) == 1


def test_the_model_before_keeps_its_role_until_the_endpoint_has_left_it(deployment: Deployment) -> None:
    (first,) = deployment.roles()
    with ThreadPoolExecutor(1) as pool:
        deploying = pool.submit(deployment.deploy, "two", *STACKS)
        both = wait_until(lambda: len(names := deployment.roles()) == 2 and names, 120)
        deploying.result()
    assert deployment.answer()["model"] == "two"
    (second,) = deployment.roles()
    assert both == {first, second}


def test_after_a_rollback_the_model_has_the_role_that_it_had(deployment: Deployment) -> None:
    (role,) = deployment.roles()
    artifacts = deployment.artifacts(role)
    assert len(artifacts) == 1
    assert "the weights are missing" in deployment.deploy("broken", *STACKS, check=False)
    assert deployment.answer()["model"] == "two"
    assert (deployment.roles(), deployment.artifacts(role)) == ({role}, artifacts)


def test_another_image_removes_the_builder_and_keeps_what_was_built(deployment: Deployment) -> None:
    repository, tag = deployment.physical_id("AWS::ECR::Repository"), deployment.image().rpartition(":")[2]
    deployment.deploy("uri", *STACKS)
    assert deployment.image().endswith("/team/runtime:7")
    images = [{"imageTag": tag}]
    assert deployment.aws.client("ecr").batch_get_image(repositoryName=repository, imageIds=images)["images"]
    assert deployment.aws.client("codebuild").list_projects()["projects"] == []
