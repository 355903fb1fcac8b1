"""An AWS account in memory, as much of it as deploying and destroying a stage ask."""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from functools import partial
from types import SimpleNamespace
from typing import Any

import botocore.exceptions

from cli.training.job_names import JOB_KINDS

_ARNS = {"AWS::S3::Bucket": "s3:::", "AWS::KMS::Key": "kms:::key/", "AWS::ECR::Repository": "ecr:::repository/"}
_JOB_OPERATION = re.compile(r"(list|stop)_([a-z_]+)_jobs?")


def refusal(code: str, message: str = "refused", operation: str = "Operation") -> botocore.exceptions.ClientError:
    return botocore.exceptions.ClientError({"Error": {"Code": code, "Message": message}}, operation)


def _quotas(values: dict[str, float]) -> dict[str, Any]:
    return {"Quotas": [{"QuotaName": name, "Value": value} for name, value in values.items()]}


class FakeAccount:
    """The clients of all services in one object."""

    def __init__(self) -> None:
        self.refused: set[str] = set()  # operations that the caller may not call
        self.requests = defaultdict[str, list[dict[str, Any]]](list)  # what those in `answers` have been sent
        self.calls: list[str] = []  # what was changed, in order, as "operation name"
        self.stacks: dict[str, dict[str, Any]] = {}
        self.resources: dict[str, list[tuple[str, str]]] = {}
        self.buckets: dict[str, list[dict[str, Any]]] = {}
        self.uploads: dict[str, list[dict[str, str]]] = {}
        self.images: set[tuple[str, str]] = set()  # repository and tag
        #: By kind and name, the statuses of jobs; each look at one that is stopping brings it to its next.
        self.jobs: dict[str, dict[str, list[str]]] = {}
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.log_groups: dict[str, list[str]] = {}
        self.retention: dict[str, int] = {}
        self.exceptions = SimpleNamespace(ResourceAlreadyExistsException=KeyError)
        token = base64.b64encode(b"AWS:password").decode()
        #: What operations answer that have no method here, or functions of the request.
        self.answers: dict[str, Any] = {
            "batch_get_image": lambda repositoryName, imageIds: {
                "images": [each for each in imageIds if (repositoryName, each["imageTag"]) in self.images]
            },
            "describe_endpoint": lambda EndpointName: self.endpoints[EndpointName],
            "describe_endpoint_config": lambda EndpointConfigName: self.endpoints[EndpointConfigName],
            "describe_instances": {"Reservations": []},
            "describe_alarms": {"MetricAlarms": []},
            "describe_key": {"KeyMetadata": {}},
            "list_images": {"imageIds": []},
            "describe_training_job": {"ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 2}},
            "get_authorization_token": {"authorizationData": [{"authorizationToken": token}]},
            "get_function_concurrency": {},
            "get_function_configuration": {"MemorySize": 512},
            "get_resources": lambda TagFilters: {
                "ResourceTagMappingList": [
                    {"ResourceARN": f"arn:aws:{_ARNS[kind]}{identity}"}
                    for stack, resources in self.resources.items()
                    for kind, identity in resources
                    if kind in _ARNS and stack.startswith("-".join(tag["Values"][0] for tag in TagFilters) + "-")
                ]
            },
            "head_bucket": lambda Bucket: {"objects": self.buckets[Bucket]},
            "list_aws_default_service_quotas": lambda ServiceCode: _quotas(self.default_quotas),
            "list_buckets": lambda: {"Buckets": [{"Name": name} for name in self.buckets]},
            "list_dashboards": {"DashboardEntries": []},
            "list_endpoints": lambda: {"Endpoints": list(self.endpoints.values())},
            "list_multipart_uploads": lambda Bucket: {"Uploads": list(self.uploads.get(Bucket, []))},
            "list_object_versions": lambda Bucket: {"Versions": list(self.buckets[Bucket])},
            "list_notebook_instances": {"NotebookInstances": []},
            "list_provisioned_concurrency_configs": {"ProvisionedConcurrencyConfigs": []},
            "list_service_quotas": lambda ServiceCode: _quotas(self.quotas),
            "list_tags": lambda ResourceArn: self.endpoints[ResourceArn],
        }
        self.quotas: dict[str, float] = {}
        self.default_quotas: dict[str, float] = {}
        self.limit_concurrency(1000, unreserved=1000)

    def add_stack(self, name: str, *, protected: bool = False, **outputs: str) -> None:
        self.stacks[name] = {
            "StackName": name,
            "StackId": f"arn:stack/{name}",
            "EnableTerminationProtection": protected,
            "Outputs": [{"OutputKey": key, "OutputValue": value} for key, value in outputs.items()],
        }

    def add_endpoint(self, name: str, instance_type: str, instances: int, **tags: str) -> None:
        variant = {"VariantName": "main", "InstanceType": instance_type, "CurrentInstanceCount": instances}
        self.endpoints[name] = {
            **dict.fromkeys(("EndpointName", "EndpointArn", "EndpointConfigName"), name),
            "ProductionVariants": [variant],
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        }

    def limit_concurrency(self, limit: int, unreserved: int) -> None:
        limits = {"ConcurrentExecutions": limit, "UnreservedConcurrentExecutions": unreserved}
        self.answers["get_account_settings"] = {"AccountLimit": limits}

    def __getattribute__(self, name: str) -> Any:
        if name in object.__getattribute__(self, "__dict__").get("refused", ()):
            raise refusal("AccessDeniedException", f"not authorized to perform {name}")
        return object.__getattribute__(self, name)

    def __getattr__(self, operation: str) -> Any:
        if operation in self.answers:
            return partial(self._answer, operation)
        if (found := _JOB_OPERATION.fullmatch(operation)) and found[2] in JOB_KINDS:
            return partial(self.list_jobs if found[1] == "list" else self.stop_job, found[2])
        raise AttributeError(operation)

    def _answer(self, operation: str, **request: Any) -> Any:
        self.requests[operation].append(request)
        answer = self.answers[operation]
        return answer(**request) if callable(answer) else answer

    def get_paginator(self, operation: str) -> Any:
        return SimpleNamespace(paginate=lambda **request: [getattr(self, operation)(**request)])

    def get_waiter(self, _: str) -> Any:
        return SimpleNamespace(wait=lambda **_: None)

    # CloudFormation
    def describe_stacks(self, *, StackName: str) -> dict[str, Any]:
        if (found := self.stacks.get(StackName)) is None:
            raise refusal("ValidationError", f"Stack with id {StackName} does not exist")
        return {"Stacks": [found]}

    def list_stack_resources(self, *, StackName: str) -> dict[str, Any]:
        resources = [
            {
                **dict.fromkeys(("LogicalResourceId", "PhysicalResourceId"), identity),
                "ResourceType": kind,
                "ResourceStatus": "CREATE_COMPLETE",
            }
            for kind, identity in self.resources.get(StackName, [])
        ]
        return {"StackResourceSummaries": resources}

    def delete_stack(self, *, StackName: str) -> None:
        name = StackName.removeprefix("arn:stack/")
        self.calls.append(f"delete_stack {name}")
        assert not self.stacks[name]["EnableTerminationProtection"]
        buckets = [identity for kind, identity in self.resources.get(name, []) if kind == "AWS::S3::Bucket"]
        assert not any(self.buckets.get(bucket) or self.uploads.get(bucket) for bucket in buckets)
        for bucket in buckets:
            del self.buckets[bucket]
        for kind, identity in self.resources.pop(name, []):
            if kind == "AWS::SageMaker::Endpoint":
                del self.endpoints[identity]
        del self.stacks[name]

    # S3
    def put_bucket_logging(self, *, Bucket: str, BucketLoggingStatus: dict[str, Any]) -> None:
        assert BucketLoggingStatus == {}
        self.calls.append(f"put_bucket_logging {Bucket}")

    def delete_objects(self, *, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(f"delete_objects {Bucket}")
        self.buckets[Bucket] = [each for each in self.buckets[Bucket] if each not in Delete["Objects"]]
        return {}

    def abort_multipart_upload(self, *, Bucket: str, Key: str, UploadId: str) -> None:
        self.uploads[Bucket].remove({"Key": Key, "UploadId": UploadId})

    # SageMaker
    def list_jobs(self, kind: str, *, NameContains: str, StatusEquals: str, **_: str) -> dict[str, Any]:
        jobs, member = self.jobs.get(kind, {}), JOB_KINDS[kind]
        found = [name for name, statuses in jobs.items() if NameContains in name and statuses[0] == StatusEquals]
        for name in found:
            if StatusEquals == "Stopping" and len(jobs[name]) > 1:
                jobs[name].pop(0)
        return {f"{member}Summaries": [{f"{member}Name": name} for name in found]}

    def stop_job(self, kind: str, **named: str) -> None:
        (name,) = named.values()
        self.calls.append(f"stop {name}")
        self.jobs[kind][name].pop(0)

    def delete_endpoint(self, *, EndpointName: str) -> None:
        del self.endpoints[EndpointName]

    # CloudWatch Logs
    def create_log_group(self, *, logGroupName: str) -> None:
        if logGroupName in self.log_groups:
            raise self.exceptions.ResourceAlreadyExistsException
        self.log_groups[logGroupName] = []

    def put_retention_policy(self, *, logGroupName: str, retentionInDays: int) -> None:
        self.retention[logGroupName] = retentionInDays

    def describe_log_groups(self, *, logGroupNamePrefix: str, limit: int = 50) -> dict[str, Any]:
        names = sorted(name for name in self.log_groups if name.startswith(logGroupNamePrefix))[:limit]
        kept = {name: {"retentionInDays": self.retention[name]} for name in names if name in self.retention}
        return {"logGroups": [{"logGroupName": name, **kept.get(name, {})} for name in names]}

    def describe_log_streams(self, *, logGroupName: str, logStreamNamePrefix: str = "") -> dict[str, Any]:
        names = [name for name in self.log_groups[logGroupName] if name.startswith(logStreamNamePrefix)]
        return {"logStreams": [{"logStreamName": name} for name in names]}

    def delete_log_group(self, *, logGroupName: str) -> None:
        self.calls.append(f"delete_log_group {logGroupName}")
        del self.log_groups[logGroupName]

    def delete_log_stream(self, *, logGroupName: str, logStreamName: str) -> None:
        self.log_groups[logGroupName].remove(logStreamName)
