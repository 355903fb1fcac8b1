"""An AWS account in memory, as much of it as deploying and destroying a stage ask."""

from __future__ import annotations

import base64
import fnmatch
import re
from collections import defaultdict
from functools import partial
from types import SimpleNamespace
from typing import Any

import botocore.exceptions

from cli.training.job_names import JOB_KINDS

_JOB_OPERATION = re.compile(r"(list|stop)_([a-z_]+)_jobs?")


def refusal(code: str, message: str = "refused", operation: str = "Operation") -> botocore.exceptions.ClientError:
    """What a boto3 client raises when AWS refuses."""
    return botocore.exceptions.ClientError({"Error": {"Code": code, "Message": message}}, operation)


class FakeAccount:
    """The clients of all services in one object.

    Attributes
    ----------
    answers
        What operations answer that have no method here, or functions of the request.
    requests
        What these have been sent, by operation.
    refused
        Operations that the caller may not call.
    calls
        What was changed, in order, as "operation name".
    images
        Repository and tag of what has been pushed.
    jobs
        By kind and name, the statuses of jobs; each look at one that is stopping brings it to its next.
    late_logs
        Access logs that are delivered while a stack is being deleted, one for each time.
    """

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.requests = defaultdict[str, list[dict[str, Any]]](list)
        self.calls: list[str] = []
        self.stacks: dict[str, dict[str, Any]] = {}
        self.resources: dict[str, list[tuple[str, str]]] = {}
        self.buckets: dict[str, list[dict[str, Any]]] = {}
        self.uploads: dict[str, list[dict[str, str]]] = {}
        self.late_logs: list[str] = []
        self.images: set[tuple[str, str]] = set()
        self.jobs: dict[str, dict[str, list[str]]] = {}
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.log_groups: dict[str, list[str]] = {}
        late = {
            "ResourceStatus": "DELETE_FAILED", "LogicalResourceId": "AccessLogs", "PhysicalResourceId": "logs",
            "ResourceStatusReason": "The bucket you tried to delete is not empty",
        }  # fmt: skip
        token = base64.b64encode(b"AWS:password").decode()
        self.answers: dict[str, Any] = {
            "describe_images": {"imageDetails": [{"imageSizeInBytes": 2 * 10**8}, {"imageSizeInBytes": 3 * 10**8}]},
            "describe_instances": {"Reservations": []},
            "describe_stack_events": {"StackEvents": [late]},
            "get_authorization_token": {"authorizationData": [{"authorizationToken": token}]},
            "get_function_concurrency": {},
            "list_provisioned_concurrency_configs": {"ProvisionedConcurrencyConfigs": []},
        }
        self.quotas: dict[str, float] = {}
        self.default_quotas: dict[str, float] = {}
        self.limit_concurrency(1000, unreserved=1000)

    def add_stack(self, name: str, status: str = "CREATE_COMPLETE", *, protected: bool = False, **outputs: str) -> None:
        """Deploy a stack."""
        self.stacks[name] = {
            "StackName": name,
            "StackId": f"arn:stack/{name}",
            "StackStatus": status,
            "EnableTerminationProtection": protected,
            "Outputs": [{"OutputKey": key, "OutputValue": value} for key, value in outputs.items()],
        }

    def add_endpoint(self, name: str, instance_type: str, instances: int, **tags: str) -> None:
        """Put an endpoint into service."""
        self.endpoints[name] = {"type": instance_type, "count": instances, "tags": tags}

    def limit_concurrency(self, limit: int, unreserved: int) -> None:
        """Set Lambda's concurrency, and how much of it nobody has reserved."""
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

    # CloudFormation
    def describe_stacks(self, *, StackName: str) -> dict[str, Any]:
        if (found := self.stacks.get(StackName.removeprefix("arn:stack/"))) is None:
            raise refusal("ValidationError", f"Stack with id {StackName} does not exist")
        return {"Stacks": [found]}

    def describe_stack_resources(self, *, StackName: str) -> dict[str, Any]:
        resources = [
            {"ResourceType": kind, "PhysicalResourceId": identity, "ResourceStatus": "CREATE_COMPLETE"}
            for kind, identity in self.resources.get(StackName, [])
        ]
        return {"StackResources": resources}

    def delete_stack(self, *, StackName: str) -> None:
        name = StackName.removeprefix("arn:stack/")
        self.calls.append(f"delete_stack {name}")
        if self.stacks[name]["EnableTerminationProtection"]:
            raise refusal("ValidationError", f"Stack [{name}] cannot be deleted while TerminationProtection is enabled")
        buckets = [identity for kind, identity in self.resources.get(name, []) if kind == "AWS::S3::Bucket"]
        if buckets and self.late_logs:
            self.buckets[buckets[-1]].append({"Key": self.late_logs.pop(), "VersionId": "null", "Size": 1})
        if any(self.buckets.get(bucket) or self.uploads.get(bucket) for bucket in buckets):
            self.stacks[name]["StackStatus"] = "DELETE_FAILED"
            return
        for bucket in buckets:
            del self.buckets[bucket]
        for kind, identity in self.resources.pop(name, []):
            if kind == "AWS::SageMaker::Endpoint":
                del self.endpoints[identity]
        del self.stacks[name]

    # ECR
    def batch_get_image(self, *, repositoryName: str, imageIds: list[dict[str, str]]) -> dict[str, Any]:
        return {"images": [each for each in imageIds if (repositoryName, each["imageTag"]) in self.images]}

    # S3
    def list_buckets(self) -> dict[str, Any]:
        return {"Buckets": [{"Name": name} for name in self.buckets]}

    def put_bucket_logging(self, *, Bucket: str, BucketLoggingStatus: dict[str, Any]) -> None:
        assert BucketLoggingStatus == {}
        self.calls.append(f"put_bucket_logging {Bucket}")

    def list_object_versions(self, *, Bucket: str) -> dict[str, Any]:
        return {"Versions": list(self.buckets[Bucket])}

    def delete_objects(self, *, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(f"delete_objects {Bucket}")
        gone = [(each["Key"], each["VersionId"]) for each in Delete["Objects"]]
        self.buckets[Bucket] = [each for each in self.buckets[Bucket] if (each["Key"], each["VersionId"]) not in gone]
        return {}

    def list_multipart_uploads(self, *, Bucket: str) -> dict[str, Any]:
        return {"Uploads": list(self.uploads.get(Bucket, []))}

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
        if self.jobs[kind][name][0] != "InProgress":
            raise refusal("ValidationException", "The job has ended")
        self.jobs[kind][name].pop(0)

    def list_endpoints(self) -> dict[str, Any]:
        return {"Endpoints": [{"EndpointName": name, "EndpointArn": name} for name in self.endpoints]}

    def list_tags(self, *, ResourceArn: str) -> dict[str, Any]:
        return {"Tags": [{"Key": key, "Value": value} for key, value in self.endpoints[ResourceArn]["tags"].items()]}

    def describe_endpoint(self, *, EndpointName: str) -> dict[str, Any]:
        variant = {"VariantName": "main", "CurrentInstanceCount": self.endpoints[EndpointName]["count"]}
        return {"EndpointConfigName": EndpointName, "ProductionVariants": [variant]}

    def describe_endpoint_config(self, *, EndpointConfigName: str) -> dict[str, Any]:
        variant = {"VariantName": "main", "InstanceType": self.endpoints[EndpointConfigName]["type"]}
        return {"ProductionVariants": [variant]}

    def delete_endpoint(self, *, EndpointName: str) -> None:
        del self.endpoints[EndpointName]

    # CloudWatch Logs
    def describe_log_groups(self, *, logGroupNamePrefix: str) -> dict[str, Any]:
        names = fnmatch.filter(self.log_groups, f"{logGroupNamePrefix}*")
        return {"logGroups": [{"logGroupName": name, "storedBytes": 10**9} for name in names]}

    def delete_log_group(self, *, logGroupName: str) -> None:
        self.calls.append(f"delete_log_group {logGroupName}")
        del self.log_groups[logGroupName]

    def describe_log_streams(self, *, logGroupName: str, logStreamNamePrefix: str) -> dict[str, Any]:
        names = [name for name in self.log_groups[logGroupName] if name.startswith(logStreamNamePrefix)]
        return {"logStreams": [{"logStreamName": name} for name in names]}

    def delete_log_stream(self, *, logGroupName: str, logStreamName: str) -> None:
        self.log_groups[logGroupName].remove(logStreamName)

    # Service Quotas
    def list_service_quotas(self, *, ServiceCode: str) -> dict[str, Any]:
        return {"Quotas": [{"QuotaName": name, "Value": value} for name, value in self.quotas.items()]}

    def list_aws_default_service_quotas(self, *, ServiceCode: str) -> dict[str, Any]:
        return {"Quotas": [{"QuotaName": name, "Value": value} for name, value in self.default_quotas.items()]}
