"""What all SageMaker resources have in common: names, ARNs, records, tags and lists."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.model import ListShape

from emulator.platform.awsapi import Caller, Payload, ServiceError, operation, page, service_model
from emulator.platform.store import Record, Result, Store

_MAX_TAGS = 50


@dataclass(frozen=True)
class Kind:
    """A type of resource in AWS's words.

    Attributes
    ----------
    member
        ``EndpointConfig`` for ``EndpointConfigName`` and ``EndpointConfigArn``.
    missing, existing, missing_code, existing_code
        AWS's errors for a name that does not exist and one that is taken, with ``{arn}`` for the resource.
    sort_by, sort_order
        How the List operation sorts when the caller does not say.
    """

    member: str
    missing: str
    existing: str
    existing_code: str = "ValidationException"
    missing_code: str = "ValidationException"
    sort_by: str = "CreationTime"
    sort_order: str = "Descending"

    @property
    def arn_type(self) -> str:
        """The part of the ARN before the name: ``endpoint-config``."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", self.member).lower()

    @property
    def name_member(self) -> str:
        return f"{self.member}Name"

    @property
    def arn_member(self) -> str:
        return f"{self.member}Arn"

    @property
    def status_member(self) -> str:
        return f"{self.member}Status"

    def arn(self, caller: Caller, name: str) -> str:
        """AWS writes names in ARNs in lower case; a name is unique whatever its case. `name` may be an ARN."""
        if name.startswith("arn:"):
            return name.lower()
        return f"arn:aws:sagemaker:{caller.region}:{caller.account}:{self.arn_type}/{name.lower()}"


def _named(member: str, title: str) -> Kind:
    return Kind(member, f'Could not find {title} "{{arn}}".', f'Cannot create already existing {title} "{{arn}}".')


def _job(member: str, title: str, missing: str, **others: str) -> Kind:
    existing = (
        f"{title} job names must be unique within an AWS account and region, and a {title.lower()} job with this name "
        "already exists ({arn})"
    )
    return Kind(member, missing, existing, "ResourceInUse", **others)


_UP_BY_NAME = {"sort_by": "Name", "sort_order": "Ascending"}
_NO_TUNING_JOB = "Amazon SageMaker can't find a tuning job with the ARN {arn}."
_NO_JOB = 'Could not find requested job with name: "{arn}".'
_NOTEBOOK_EXISTS = "Cannot create a duplicate Notebook Instance ({arn})"
MODEL = _named("Model", "model")
ENDPOINT_CONFIG = _named("EndpointConfig", "endpoint configuration")
ENDPOINT = _named("Endpoint", "endpoint")
TRAINING_JOB = _job("TrainingJob", "Training", "Requested resource not found.", sort_order="Ascending")
TUNING_JOB = _job("HyperParameterTuningJob", "Tuning", _NO_TUNING_JOB, missing_code="ResourceNotFound", **_UP_BY_NAME)
TRANSFORM_JOB = _job("TransformJob", "Transform", _NO_JOB)
PROCESSING_JOB = _job("ProcessingJob", "Processing", _NO_JOB, sort_order="Ascending")
NOTEBOOK_INSTANCE = Kind("NotebookInstance", "RecordNotFound", _NOTEBOOK_EXISTS, **_UP_BY_NAME)
LIFECYCLE_CONFIG = _named("NotebookInstanceLifecycleConfig", "Notebook Instance Lifecycle Config")
_PACKAGE_GROUP = ("ModelPackageGroup {arn} does not exist.", "Model Package Group already exists: {arn}")
MODEL_PACKAGE_GROUP = Kind("ModelPackageGroup", *_PACKAGE_GROUP, sort_order="Ascending")
MODEL_PACKAGE = Kind("ModelPackage", "ModelPackage {arn} does not exist.", "", sort_order="Ascending")
KINDS = (
    *(MODEL, ENDPOINT_CONFIG, ENDPOINT, TRAINING_JOB, TUNING_JOB, TRANSFORM_JOB),
    *(PROCESSING_JOB, NOTEBOOK_INSTANCE, LIFECYCLE_CONFIG, MODEL_PACKAGE_GROUP, MODEL_PACKAGE),
)


class Resources:
    """The records of one kind of resource, by ARN."""

    def __init__(self, store: Store, kind: Kind) -> None:
        self.kind = kind
        self._store = store
        self._table = store.table("sagemaker", kind.arn_type)

    def create(self, caller: Caller, request: Payload, **members: Any) -> Record:
        """Record a new resource: the request, its ARN and times, and further members."""
        arn = self.kind.arn(caller, request[self.kind.name_member])
        now = time.time()
        record = {**request, self.kind.arn_member: arn, "CreationTime": now, "LastModifiedTime": now, **members}
        with self._store.transaction():
            if self._table.get(arn) is not None:
                raise ServiceError(self.kind.existing_code, self.kind.existing.format(arn=arn))
            self._table.put(arn, record)
        return record

    def get(self, arn: str) -> Record | None:
        return self._table.get(arn)

    def require(self, caller: Caller, name: str) -> Record:
        """The record of a name, or of an ARN of the caller's region; AWS's error where there is none."""
        return self.require_arn(self.kind.arn(caller, name), self.kind.arn(caller, ""))

    def require_arn(self, arn: str, prefix: str = "") -> Record:
        """The record of an ARN that begins so; AWS's error where there is none."""
        record = self._table.get(arn) if arn.startswith(prefix) else None
        if record is None:
            raise ServiceError(self.kind.missing_code, self.kind.missing.format(arn=arn))
        return record

    def change(self, arn: str, change: Callable[[Record], None]) -> Record | None:
        """Read, change and write a record while nobody else does; None when it has gone meanwhile.

        An exception in `change` leaves the record as it was.
        """
        with self._store.transaction():
            record = self._table.get(arn)
            if record is None:
                return None
            change(record)
            record["LastModifiedTime"] = time.time()
            self._table.put(arn, record)
        return record

    def insist(self, work: Callable[[], Result]) -> Result:
        """Do what changes records of something that has happened, however long there is no space (`Store.insist`)."""
        return self._store.insist(work)

    def delete(self, arn: str) -> None:
        self._table.delete(arn)

    def all(self, arn_prefix: str = "") -> list[Record]:
        """Every record whose ARN begins with `arn_prefix`, of all regions, in the order of the ARNs."""
        return self._table.list(arn_prefix)

    def describe(self, request: Payload, caller: Caller) -> Payload:
        return self.show(self.require(caller, request[self.kind.name_member]))

    def delete_named(self, request: Payload, caller: Caller) -> None:
        self.delete(self.require(caller, request[self.kind.name_member])[self.kind.arn_member])

    def show(self, record: Record) -> Payload:
        return project(record, _output(f"Describe{self.kind.member}"))

    def list_page(self, request: Payload, caller: Caller) -> Payload:
        members: dict[str, Any] = _output(f"List{self.kind.member}s").members
        list_member, shape = next((name, s) for name, s in members.items() if isinstance(s, ListShape))
        records = list(filter(self._filter(request), self._table.list(self.kind.arn(caller, ""))))
        sort_by: str = request.get("SortBy", self.kind.sort_by)
        sort_member = {"Name": self.kind.name_member, "Status": self.kind.status_member}.get(sort_by, sort_by)
        records.sort(
            key=lambda r: (r[sort_member], r[self.kind.arn_member]),
            reverse=request.get("SortOrder", self.kind.sort_order) == "Descending",
        )
        return page(records, request, list_member, self.kind.arn_member, lambda record: project(record, shape.member))

    def _filter(self, request: Payload) -> Callable[[Record], bool]:
        wanted = {name: value for name, value in request.items() if name in _FILTERS}
        return lambda record: all(_FILTERS[name](self.kind, record, value) for name, value in wanted.items())


#: Whether a record passes a filter of a List request with some value.
_FILTERS: dict[str, Callable[[Kind, Record, Any], bool]] = {
    "NameContains": lambda kind, record, text: text.lower() in record[kind.name_member].lower(),
    "StatusEquals": lambda kind, record, status: record[kind.status_member] == status,
    "CreationTimeAfter": lambda kind, record, moment: record["CreationTime"] > moment,
    "CreationTimeBefore": lambda kind, record, moment: record["CreationTime"] < moment,
    "LastModifiedTimeAfter": lambda kind, record, moment: record["LastModifiedTime"] > moment,
    "ModelPackageGroupName": lambda kind, record, name: record["ModelPackageGroupName"] == name,
    "ModelApprovalStatus": lambda kind, record, status: record["ModelApprovalStatus"] == status,
    "LastModifiedTimeBefore": lambda kind, record, moment: record["LastModifiedTime"] < moment,
}


def project(record: Record, shape: Any) -> Payload:
    return {name: record[name] for name in shape.members if name in record}


def _output(operation: str) -> Any:
    return service_model("sagemaker").operation_model(operation).output_shape


class Tags:
    """AddTags, ListTags and DeleteTags for every kind; the tags lie in the resource's record."""

    def __init__(self, store: Store) -> None:
        self._resources = {kind.arn_type: Resources(store, kind) for kind in KINDS}

    @operation("AddTags")
    def add(self, request: Payload, caller: Caller) -> Payload:
        def change(record: Record) -> None:
            merged = {tag["Key"]: tag["Value"] for tag in [*record.get("Tags", []), *request["Tags"]]}
            if len(merged) > _MAX_TAGS:
                raise ServiceError("ResourceLimitExceeded", f"A resource has at most {_MAX_TAGS} tags.")
            record["Tags"] = [{"Key": key, "Value": value} for key, value in merged.items()]

        return {"Tags": self._change(request["ResourceArn"], change)["Tags"]}

    @operation("DeleteTags")
    def delete(self, request: Payload, caller: Caller) -> None:
        def change(record: Record) -> None:
            record["Tags"] = [tag for tag in record.get("Tags", []) if tag["Key"] not in request["TagKeys"]]

        self._change(request["ResourceArn"], change)

    @operation("ListTags")
    def list_all(self, request: Payload, caller: Caller) -> Payload:
        arn = request["ResourceArn"]
        return page(self._of(arn).require_arn(arn.lower()).get("Tags", []), request, "Tags", "Key", size=_MAX_TAGS)

    def _change(self, arn: str, change: Callable[[Record], None]) -> Record:
        resources = self._of(arn)
        return resources.change(arn.lower(), change) or resources.require_arn(arn.lower())

    def _of(self, arn: str) -> Resources:
        resources = self._resources.get(arn.rpartition(":")[2].split("/")[0])
        if resources is None:
            kinds = ", ".join(sorted(self._resources))
            raise ServiceError("ValidationException", f'"{arn}" cannot be tagged here. Types that can: {kinds}.')
        return resources
