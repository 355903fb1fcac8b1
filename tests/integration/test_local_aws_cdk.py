"""An unmodified CDK command line against the local AWS, told nothing but the endpoint and the credentials."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from local_aws_harness import CdkApp, LocalAws, model_archive

# Both variants of the stack are synthesised in one go: that takes longer than to deploy them.
VARIANTS = {"first": {"name": "first"}, "broken": {"name": "third", "broken": True}}
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


@pytest.fixture(scope="module")
def deployment(bootstrapped: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> CdkApp:
    folder = tmp_path_factory.mktemp("app")
    (folder / "model.tar.gz").write_bytes(model_archive())
    subprocess.run([sys.executable, "-c", APP, json.dumps(VARIANTS)], cwd=folder, check=True, timeout=300)
    return CdkApp(bootstrapped, folder)


def test_a_first_deploy_that_fails_leaves_nothing_but_its_reason_and_the_next_one_works(deployment: CdkApp) -> None:
    client = deployment.aws.client
    sagemaker = client("sagemaker")

    def ours() -> list[str]:
        found = [item["EndpointName"] for item in sagemaker.list_endpoints()["Endpoints"]]
        found += [item["ModelName"] for item in sagemaker.list_models()["Models"]]
        return [name for name in found if name.startswith("echo-")]

    assert "the weights are missing" in deployment.deploy("broken", check=False)
    assert ours() == []
    deployment.deploy("first")  # over the remains of the failed stack
    (stack,) = client("cloudformation").describe_stacks(StackName="echo")["Stacks"]
    (output,) = stack["Outputs"]
    endpoint = sagemaker.describe_endpoint(EndpointName=output["OutputValue"])
    assert deployment.aws.invoke(endpoint["EndpointName"], b"12345") == {"model": "first", "received": 5}
    tags = {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=endpoint["EndpointArn"])["Tags"]}
    assert tags["team"] == "one"
    assert tags["aws:cloudformation:stack-id"] == stack["StackId"]
    assert "(no changes)" in deployment.deploy("first")
    deployment.cdk("destroy", "--app", "first", "--force")
    assert ours() == []
