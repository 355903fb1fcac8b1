"""What was made in one region of the local AWS is not seen in another, not even after a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator

import botocore.exceptions
import pytest
from local_aws_harness import LAMBDA_TRUST, SAGEMAKER_TRUST, LocalAws, function_archive, local_aws, policy

HERE, THERE = "us-east-1", "eu-central-1"
WAITING = {"Delay": 0.1, "MaxAttempts": 600}
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


def fill(aws: LocalAws, region: str) -> None:
    """Make one of everything in a region."""
    cloudformation = aws.client("cloudformation", region=region)
    cloudformation.create_stack(StackName="s", TemplateBody=json.dumps(STACK))
    cloudformation.get_waiter("stack_create_complete").wait(StackName="s", WaiterConfig=WAITING)
    aws.client("logs", region=region).create_log_group(logGroupName="g")
    metric = [{"MetricName": "m", "Value": 1.0}]
    aws.client("cloudwatch", region=region).put_metric_data(Namespace="n", MetricData=metric)
    aws.client("kms", region=region).create_key()
    function = {"Runtime": "python3.14", "Handler": "app.handler", "Role": "arn:aws:iam::000000000000:role/function"}
    code = {"ZipFile": function_archive(FUNCTION)}
    aws.client("lambda", region=region).create_function(FunctionName="f", **function, Code=code)
    aws.serve("e", "arn:aws:iam::000000000000:role/model", region)
    scaled = {"ResourceId": "endpoint/e/variant/v", "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"}
    aws.client("application-autoscaling", region=region).register_scalable_target(
        ServiceNamespace="sagemaker", **scaled, MinCapacity=1, MaxCapacity=2
    )


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """One of everything in one region, and nothing in the other."""
    with local_aws(tmp_path_factory.mktemp("state")) as made:
        made.role("model", SAGEMAKER_TRUST, policy({"Action": "s3:GetObject", "Resource": "*"}))
        made.role("function", LAMBDA_TRUST)
        fill(made, HERE)
        yield made


def found(aws: LocalAws, region: str) -> dict[str, int]:
    """How many there are of each."""
    counts = {}
    for service, operation, member in LISTS:
        options = {"ServiceNamespace": "sagemaker"} if service == "application-autoscaling" else {}
        counts[member] = len(getattr(aws.client(service, region=region), operation)(**options)[member])
    return counts


def test_nothing_of_one_region_is_seen_in_another(aws: LocalAws) -> None:
    assert all(found(aws, HERE).values()), found(aws, HERE)
    assert set(found(aws, THERE).values()) == {0}, found(aws, THERE)
    with pytest.raises(botocore.exceptions.ClientError, match="not found"):
        aws.client("sagemaker-runtime", region=THERE).invoke_endpoint(EndpointName="e", Body=b"1")
    with pytest.raises(botocore.exceptions.ClientError, match="Function not found"):
        aws.client("lambda", region=THERE).invoke(FunctionName="f")
    roles = [len(aws.client("iam", region=region).list_roles()["Roles"]) for region in (HERE, THERE)]
    assert roles[0] == roles[1] > 0, "IAM is of no region"


def test_a_region_that_does_not_exist_is_refused(aws: LocalAws) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match="us-east-7"):
        aws.client("sagemaker", region="us-east-7").list_models()


def test_regions_keep_their_own_after_a_restart(aws: LocalAws) -> None:
    fill(aws, THERE)
    once = found(aws, HERE)
    again = aws.restarted()
    assert (found(again, HERE), found(again, THERE)) == (once, once)
    for region in (HERE, THERE):
        assert again.invoke("e", region=region)["model"] == f"e of {region}"
        assert json.loads(again.client("lambda", region=region).invoke(FunctionName="f")["Payload"].read()) == region
        assert f":{region}:" in again.client("kms", region=region).list_keys()["Keys"][0]["KeyArn"]

    cloudformation = again.client("cloudformation", region=THERE)
    again.client("sagemaker", region=THERE).delete_model(ModelName="e")
    cloudformation.delete_stack(StackName="s")
    cloudformation.get_waiter("stack_delete_complete").wait(StackName="s", WaiterConfig=WAITING)
    gone = {"Models", "Parameters", "Exports"}
    assert {kind for kind, number in found(again, THERE).items() if number == 0} >= gone
    assert all(found(again, HERE)[kind] == once[kind] for kind in gone)
