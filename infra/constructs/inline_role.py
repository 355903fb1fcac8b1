"""The roles of our stacks: permissions are granted where two constructs meet, and stay part of the role itself."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from aws_cdk import Aws, Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.gate.compliance import acknowledge_wildcard

#: Where SageMaker logs what training jobs print.
TRAINING_LOG_GROUP = "/aws/sagemaker/TrainingJobs"
STREAMS = "SageMaker names the log streams after the jobs, in the one group that it uses for all of them."
#: What a function, a build or an instance does with its own log; the ARN of a group in the CDK ends in :*, its streams.
WRITE_LOG = ["logs:CreateLogStream", "logs:PutLogEvents"]
# Services that work for many accounts: without a condition another account could make them use our role (confused
# deputy).
_SHARED_SERVICES = ("codebuild", "sagemaker")


class InlineRole(iam.Role):
    """A role that holds all that it may do as inline policies of the role resource.

    What refers to the role cannot be created before the role may do its work. A policy resource of its own, as
    `add_to_policy` makes it, would race with the model or job that needs it.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        description: str,
        service: str = "",
        principal: iam.IPrincipal | None = None,
    ) -> None:
        condition = {"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}} if service in _SHARED_SERVICES else None
        trusted = principal or iam.ServicePrincipal(f"{service}.amazonaws.com", conditions=condition)
        super().__init__(scope, construct_id, description=description, assumed_by=trusted)
        self.documents: dict[str, iam.PolicyDocument] = {}

    @property
    def resource(self) -> iam.CfnRole:
        """The role in the template."""
        return cast(iam.CfnRole, self.node.default_child)

    def allow(
        self,
        policy: str,
        actions: Sequence[str],
        resources: Sequence[str],
        conditions: Mapping[str, Any] | None = None,
        *,
        because: str | None = None,
    ) -> None:
        """Allow actions on resources, in the inline policy of this name; `because`: why a resource has a wildcard."""
        document = self.documents.setdefault(policy, iam.PolicyDocument())
        document.add_statements(iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions))
        self.resource.policies = [
            iam.CfnRole.PolicyProperty(policy_name=name, policy_document=document)
            for name, document in self.documents.items()
        ]
        if because:
            self.acknowledge_wildcards(because, resources)

    def allow_in_s3(
        self, policy: str, actions: Sequence[str], resources: Sequence[str], conditions: Mapping[str, Any] | None = None
    ) -> None:
        """Allow actions on buckets of this account only.

        An ARN in S3 names no account: another one that takes the name of a deleted bucket could feed us with objects,
        or be sent ours.
        """
        own = {"StringEquals": {"aws:ResourceAccount": Aws.ACCOUNT_ID}}
        self.allow(policy, actions, resources, {**own, **(conditions or {})})

    def allow_any(self, policy: str, actions: Sequence[str], conditions: Mapping[str, Any] | None = None) -> None:
        """Allow actions for which IAM knows no resources."""
        because = "IAM knows no resources; ANY_RESOURCE_ONLY_WHERE_IAM_KNOWS_NO_OTHER keeps every other action out."
        self.allow(policy, actions, ["*"], conditions, because=because)

    def allow_telemetry(self, log_groups: Mapping[str, str]) -> None:
        """Allow to write to SageMaker's log groups (with reasons for their wildcards), and metrics of their names."""
        actions = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
        for name, because in log_groups.items():
            self.allow("Telemetry", actions, with_streams(name), because=because)
        # PutMetricData knows no resources; the condition takes their place.
        namespaces = [
            "/".join(name.split("/")[:4]) for name in log_groups
        ]  # /aws/sagemaker/… without an endpoint's name
        condition = {"StringEquals": {"cloudwatch:namespace": namespaces}}
        self.allow_any("Telemetry", ["cloudwatch:PutMetricData"], condition)

    def acknowledge_wildcards(self, because: str, resources: Sequence[str]) -> None:
        """Say why the role may have those of the resources that hold a wildcard."""
        for resource in resources:
            acknowledge_wildcard(self.resource, Stack.of(self).resolve(resource), because)


def with_streams(log_group: str) -> list[str]:
    """Return the ARNs of a log group of this account and of its streams."""
    arn = arn_here("logs", f"log-group:{log_group}")
    return [arn, f"{arn}:log-stream:*"]


def arn_here(service: str, resource: str) -> str:
    """Return the ARN of something in the stack's account and region."""
    return f"arn:{Aws.PARTITION}:{service}:{Aws.REGION}:{Aws.ACCOUNT_ID}:{resource}"
