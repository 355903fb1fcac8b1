"""The model registry: groups of model packages, the versions in them, and who approved which."""

from __future__ import annotations

from emulator.platform.awsapi import Caller, Payload, ServiceError, operation
from emulator.platform.errors import refuse
from emulator.platform.store import Record, Store
from emulator.sagemaker.artifacts import check_location
from emulator.sagemaker.resources import MODEL_PACKAGE, MODEL_PACKAGE_GROUP, Resources

#: What UpdateModelPackage changes here.
_UPDATED = ("ModelApprovalStatus", "ApprovalDescription")
_METADATA = "CustomerMetadataProperties"
_MAX_METADATA = 50
_VERSIONS_ONLY = "The local AWS has model packages with versions only: give a ModelPackageGroupName."


class ModelPackages:
    """Create and delete groups; create, approve, list and delete the versions in them.

    A version's ARN ends in ``<group>/<version>``. Numbers are not used again when versions are deleted.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._groups = Resources(store, MODEL_PACKAGE_GROUP)
        self._packages = Resources(store, MODEL_PACKAGE)

    @operation("CreateModelPackageGroup")
    def create_group(self, request: Payload, caller: Caller) -> Payload:
        members = {"ModelPackageGroupStatus": "Completed", "CreatedBy": {}, "LatestVersion": 0}
        record = self._groups.create(caller, request, **members)
        return {"ModelPackageGroupArn": record["ModelPackageGroupArn"]}

    @operation("DeleteModelPackageGroup")
    def delete_group(self, request: Payload, caller: Caller) -> None:
        with self._store.transaction():
            group = self._groups.require(caller, request["ModelPackageGroupName"])
            if self._packages.all(f"{MODEL_PACKAGE.arn(caller, group['ModelPackageGroupName'])}/"):
                message = "Model Package Group cannot be deleted because it still contains Model Packages."
                raise ServiceError("ConflictException", message)
            self._groups.delete(group["ModelPackageGroupArn"])

    @operation("CreateModelPackage")
    def create(self, request: Payload, caller: Caller) -> Payload:
        refuse("ModelPackageGroupName" not in request, _VERSIONS_ONLY)
        wanted = "InferenceSpecification" not in request
        refuse(wanted, "A model package needs an InferenceSpecification here, with the location of the model.")
        for container in request["InferenceSpecification"]["Containers"]:
            if "ModelDataUrl" in container:
                check_location(container["ModelDataUrl"])
        with self._store.transaction():
            group = self._groups.require(caller, request["ModelPackageGroupName"])

            def count(record: Record) -> None:
                record["LatestVersion"] += 1

            name, arn = group["ModelPackageGroupName"], group["ModelPackageGroupArn"]
            for made in self._packages.all(f"{MODEL_PACKAGE.arn(caller, name)}/"):
                if (token := request.get("ClientToken")) and made.get("ClientToken") == token:
                    return {"ModelPackageArn": made["ModelPackageArn"]}  # a request that was sent again
            version = (self._groups.change(arn, count) or group)["LatestVersion"]
            shown = {"ModelPackageName": name, "ModelPackageGroupName": name, "ModelPackageVersion": version}
            record = self._packages.create(
                caller,
                {"ModelApprovalStatus": "PendingManualApproval", **request, "ModelPackageName": f"{name}/{version}"},
                **shown,
                ModelPackageStatus="Completed",
                ModelPackageStatusDetails={"ValidationStatuses": [], "ImageScanStatuses": []},
            )
        return {"ModelPackageArn": record["ModelPackageArn"]}

    @operation("UpdateModelPackage")
    def update(self, request: Payload, caller: Caller) -> Payload:
        def change(record: Record) -> None:
            record.update({member: request[member] for member in _UPDATED if member in request})
            if _METADATA in request:
                record[_METADATA] = {**record.get(_METADATA, {}), **request[_METADATA]}
                many = len(record[_METADATA]) > _MAX_METADATA
                refuse(many, f"A model package has at most {_MAX_METADATA} {_METADATA}.")

        arn = self._packages.require(caller, request["ModelPackageArn"])["ModelPackageArn"]
        self._packages.change(arn, change)
        return {"ModelPackageArn": arn}

    @operation("ListModelPackages")
    def list_all(self, request: Payload, caller: Caller) -> Payload:
        name = request.get(self._groups.kind.name_member, "")
        group = self._groups.get(self._groups.kind.arn(caller, name)) or {}
        # AWS lists nothing of a group that is not there, and without one, what has no version: nothing here.
        named = {self._groups.kind.name_member: group.get(self._groups.kind.name_member, name)}
        every = not name and request.get("ModelPackageType") == "Versioned"
        return self._packages.list_page(request if every else request | named, caller)
