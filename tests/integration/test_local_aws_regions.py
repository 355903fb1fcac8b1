"""What was made in one region of the local AWS is not seen in another, not even after a restart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import botocore.exceptions
import pytest
from local_aws_harness import (
    LAMBDA_TRUST,
    SAGEMAKER_TRUST,
    LocalAws,
    free_port,
    function_archive,
    local_aws,
    model_archive,
    wait_until,
)

from emulator.platform import lifecycle

HERE, THERE = "us-east-1", "eu-central-1"
IMAGE = "000000000000.dkr.ecr.us-east-1.amazonaws.com/echo:1"
FUNCTION = "import os\n\n\ndef handler(event, context):\n    return os.environ['AWS_REGION']\n"
STACK = {
    "Resources": {"It": {"Type": "AWS::SSM::Parameter", "Properties": {"Type": "String", "Name": "p", "Value": "1"}}},
    "Outputs": {"It": {"Value": "1", "Export": {"Name": "shared"}}},
}

#: Of every regional service that the project uses: names of what there is in a region.
LISTS: dict[str, Callable[[Callable[[str], Any]], list[Any]]] = {
    "stacks": lambda client: client("cloudformation").describe_stacks()["Stacks"],
    "exports": lambda client: client("cloudformation").list_exports()["Exports"],
    "parameters": lambda client: client("ssm").describe_parameters()["Parameters"],
    "functions": lambda client: client("lambda").list_functions()["Functions"],
    "log groups": lambda client: client("logs").describe_log_groups()["logGroups"],
    "alarms": lambda client: client("cloudwatch").describe_alarms()["MetricAlarms"],
    "metrics": lambda client: client("cloudwatch").list_metrics()["Metrics"],
    "dashboards": lambda client: client("cloudwatch").list_dashboards()["DashboardEntries"],
    "keys": lambda client: client("kms").list_keys()["Keys"],
    "repositories": lambda client: client("ecr").describe_repositories()["repositories"],
    "builders": lambda client: client("codebuild").list_projects()["projects"],
    "topics": lambda client: client("sns").list_topics()["Topics"],
    "launch templates": lambda client: client("ec2").describe_launch_templates()["LaunchTemplates"],
    "models": lambda client: client("sagemaker").list_models()["Models"],
    "endpoint configs": lambda client: client("sagemaker").list_endpoint_configs()["EndpointConfigs"],
    "endpoints": lambda client: client("sagemaker").list_endpoints()["Endpoints"],
    "scalable targets": lambda client: client("application-autoscaling").describe_scalable_targets(
        ServiceNamespace="sagemaker"
    )["ScalableTargets"],
}


def clients(aws: LocalAws, region: str) -> Callable[[str], Any]:
    return lambda service: aws.client(service, region=region)


def fill(aws: LocalAws, region: str) -> None:
    """Make one of everything in a region."""
    client = clients(aws, region)
    bucket = f"models-of-{region}"  # SageMaker reads models from buckets of its own region only
    where = {} if region == HERE else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    client("s3").create_bucket(Bucket=bucket, **where)
    client("s3").put_object(Bucket=bucket, Key="model.tar.gz", Body=model_archive())
    client("cloudformation").create_stack(StackName="s", TemplateBody=json.dumps(STACK))
    client("cloudformation").get_waiter("stack_create_complete").wait(
        StackName="s", WaiterConfig={"Delay": 0.1, "MaxAttempts": 600}
    )
    client("logs").create_log_group(logGroupName="g")
    client("cloudwatch").put_metric_data(Namespace="n", MetricData=[{"MetricName": "m", "Value": 1.0}])
    client("cloudwatch").put_dashboard(DashboardName="d", DashboardBody='{"widgets": []}')
    client("cloudwatch").put_metric_alarm(
        AlarmName="a", MetricName="m", Namespace="n", ComparisonOperator="GreaterThanThreshold", Threshold=1.0,
        EvaluationPeriods=1, Period=60, Statistic="Sum",
    )  # fmt: skip
    client("kms").create_key()
    client("ecr").create_repository(repositoryName="images")
    client("codebuild").create_project(
        name="builder",
        source={"type": "NO_SOURCE", "buildspec": "version: 0.2"},
        artifacts={"type": "NO_ARTIFACTS"},
        environment={"type": "LINUX_CONTAINER", "image": "i", "computeType": "BUILD_GENERAL1_SMALL"},
        serviceRole="arn:aws:iam::000000000000:role/build",
    )
    client("sns").create_topic(Name="t")
    client("ec2").create_launch_template(LaunchTemplateName="l", LaunchTemplateData={"InstanceType": "t3.micro"})
    client("lambda").create_function(
        FunctionName="f",
        Runtime="python3.14",
        Handler="app.handler",
        Role="arn:aws:iam::000000000000:role/function",
        Code={"ZipFile": function_archive(FUNCTION)},
    )  # fmt: skip
    sagemaker = client("sagemaker")
    sagemaker.create_model(
        ModelName="m",
        ExecutionRoleArn="arn:aws:iam::000000000000:role/model",
        PrimaryContainer={
            "Image": IMAGE,
            "ModelDataUrl": f"s3://{bucket}/model.tar.gz",
            "Environment": {"NAME": region},
        },
    )
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="e", WaiterConfig={"Delay": 0.1, "MaxAttempts": 600})
    client("application-autoscaling").register_scalable_target(
        ServiceNamespace="sagemaker", ResourceId="endpoint/e/variant/v", MinCapacity=1, MaxCapacity=2,
        ScalableDimension="sagemaker:variant:DesiredInstanceCount",
    )  # fmt: skip


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """One of everything in one region, and nothing in the other."""
    with local_aws(tmp_path_factory.mktemp("state")) as made:
        reading = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
        made.role("model", SAGEMAKER_TRUST, {"Version": "2012-10-17", "Statement": [reading]})
        made.role("function", LAMBDA_TRUST)
        made.role("build", LAMBDA_TRUST)
        fill(made, HERE)
        yield made


def found(aws: LocalAws, region: str) -> dict[str, int]:
    """How many there are of each."""
    return {kind: len(names(clients(aws, region))) for kind, names in LISTS.items()}


def test_nothing_of_one_region_is_seen_in_another(aws: LocalAws) -> None:
    assert all(found(aws, HERE).values()), found(aws, HERE)
    assert set(found(aws, THERE).values()) == {0}, found(aws, THERE)
    with pytest.raises(botocore.exceptions.ClientError, match="not found"):
        aws.client("sagemaker-runtime", region=THERE).invoke_endpoint(EndpointName="e", Body=b"1")
    with pytest.raises(botocore.exceptions.ClientError, match="Function not found"):
        aws.client("lambda", region=THERE).invoke(FunctionName="f")
    users = [len(aws.client("iam", region=region).list_roles()["Roles"]) for region in (HERE, THERE)]
    assert users[0] == users[1] > 0, "IAM is of no region"


def test_a_region_that_does_not_exist_is_refused(aws: LocalAws) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match="us-east-7"):
        aws.client("sagemaker", region="us-east-7").list_models()


def test_a_bucket_is_reached_in_its_region_only_and_its_name_is_taken_everywhere(aws: LocalAws) -> None:
    there = aws.client("s3", region=THERE)
    with pytest.raises(botocore.exceptions.ClientError, match="IllegalLocationConstraint"):
        there.create_bucket(Bucket="far")
    there.create_bucket(Bucket="far", CreateBucketConfiguration={"LocationConstraint": THERE})
    assert there.get_bucket_location(Bucket="far")["LocationConstraint"] == THERE
    here = aws.client("s3")
    with pytest.raises(botocore.exceptions.ClientError, match="BucketAlreadyOwnedByYou"):
        there.create_bucket(Bucket="far", CreateBucketConfiguration={"LocationConstraint": THERE})
    answers: list[Any] = []
    here.meta.events.register("needs-retry.s3.HeadBucket", lambda response, **_: answers.append(response[0]))
    here.head_bucket(Bucket="far")  # boto3 follows the answer to the bucket's region
    assert (answers[0].status_code, answers[0].headers["x-amz-bucket-region"]) == (301, THERE)


def test_regions_keep_their_own_after_a_restart(aws: LocalAws) -> None:
    fill(aws, THERE)
    once = found(aws, HERE)
    assert found(aws, THERE) == once
    before = {
        region: clients(aws, region)("kms").list_keys()["Keys"][0]["KeyArn"].split(":")[3] for region in (HERE, THERE)
    }
    assert before == {HERE: HERE, THERE: THERE}

    lifecycle.down(aws.state_dir)
    again = LocalAws(aws.state_dir, lifecycle.up(aws.state_dir, free_port()).port)
    assert (found(again, HERE), found(again, THERE)) == (once, once)
    for region in (HERE, THERE):
        runtime = again.client("sagemaker-runtime", region=region)

        def answer(runtime: Any = runtime) -> Any:
            try:
                return runtime.invoke_endpoint(EndpointName="e", Body=b"1")["Body"].read()
            except runtime.exceptions.ServiceUnavailable:
                return None

        assert json.loads(wait_until(answer))["model"] == region
        payload = again.client("lambda", region=region).invoke(FunctionName="f")["Payload"].read()
        assert json.loads(payload) == region

    clients(again, THERE)("sagemaker").delete_model(ModelName="m")
    clients(again, THERE)("cloudformation").delete_stack(StackName="s")
    clients(again, THERE)("cloudformation").get_waiter("stack_delete_complete").wait(
        StackName="s", WaiterConfig={"Delay": 0.1, "MaxAttempts": 600}
    )
    gone = {"models", "parameters", "exports"}
    assert {kind for kind, number in found(again, THERE).items() if number == 0} >= gone
    assert all(found(again, HERE)[kind] == once[kind] for kind in gone)


def test_the_environment_names_the_region_for_boto3_and_for_the_cdk(aws: LocalAws) -> None:
    environment = lifecycle.environment(aws.state_dir)
    assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == HERE
    assert boto3.Session(region_name=environment["AWS_DEFAULT_REGION"]).region_name == HERE
