"""What was made in one region of the local AWS is not seen in another, not even after a restart."""

from __future__ import annotations

import copy
import json

import pytest
from local_aws_harness import LAMBDA_TRUST, refused
from sagemaker_local import LocalSageMaker

HERE, THERE = "us-east-1", "eu-central-1"
FUNCTION = "import os\n\n\ndef handler(event, context):\n    return os.environ['AWS_REGION']\n"
STACK = {
    "Resources": {"It": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Name": "p", "Value": "1"}}},
    "Outputs": {"It": {"Value": "1", "Export": {"Name": "shared"}}},
}
#: Of regional services, the operation that lists what there is, and where its answer has it.
LISTS = (
    *(("cloudformation", "describe_stacks", "Stacks"), ("cloudformation", "list_exports", "Exports")),
    *(("ssm", "describe_parameters", "Parameters"), ("lambda", "list_functions", "Functions")),
    *(("logs", "describe_log_groups", "logGroups"), ("cloudwatch", "list_metrics", "Metrics")),
    *(("kms", "list_keys", "Keys"), ("sagemaker", "list_models", "Models")),
    *(("sagemaker", "list_endpoint_configs", "EndpointConfigs"), ("sagemaker", "list_endpoints", "Endpoints")),
    ("application-autoscaling", "describe_scalable_targets", "ScalableTargets"),
)


def seen_from(aws: LocalSageMaker, region: str) -> LocalSageMaker:
    other = copy.copy(aws)
    other.environment = {**aws.environment, "AWS_REGION": region}
    other.connect()
    return other


def fill(aws: LocalSageMaker, region: str, role: str) -> None:
    aws = seen_from(aws, region)
    assert aws.deploy("s", STACK)["StackStatus"] == "CREATE_COMPLETE"
    aws.logs.create_log_group(logGroupName="g")
    aws.client("cloudwatch").put_metric_data(Namespace="n", MetricData=[{"MetricName": "m", "Value": 1.0}])
    aws.client("kms").create_key()
    aws.function("f", FUNCTION, "arn:aws:iam::000000000000:role/function")
    where = {} if region == HERE else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    aws.s3.create_bucket(Bucket=f"models-of-{region}", **where)
    model = aws.model(aws.artifact(region, f"models-of-{region}"), role)
    aws.endpoint(aws.config(model), "e")
    scaled = {"ResourceId": "endpoint/e/variant/v", "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}
    limits = {"MinCapacity": 1, "MaxCapacity": 2}
    aws.scaling.register_scalable_target(ServiceNamespace="sagemaker", **scaled, **limits)


@pytest.fixture(scope="module", autouse=True)
def filled(aws: LocalSageMaker, role: str) -> None:
    """One of everything in one region, and nothing in the other."""
    aws.role("function", LAMBDA_TRUST)
    fill(aws, HERE, role)


def found(aws: LocalSageMaker, region: str) -> dict[str, int]:
    counts = {}
    for service, operation, member in LISTS:
        # Endpoints publish metrics of their own, as time goes by.
        options = {"application-autoscaling": {"ServiceNamespace": "sagemaker"}, "cloudwatch": {"Namespace": "n"}}
        client = aws.client(service, region_name=region)
        counts[member] = len(getattr(client, operation)(**options.get(service, {}))[member])
    return counts


def test_nothing_of_one_region_is_seen_in_another(aws: LocalSageMaker) -> None:
    assert all(found(aws, HERE).values()), found(aws, HERE)
    assert set(found(aws, THERE).values()) == {0}, found(aws, THERE)
    there = seen_from(aws, THERE)
    refused(there.who, "not found", "e")
    refused(there.lambda_.invoke, "Function not found", FunctionName="f")
    roles = [len(seen.iam.list_roles()["Roles"]) for seen in (aws, there)]
    assert roles[0] == roles[1] > 0, "IAM is of no region"


def test_a_region_that_does_not_exist_is_refused(aws: LocalSageMaker) -> None:
    refused(aws.client("sagemaker", region_name="us-east-7").list_models, "us-east-7")


def test_regions_keep_their_own_after_a_restart(aws: LocalSageMaker, role: str) -> None:
    fill(aws, THERE, role)
    once = found(aws, HERE)
    aws.down()
    aws.up()
    assert (found(aws, HERE), found(aws, THERE)) == (once, once)
    for region in (HERE, THERE):
        seen = seen_from(aws, region)
        assert seen.who("e")["version"] == region
        assert json.loads(seen.lambda_.invoke(FunctionName="f")["Payload"].read()) == region
        assert f":{region}:" in seen.client("kms").list_keys()["Keys"][0]["KeyArn"]
    there = seen_from(aws, THERE)
    there.delete(there.stack("s"))
    assert {kind for kind, number in found(aws, THERE).items() if number == 0} >= {"Parameters", "Exports"}
    assert all(found(aws, HERE)[kind] == once[kind] for kind in ("Parameters", "Exports"))
