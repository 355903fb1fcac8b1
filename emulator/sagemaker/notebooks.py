"""Notebook instances and their lifecycle configurations: records with AWS's states; no notebook runs."""

from __future__ import annotations

from emulator.platform.awsapi import Caller, Payload, operation
from emulator.platform.errors import refuse
from emulator.platform.store import Record, Store
from emulator.sagemaker.resources import LIFECYCLE_CONFIG, NOTEBOOK_INSTANCE, Resources

_STATUS = "NotebookInstanceStatus"
_AT_REST = ("Stopped", "Failed")
_CONFIG = LIFECYCLE_CONFIG.name_member
#: Members that requests and answers call differently.
_RENAMED = {"LifecycleConfigName": _CONFIG, "SecurityGroupIds": "SecurityGroups"}
_DEFAULTS = {"DirectInternetAccess": "Enabled", "RootAccess": "Enabled", "VolumeSizeInGB": 5}


class NotebookInstances:
    def __init__(self, store: Store) -> None:
        self._notebooks = Resources(store, NOTEBOOK_INSTANCE)
        self._lifecycle_configs = Resources(store, LIFECYCLE_CONFIG)

    @operation("CreateNotebookInstance")
    def create(self, request: Payload, caller: Caller) -> Payload:
        url = f"{request['NotebookInstanceName'].lower()}.notebook.{caller.region}.sagemaker.aws"
        members = {**_DEFAULTS, **self._members(request, caller)}
        record = self._notebooks.create(caller, members, **{_STATUS: "InService", "Url": url})
        return {"NotebookInstanceArn": record["NotebookInstanceArn"]}

    @operation("StartNotebookInstance")
    def start(self, request: Payload, caller: Caller) -> None:
        self._move(request, caller, _AT_REST, "InService")

    @operation("StopNotebookInstance")
    def stop(self, request: Payload, caller: Caller) -> None:
        self._move(request, caller, ("InService",), "Stopped")

    @operation("UpdateNotebookInstance")
    def update(self, request: Payload, caller: Caller) -> None:
        arn = self._require_status(request, caller, _AT_REST, "Updating")
        members = self._members(request, caller)

        def change(record: Record) -> None:
            if members.pop("DisassociateLifecycleConfig", False):
                record.pop(_CONFIG, None)
            record.update(members)

        self._notebooks.change(arn, change)

    @operation("DeleteNotebookInstance")
    def delete(self, request: Payload, caller: Caller) -> None:
        self._notebooks.delete(self._require_status(request, caller, _AT_REST, "Deleting"))

    def _members(self, request: Payload, caller: Caller) -> Payload:
        if "LifecycleConfigName" in request:
            self._lifecycle_configs.require(caller, request["LifecycleConfigName"])
        return {_RENAMED.get(name, name): value for name, value in request.items()}

    def _move(self, request: Payload, caller: Caller, allowed: tuple[str, ...], target: str) -> None:
        arn = self._require_status(request, caller, allowed, target)
        self._notebooks.change(arn, lambda record: record.update({_STATUS: target}))

    def _require_status(self, request: Payload, caller: Caller, allowed: tuple[str, ...], target: str) -> str:
        record = self._notebooks.require(caller, request["NotebookInstanceName"])
        arn: str = record["NotebookInstanceArn"]
        refuse(
            record[_STATUS] not in allowed,
            f"Status ({record[_STATUS]}) not in ([{', '.join(allowed)}]). Unable to transition to ({target}) for "
            f"Notebook Instance ({arn})",
        )
        return arn


class LifecycleConfigs:
    def __init__(self, store: Store) -> None:
        self._configs = Resources(store, LIFECYCLE_CONFIG)
        self._notebooks = Resources(store, NOTEBOOK_INSTANCE)

    @operation("CreateNotebookInstanceLifecycleConfig")
    def create(self, request: Payload, caller: Caller) -> Payload:
        record = self._configs.create(caller, request)
        return {LIFECYCLE_CONFIG.arn_member: record[LIFECYCLE_CONFIG.arn_member]}

    @operation("UpdateNotebookInstanceLifecycleConfig")
    def update(self, request: Payload, caller: Caller) -> None:
        record = self._configs.require(caller, request[_CONFIG])
        self._configs.change(record[LIFECYCLE_CONFIG.arn_member], lambda record: record.update(request))

    @operation("DeleteNotebookInstanceLifecycleConfig")
    def delete(self, request: Payload, caller: Caller) -> None:
        name = request[_CONFIG]
        record = self._configs.require(caller, name)
        users = [n["NotebookInstanceName"] for n in self._notebooks.all() if n.get(_CONFIG) == name]
        refuse(users, f"Notebook Instance Lifecycle Config {name} is in use by {', '.join(users)}.")
        self._configs.delete(record[LIFECYCLE_CONFIG.arn_member])
