"""A new model comes with a role of its own: the model before keeps its until nothing runs under it any more."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from local_aws_harness import ECHO_SERVER, CdkApp, LocalAws, model_archive, wait_until

pytestmark = pytest.mark.slow

APP = """
import json
from dataclasses import replace
from pathlib import Path
from aws_cdk import App
from infra import application
from infra.settings import ROOT, load

context = json.loads((ROOT / "cdk.json").read_text())["context"]
settings = load("local")
settings = replace(settings, function=replace(settings.function, provisioned_concurrency=0))
for model in ("one", "two", "broken"):
    app = App(context=context, outdir=model, analytics_reporting=False)
    application.synthesise(app, settings, Path(f"{model}.tar.gz").resolve())
"""
STACKS = ("kennel-local-storage", "kennel-local-inference")
BROKEN = "#!/bin/sh\necho 'the weights are missing' >&2; exit 1\n"


class Deployment(CdkApp):
    """The stage in a folder of its own."""

    def outputs(self) -> dict[str, str]:
        (stack,) = self.aws.client("cloudformation").describe_stacks(StackName=STACKS[-1])["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def answer(self) -> str:
        return str(self.aws.invoke(self.outputs()["EndpointName"])["model"])

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


@pytest.fixture(scope="module")
def deployment(bootstrapped: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    folder = tmp_path_factory.mktemp("app")
    for model in ("one", "two"):
        program = ECHO_SERVER.replace('os.environ["NAME"]', f'"{model}"')
        (folder / f"{model}.tar.gz").write_bytes(model_archive(program))
    (folder / "broken.tar.gz").write_bytes(model_archive(BROKEN))
    subprocess.run([sys.executable, "-c", APP], cwd=folder, check=True, timeout=300)
    return Deployment(bootstrapped, folder)


def test_the_model_before_keeps_its_role_until_the_endpoint_has_left_it(deployment: Deployment) -> None:
    deployment.deploy("one", *STACKS)
    assert deployment.answer() == "one"
    (first,) = deployment.roles()

    with ThreadPoolExecutor(1) as pool:
        deploying = pool.submit(deployment.deploy, "two", *STACKS)
        both = wait_until(lambda: len(names := deployment.roles()) == 2 and names, 120)
        deploying.result()
    assert deployment.answer() == "two"
    (second,) = deployment.roles()
    assert both == {first, second}


def test_after_a_rollback_the_model_has_the_role_that_it_had(deployment: Deployment) -> None:
    (role,) = deployment.roles()
    artifacts = deployment.artifacts(role)
    assert len(artifacts) == 1
    assert "the weights are missing" in deployment.deploy("broken", *STACKS, check=False)
    assert deployment.answer() == "two"
    assert (deployment.roles(), deployment.artifacts(role)) == ({role}, artifacts)
