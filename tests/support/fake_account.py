"""An AWS account in memory, as much of it as deploying and destroying a stage ask."""

from __future__ import annotations

import base64
import fnmatch
import io
import json
from types import SimpleNamespace
from typing import Any

import botocore.exceptions

from cli.aws import Stage


def refusal(code: str, message: str = "refused", operation: str = "Operation") -> botocore.exceptions.ClientError:
    """What a boto3 client raises when AWS refuses."""
    return botocore.exceptions.ClientError({"Error": {"Code": code, "Message": message}}, operation)


class FakeAccount:
    """The clients of all services in one object.

    Attributes
    ----------
    calls
        What was changed, in order, as "operation name".
    refused
        Operations that the caller may not call.
    images
        Repository and tag of what has been pushed.
    late_logs
        Access logs that are delivered while a stack is being deleted, one for each time.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.refused: set[str] = set()
        self.stacks: dict[str, dict[str, Any]] = {}
        self.resources: dict[str, list[tuple[str, str]]] = {}
        self.buckets: dict[str, list[dict[str, Any]]] = {}
        self.uploads: dict[str, list[dict[str, str]]] = {}
        self.late_logs: list[str] = []
        self.images: set[tuple[str, str]] = set()
        self.jobs: dict[str, dict[str, list[str]]] = {}
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.log_groups: dict[str, list[str]] = {}
        self.quotas: dict[str, float] = {}
        self.default_quotas: dict[str, float] = {}
        self.limit = {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 1000}
        self.concurrency: dict[str, Any] = {}
        self.provisioned: list[int] = []
        self.answer: dict[str, Any] = {}

    def add_stack(self, name: str, status: str = "CREATE_COMPLETE", *, protected: bool = False, **outputs: str) -> None:
        """Deploy a stack."""
        listed = [{"OutputKey": key, "OutputValue": value} for key, value in outputs.items()]
        self.stacks[name] = {
            "StackName": name,
            "StackId": f"arn:stack/{name}",
            "StackStatus": status,
            "EnableTerminationProtection": protected,
            "Outputs": listed,
        }

    def add_endpoint(self, name: str, instance_type: str, instances: int, **tags: str) -> None:
        """Put an endpoint into service."""
        self.endpoints[name] = {"type": instance_type, "count": instances, "tags": tags}

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name in object.__getattribute__(self, "refused"):
            raise refusal("AccessDeniedException", f"not authorized to perform {name}")
        return object.__getattribute__(self, name)

    def get_paginator(self, operation: str) -> Any:
        return SimpleNamespace(paginate=lambda **request: [getattr(self, operation)(**request)])

    # CloudFormation
    def describe_stacks(self, *, StackName: str) -> dict[str, Any]:
        if (found := self.stacks.get(StackName.removeprefix("arn:stack/"))) is None:
            raise refusal("ValidationError", f"Stack with id {StackName} does not exist")
        return {"Stacks": [found]}

    def describe_stack_resources(self, *, StackName: str) -> dict[str, Any]:
        return {
            "StackResources": [
                {"ResourceType": kind, "PhysicalResourceId": identity, "ResourceStatus": "CREATE_COMPLETE"}
                for kind, identity in self.resources.get(StackName, [])
            ]
        }

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

    def describe_stack_events(self, *, StackName: str) -> dict[str, Any]:
        failed = {"ResourceStatus": "DELETE_FAILED", "LogicalResourceId": "AccessLogs", "PhysicalResourceId": "logs"}
        return {"StackEvents": [failed | {"ResourceStatusReason": "The bucket you tried to delete is not empty"}]}

    # ECR
    def describe_images(self, *, repositoryName: str) -> dict[str, Any]:
        return {"imageDetails": [{"imageSizeInBytes": 2 * 10**8}, {"imageSizeInBytes": 3 * 10**8}]}

    def batch_get_image(self, *, repositoryName: str, imageIds: list[dict[str, str]]) -> dict[str, Any]:
        return {"images": [each for each in imageIds if (repositoryName, each["imageTag"]) in self.images]}

    def get_authorization_token(self) -> dict[str, Any]:
        return {"authorizationData": [{"authorizationToken": base64.b64encode(b"AWS:password").decode()}]}

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

    # SageMaker: each look at a job brings it to its next status.
    def _list_jobs(self, kind: str, prefix: str, status: str) -> list[str]:
        jobs = self.jobs.get(kind, {})
        found = [name for name, statuses in jobs.items() if prefix in name and statuses[0] == status]
        for name in found:
            if status == "Stopping" and len(jobs[name]) > 1:
                jobs[name].pop(0)
        return found

    def list_hyper_parameter_tuning_jobs(self, *, NameContains: str, StatusEquals: str) -> dict[str, Any]:
        names = self._list_jobs("tuning", NameContains, StatusEquals)
        return {"HyperParameterTuningJobSummaries": [{"HyperParameterTuningJobName": name} for name in names]}

    def list_training_jobs(self, *, NameContains: str, StatusEquals: str) -> dict[str, Any]:
        names = self._list_jobs("training", NameContains, StatusEquals)
        return {"TrainingJobSummaries": [{"TrainingJobName": name} for name in names]}

    def list_transform_jobs(self, *, NameContains: str, StatusEquals: str) -> dict[str, Any]:
        names = self._list_jobs("transform", NameContains, StatusEquals)
        return {"TransformJobSummaries": [{"TransformJobName": name} for name in names]}

    def _stop(self, kind: str, name: str) -> None:
        self.calls.append(f"stop {name}")
        if self.jobs[kind][name][0] == "InProgress":
            self.jobs[kind][name].pop(0)
        else:
            raise refusal("ValidationException", "The job has ended")

    def stop_hyper_parameter_tuning_job(self, *, HyperParameterTuningJobName: str) -> None:
        self._stop("tuning", HyperParameterTuningJobName)

    def stop_training_job(self, *, TrainingJobName: str) -> None:
        self._stop("training", TrainingJobName)

    def stop_transform_job(self, *, TransformJobName: str) -> None:
        self._stop("transform", TransformJobName)

    def list_endpoints(self) -> dict[str, Any]:
        return {"Endpoints": [{"EndpointName": name, "EndpointArn": f"arn:{name}"} for name in self.endpoints]}

    def list_tags(self, *, ResourceArn: str) -> dict[str, Any]:
        tags = self.endpoints[ResourceArn.removeprefix("arn:")]["tags"]
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def describe_endpoint(self, *, EndpointName: str) -> dict[str, Any]:
        variant = {"VariantName": "main", "CurrentInstanceCount": self.endpoints[EndpointName]["count"]}
        return {"EndpointConfigName": EndpointName, "ProductionVariants": [variant]}

    def describe_endpoint_config(self, *, EndpointConfigName: str) -> dict[str, Any]:
        kind = self.endpoints[EndpointConfigName]["type"]
        return {"ProductionVariants": [{"VariantName": "main", "InstanceType": kind}]}

    def delete_endpoint(self, *, EndpointName: str) -> None:
        self.calls.append(f"delete_endpoint {EndpointName}")
        del self.endpoints[EndpointName]

    def invoke_endpoint(self, *, EndpointName: str, Body: bytes, ContentType: str) -> dict[str, Any]:
        assert EndpointName in self.endpoints and ContentType == "image/png"
        return {"Body": io.BytesIO(json.dumps(self.answer).encode())}

    # EC2
    def describe_instances(self, **_: Any) -> dict[str, Any]:
        return {"Reservations": []}

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

    # Lambda
    def get_account_settings(self) -> dict[str, Any]:
        return {"AccountLimit": self.limit}

    def get_function_concurrency(self, *, FunctionName: str) -> dict[str, Any]:
        return self.concurrency

    def list_provisioned_concurrency_configs(self, *, FunctionName: str) -> dict[str, Any]:
        configs = [{"RequestedProvisionedConcurrentExecutions": number} for number in self.provisioned]
        return {"ProvisionedConcurrencyConfigs": configs}

    # Service Quotas
    def list_service_quotas(self, *, ServiceCode: str) -> dict[str, Any]:
        return {"Quotas": [{"QuotaName": name, "Value": value} for name, value in self.quotas.items()]}

    def list_aws_default_service_quotas(self, *, ServiceCode: str) -> dict[str, Any]:
        return {"Quotas": [{"QuotaName": name, "Value": value} for name, value in self.default_quotas.items()]}


class FakeStage(Stage):
    """A stage in a fake account: its outputs are those of the account's stacks."""

    account = "123456789012"
    region = "us-east-1"

    def __init__(self, name: str, aws: FakeAccount) -> None:
        super().__init__(name)
        self.__dict__["aws"] = aws

    def client(self, service: str, **_: Any) -> Any:
        return self.__dict__["aws"]
