"""The stage `dev`, deployed and sound, in an account in memory; tests of `kennel doctor` plant faults in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fake_account import FakeAccount, refusal
from fake_stage import FakeStage

from infra.tables.function import ConcurrencyScalingSettings

STACK = "kennel-dev-inference"
ENDPOINT, FUNCTION, GUARD, ROLE = "kennel-dev-instance", f"{STACK}-classifier", f"{STACK}-guard", f"{STACK}-role"
TOPIC, RULE, DIGEST = "arn:aws:sns:::alarms", "arn:aws:events:::rule/guard", "sha256:" + "1" * 64
VARIANT = f"endpoint/{ENDPOINT}/variant/main"
INVOKER = "arn:aws:iam::210987654321:role/app"
LIVE = f"function:{FUNCTION}:live"
_LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)
_OK = {"StateValue": "OK", "StateReason": "5 > 1", "StateUpdatedTimestamp": _LONG_AGO}
_OK |= {"ActionsEnabled": True, "AlarmActions": [TOPIC]}


def nothing(**_: Any) -> None:
    raise refusal("ResourceNotFoundException", "The resource you requested does not exist.")


def statement(action: str, principal: Any) -> dict[str, Any]:
    return {"Sid": action[:9], "Effect": "Allow", "Action": action, "Principal": principal}


def sound_stage(aws: FakeAccount) -> FakeStage:
    """Return the stage, with all that its settings may have."""
    stage = FakeStage("dev", aws)
    scaling = ConcurrencyScalingSettings(min_provisioned=1, max_provisioned=4)
    stage.configure("function", invokers=(INVOKER,), scaling=scaling)
    return stage


def sound_account() -> FakeAccount:
    """Return an account with the stage; what its operations answer stands in `answers`, to be changed."""
    aws = FakeAccount()
    outputs = {"EndpointName": ENDPOINT, "FunctionName": FUNCTION, "AlarmTopicArn": TOPIC}
    aws.add_stack(STACK, FunctionAliasArn=f"arn:aws:lambda:us-east-1:123456789012:{LIVE}", **outputs)
    aws.add_stack("kennel-dev-storage", DataBucketName="bucket", ModelPackageGroupName="dogs")
    aws.add_stack("kennel-dev-training")
    for stack in aws.stacks.values():
        stack["StackStatus"] = "UPDATE_COMPLETE"
    aws.resources[STACK] = [
        ("AWS::SageMaker::Endpoint", f"arn:aws:sagemaker:::endpoint/{ENDPOINT}"),
        ("AWS::SageMaker::EndpointConfig", f"arn:aws:sagemaker:::endpoint-config/{ENDPOINT}"),
        ("AWS::CloudWatch::Alarm", "errors"),
        ("AWS::IAM::Role", ROLE),
        ("AWS::Logs::LogGroup", "calls"),
        ("AWS::Events::Rule", "guard"),
        ("AWS::Budgets::Budget", "dev-budget"),
        ("AWS::ApplicationAutoScaling::ScalableTarget", f"{VARIANT}|sagemaker:variant:DesiredInstanceCount|sagemaker"),
        ("AWS::ApplicationAutoScaling::ScalableTarget", f"{LIVE}|lambda:function:ProvisionedConcurrency|lambda"),
    ]
    aws.add_endpoint(ENDPOINT, "ml.m5.large", 1, project="kennel", stage="dev")
    aws.endpoints[ENDPOINT] |= {
        "EndpointStatus": "InService",
        "LastDeploymentConfig": {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "errors"}]}},
    }
    aws.endpoints[ENDPOINT]["ProductionVariants"][0] |= {"DesiredInstanceCount": 1, "ModelName": "dogs-1"}
    logs = ("TrainingJobs", "TransformJobs", f"Endpoints/{ENDPOINT}")
    aws.log_groups = {name: [] for name in ("calls", *(f"/aws/sagemaker/{kind}" for kind in logs))}
    aws.retention = dict.fromkeys(aws.log_groups, 14)
    aws.quotas = {"ml.m5.large for endpoint usage": 9, "Number of instances across active endpoints": 9}
    aws.default_quotas = {"Concurrently running builds for Linux/Small environment": 1}
    trust = statement("sts:AssumeRole", {"Service": "sagemaker.amazonaws.com"})
    trust["Condition"] = {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    key_policy = {"Statement": [statement("kms:GenerateDataKey*", {"Service": "cloudwatch.amazonaws.com"})]}
    targets = {
        VARIANT: {"MinCapacity": 1, "MaxCapacity": 2, "ScalableDimension": "sagemaker:variant:DesiredInstanceCount"},
        LIVE: {"MinCapacity": 1, "MaxCapacity": 4, "ScalableDimension": "lambda:function:ProvisionedConcurrency"},
    }
    aws.targets = {name: {"ResourceId": name, **target} for name, target in targets.items()}
    aws.callers = {"lambda:InvokeFunctionUrl": INVOKER, "lambda:InvokeFunction": INVOKER}
    counts = ("RequestedProvisionedConcurrentExecutions", "AvailableProvisionedConcurrentExecutions")
    aws.warm = {"Status": "READY", **dict.fromkeys(counts, 1)}
    aws.subscription = {"Endpoint": "on@call", "SubscriptionArn": "arn:1"}
    aws.instances = []

    def policy(FunctionName: str, Qualifier: str = "") -> dict[str, str]:
        statements = [statement(action, {"AWS": who}) for action, who in aws.callers.items()] if Qualifier else RULE
        return {"Policy": json.dumps({"Statement": statements})}

    def scalable_targets(ServiceNamespace: str, ResourceIds: Sequence[str] = ()) -> dict[str, Any]:
        begin = {"sagemaker": "endpoint/", "lambda": "function:"}[ServiceNamespace]
        found = [each for each in aws.targets.values() if each["ResourceId"].startswith(begin)]
        return {"ScalableTargets": [each for each in found if not ResourceIds or each["ResourceId"] in ResourceIds]}

    aws.answers |= {
        "describe_alarms": {"MetricAlarms": [{"AlarmName": name, **_OK} for name in ("errors", "TargetTracking-high")]},
        "describe_instances": {"Reservations": [{"Instances": aws.instances}]},
        "describe_budget": {"Budget": {}},
        "describe_endpoint_config": lambda EndpointConfigName: aws.endpoints[ENDPOINT],
        "describe_model": {"PrimaryContainer": {"Environment": {"MODEL_ARTIFACT_DIGEST": DIGEST}}},
        "describe_model_package": {
            "ModelApprovalStatus": "Approved",
            "ModelPackageVersion": 3,
            "CreationTime": _LONG_AGO,
            "CustomerMetadataProperties": {"digest": DIGEST},
        },
        "describe_rule": {"Name": "guard", "Arn": RULE, "State": "ENABLED"},
        "describe_scalable_targets": scalable_targets,
        "describe_scaling_policies": {"ScalingPolicies": [{"Alarms": [{"AlarmName": "TargetTracking-high"}]}]},
        "get_alias": {"FunctionVersion": "4"},
        "get_function_url_config": {"AuthType": "AWS_IAM"},
        "get_key_policy": {"Policy": json.dumps(key_policy)},
        "get_metric_data": lambda MetricDataQueries, **_: {
            "MetricDataResults": [{"Id": each["Id"], "Values": [6000.0, 4000.0]} for each in MetricDataQueries]
        },
        "get_policy": policy,
        "get_provisioned_concurrency_config": aws.warm,
        "get_resources": {"ResourceTagMappingList": []},
        "get_role": {"Role": {"AssumeRolePolicyDocument": {"Statement": [trust]}}},
        "get_template": {"TemplateBody": {"Resources": {ROLE: {"Properties": {"Policies": [{"PolicyName": "Logs"}]}}}}},
        "get_topic_attributes": {"Attributes": {"KmsMasterKeyId": "key"}},
        "list_attached_role_policies": {"AttachedPolicies": []},
        "list_endpoint_configs": {"EndpointConfigs": []},
        "list_model_packages": {"ModelPackageSummaryList": [{"ModelPackageArn": "arn:3"}]},
        "list_models": {"Models": [{"ModelName": "old"}]},
        "list_objects_v2": {"CommonPrefixes": [{"Prefix": f"models/{DIGEST.removeprefix('sha256:')}/"}]},
        "list_provisioned_concurrency_configs": {"ProvisionedConcurrencyConfigs": [aws.warm]},
        "list_role_policies": {"PolicyNames": ["Logs"]},
        "list_subscriptions_by_topic": {"Subscriptions": [aws.subscription]},
        "list_targets_by_rule": {"Targets": [{"Arn": GUARD}]},
    }
    return aws
