"""Attack: who takes over the cost guard's function can stop what it watches, and do nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from guarded_stage import ENDPOINT, OTHER_ENDPOINT, TAGS, deploy_guard, launch
from local_aws_harness import refused
from sagemaker_local import BUCKET, LocalSageMaker, local_aws

DENIED = "AccessDenied|UnauthorizedOperation"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSageMaker]:
    with local_aws(tmp_path_factory.mktemp("state")) as made:
        yield made


@pytest.mark.parametrize("idle_endpoint", ["minimum", "delete"])
def test_the_role_stops_what_is_the_stages_and_nothing_else(aws: LocalSageMaker, idle_endpoint: str) -> None:
    made = deploy_guard(aws, BUCKET, idle_endpoint=idle_endpoint)
    role = made["AWS::IAM::Role"]["PhysicalResourceId"]
    policies = [
        aws.iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        for name in aws.iam.list_role_policies(RoleName=role)["PolicyNames"]
    ]
    statements = [statement for policy in policies for statement in policy["Statement"]]
    key = aws.user(f"thief-{idle_endpoint}", {"Version": "2012-10-17", "Statement": statements})
    sagemaker, ec2 = aws.client("sagemaker", key), aws.client("ec2", key)
    capacities = [{"VariantName": "v", "DesiredInstanceCount": 50}]
    scale = sagemaker.update_endpoint_weights_and_capacities
    # Its own endpoint does not exist here, which is said to those alone who may know.
    own = {"minimum": (scale, {"DesiredWeightsAndCapacities": capacities}), "delete": (sagemaker.delete_endpoint, {})}
    for action, (call, request) in own.items():
        refused(call, "Could not find" if action == idle_endpoint else DENIED, EndpointName=ENDPOINT, **request)
        refused(call, DENIED, EndpointName=OTHER_ENDPOINT, **request)
    refused(sagemaker.create_endpoint, DENIED, EndpointName=ENDPOINT, EndpointConfigName="c")
    refused(sagemaker.update_endpoint, DENIED, EndpointName=ENDPOINT, EndpointConfigName="c")
    refused(aws.client("sagemaker-runtime", key).invoke_endpoint, DENIED, EndpointName=ENDPOINT, Body=b"")
    refused(aws.client("s3", key).list_objects_v2, DENIED, Bucket=BUCKET)
    refused(aws.client("iam", key).put_role_policy, DENIED, RoleName=role, PolicyName="p", PolicyDocument="{}")
    refused(aws.client("lambda", key).invoke, DENIED, FunctionName=made["AWS::Lambda::Function"]["PhysicalResourceId"])

    others = [launch(aws), launch(aws, **{**TAGS, "stage": "prod"}), launch(aws, project="kennel")]
    for other in others:
        refused(ec2.terminate_instances, DENIED, InstanceIds=[other])
    mine = launch(aws, **TAGS)
    refused(ec2.terminate_instances, DENIED, InstanceIds=[mine, others[0]])
    tags = [{"Key": name, "Value": value} for name, value in TAGS.items()]
    refused(ec2.create_tags, DENIED, Resources=[others[0]], Tags=tags)
    refused(ec2.stop_instances, DENIED, InstanceIds=[mine])
    ec2.terminate_instances(InstanceIds=[mine])
    aws.delete(aws.stack("guard"))
