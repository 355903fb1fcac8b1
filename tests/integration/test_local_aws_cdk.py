"""An unmodified CDK command line against the local AWS, told nothing but the endpoint and the credentials."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import botocore.exceptions
import pytest
from local_aws_harness import CdkApp, LocalAws, model_archive

pytestmark = pytest.mark.slow

# Every variant of the stack that the tests deploy, synthesised in one go: that takes longer than to deploy them.
VARIANTS = {
    "first": {"name": "first"},
    "second": {"name": "second", "maximum": 3, "team": "two"},
    "broken": {"name": "third", "maximum": 3, "team": "two", "broken": True},
}
APP = """
import json, sys
import aws_cdk as cdk
from aws_cdk import aws_applicationautoscaling as scaling, aws_iam as iam, aws_s3_assets as assets, aws_sagemaker as sm

for variant, settings in json.loads(sys.argv[1]).items():
    app = cdk.App(outdir=variant)
    stack = cdk.Stack(app, "echo", env=cdk.Environment(account="000000000000", region="us-east-1"))
    artifact = assets.Asset(stack, "Artifact", path="model.tar.gz")
    role = iam.Role(stack, "Role", assumed_by=iam.ServicePrincipal("sagemaker.amazonaws.com"))
    artifact.grant_read(role)
    model = sm.CfnModel(
        stack, "Model", execution_role_arn=role.role_arn,
        primary_container=sm.CfnModel.ContainerDefinitionProperty(
            image="000000000000.dkr.ecr.us-east-1.amazonaws.com/echo:1", model_data_url=artifact.http_url,
            environment={"NAME": settings["name"], **({"BROKEN": "1"} if settings.get("broken") else {})}),
    )
    model.node.add_dependency(role)
    config = sm.CfnEndpointConfig(
        stack, "Config",
        production_variants=[sm.CfnEndpointConfig.ProductionVariantProperty(
            model_name=model.attr_model_name, variant_name="AllTraffic", initial_instance_count=1,
            instance_type="ml.m5.large", initial_variant_weight=1)],
    )
    endpoint = sm.CfnEndpoint(
        stack, "Endpoint", endpoint_config_name=config.attr_endpoint_config_name, retain_all_variant_properties=True)
    target = scaling.ScalableTarget(
        stack, "Target", service_namespace=scaling.ServiceNamespace.SAGEMAKER, min_capacity=1,
        max_capacity=settings.get("maximum", 2),
        resource_id=f"endpoint/{endpoint.attr_endpoint_name}/variant/AllTraffic",
        scalable_dimension="sagemaker:variant:DesiredInstanceCount")
    target.scale_to_track_metric(
        "Load", target_value=120,
        predefined_metric=scaling.PredefinedMetric.SAGEMAKER_VARIANT_INVOCATIONS_PER_INSTANCE)
    cdk.Tags.of(stack).add("team", settings.get("team", "one"))
    cdk.CfnOutput(stack, "EndpointName", value=endpoint.attr_endpoint_name)
    app.synth()
"""


class Deployment(CdkApp):
    """The app in a folder of its own."""

    def diff(self, variant: str) -> str:
        return self.cdk("diff", "--app", variant)

    def stack(self) -> dict[str, Any]:
        (stack,) = self.aws.client("cloudformation").describe_stacks(StackName="echo")["Stacks"]
        return stack

    def status(self) -> str:
        return self.stack()["StackStatus"]

    def outputs(self) -> dict[str, str]:
        return {output["OutputKey"]: output["OutputValue"] for output in self.stack()["Outputs"]}

    def invoke(self) -> dict[str, Any]:
        return self.aws.invoke(self.outputs()["EndpointName"], b"12345")


@pytest.fixture(scope="module")
def deployment(bootstrapped: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    folder = tmp_path_factory.mktemp("app")
    (folder / "model.tar.gz").write_bytes(model_archive())
    subprocess.run([sys.executable, "-c", APP, json.dumps(VARIANTS)], cwd=folder, check=True, timeout=300)
    return Deployment(bootstrapped, folder)


def names(list_them: Callable[..., Any], member: str, name: str) -> list[str]:
    return [item[name] for item in list_them()[member]]


def test_life_of_a_stack(deployment: Deployment) -> None:
    sagemaker = deployment.aws.client("sagemaker")
    scaling = deployment.aws.client("application-autoscaling")

    deployment.deploy("first")
    assert deployment.invoke() == {"model": "first", "received": 5}
    name = deployment.outputs()["EndpointName"]
    (target,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 2)
    (policy,) = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 120
    tags = sagemaker.list_tags(ResourceArn=sagemaker.describe_endpoint(EndpointName=name)["EndpointArn"])["Tags"]
    assert {"Key": "team", "Value": "one"} in tags
    assert "aws:cloudformation:stack-id" in {tag["Key"] for tag in tags}

    assert "Number of stacks with differences: 0" in deployment.diff("first")
    assert "(no changes)" in deployment.deploy("first")

    # A new model replaces model and config and updates the endpoint in place; the old ones are cleaned up.
    deployment.deploy("second")
    assert deployment.invoke()["model"] == "second"
    assert deployment.outputs()["EndpointName"] == name
    assert len(names(sagemaker.list_models, "Models", "ModelName")) == 1
    assert len(names(sagemaker.list_endpoint_configs, "EndpointConfigs", "EndpointConfigName")) == 1
    (target,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert target["MaxCapacity"] == 3
    tags = sagemaker.list_tags(ResourceArn=sagemaker.describe_endpoint(EndpointName=name)["EndpointArn"])["Tags"]
    assert {"Key": "team", "Value": "two"} in tags

    # A model that cannot start: the reason is told, the stack goes back, the old model keeps answering.
    said = deployment.deploy("broken", check=False)
    assert "the weights are missing" in said
    assert deployment.status() == "UPDATE_ROLLBACK_COMPLETE"
    assert deployment.invoke()["model"] == "second"
    assert len(names(sagemaker.list_models, "Models", "ModelName")) == 1
    assert "Number of stacks with differences: 0" in deployment.diff("second")

    deployment.cdk("destroy", "--app", "second", "--force")
    for list_them, member, key in (
        (sagemaker.list_endpoints, "Endpoints", "EndpointName"),
        (sagemaker.list_endpoint_configs, "EndpointConfigs", "EndpointConfigName"),
        (sagemaker.list_models, "Models", "ModelName"),
    ):
        assert names(list_them, member, key) == []
    assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []
    with pytest.raises(botocore.exceptions.ClientError, match="not found"):
        deployment.aws.client("sagemaker-runtime").invoke_endpoint(EndpointName=name, Body=b"")


def test_a_first_deploy_that_fails_leaves_nothing_but_its_reason(deployment: Deployment) -> None:
    said = deployment.deploy("broken", check=False)
    assert "the weights are missing" in said
    sagemaker = deployment.aws.client("sagemaker")
    assert names(sagemaker.list_endpoints, "Endpoints", "EndpointName") == []
    assert names(sagemaker.list_models, "Models", "ModelName") == []
    deployment.deploy("first")  # over the remains of the failed stack
    assert deployment.invoke()["model"] == "first"
