"""The stage with its image, deployed by an unmodified CDK: repository, build project and custom resource."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from typing import Any

import pytest
from local_aws_harness import ECHO_SERVER, CdkApp, LocalAws, model_archive

pytestmark = pytest.mark.slow

# One stage in two variants: with an image that is built, and with one that is in ECR already.
APP = """
import json, sys
from dataclasses import replace
from pathlib import Path
from aws_cdk import App
from infra import application
from infra.settings import ROOT, load

context = json.loads((ROOT / "cdk.json").read_text())["context"]
settings = load("local")
function = replace(settings.function, provisioned_concurrency=0)
for name, image in {"own": "own", "uri": "111122223333.dkr.ecr.us-east-1.amazonaws.com/team/runtime:7"}.items():
    serving = replace(settings.serving, image=image)
    app = App(context=context, outdir=name, analytics_reporting=False)
    application.synthesise(app, replace(settings, serving=serving, function=function), Path("model.tar.gz").resolve())
"""
STACKS = ("kennel-local-storage", "kennel-local-inference")
# The stack gives its model no environment, so the program knows its name by itself.
SERVER = ECHO_SERVER.replace('os.environ["NAME"]', '"echo"')


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
    (folder / "model.tar.gz").write_bytes(model_archive(SERVER))
    subprocess.run([sys.executable, "-c", APP], cwd=folder, check=True, timeout=300)
    return Deployment(bootstrapped, folder)


def test_deployment_builds_the_image_and_the_endpoint_runs_on_it(deployment):
    deployment.deploy("own", *STACKS)
    (build,) = deployment.builds()
    assert build["buildStatus"] == "SUCCEEDED"
    repository = deployment.physical_id("AWS::ECR::Repository")
    (found,) = deployment.aws.client("ecr").describe_repositories(repositoryNames=[repository])["repositories"]
    uri, _, tag = deployment.image().partition(":x86_64-")
    assert uri == found["repositoryUri"]
    assert len(tag) == 16
    (stack,) = deployment.aws.client("cloudformation").describe_stacks(StackName=STACKS[-1])["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    assert deployment.aws.invoke(outputs["EndpointName"], b"12345") == {"model": "echo", "received": 5}


def test_an_image_that_is_there_is_not_built_again(deployment):
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


def test_another_image_removes_the_builder_and_keeps_what_was_built(deployment):
    repository, tag = deployment.physical_id("AWS::ECR::Repository"), deployment.image().rpartition(":")[2]
    deployment.deploy("uri", *STACKS)
    assert deployment.image().endswith("/team/runtime:7")
    images = [{"imageTag": tag}]
    assert deployment.aws.client("ecr").batch_get_image(repositoryName=repository, imageIds=images)["images"]
    assert deployment.aws.client("codebuild").list_projects()["projects"] == []
