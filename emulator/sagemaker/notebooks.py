"""Notebook instances and their lifecycle configurations: records with AWS's states; no notebook runs."""

from __future__ import annotations

from emulator.platform.awsapi import Caller, Payload, operation
from emulator.platform.errors import refuse
from emulator.platform.store import Record, Store
from emulator.sagemaker.resources import LIFECYCLE_CONFIG, NOTEBOOK_INSTANCE, Resources

_STATUS = "NotebookInstanceStatus"
#: Members of UpdateNotebookInstance that remove a member of the record.
_REMOVALS = {
    "DisassociateLifecycleConfig": "NotebookInstanceLifecycleConfigName",
    "DisassociateAcceleratorTypes": "AcceleratorTypes",
    "DisassociateDefaultCodeRepository": "DefaultCodeRepository",
    "DisassociateAdditionalCodeRepositories": "AdditionalCodeRepositories",
}
#: Members that requests and answers call differently.
_RENAMED = {"LifecycleConfigName": "NotebookInstanceLifecycleConfigName", "SecurityGroupIds": "SecurityGroups"}
_DEFAULTS = {"DirectInternetAccess": "Enabled", "RootAccess": "Enabled", "VolumeSizeInGB": 5}


class NotebookInstances:
    """Create, Start, Stop, Update and DeleteNotebookInstance."""

    def __init__(self, store: Store) -> None:
        self._notebooks = Resources(store, NOTEBOOK_INSTANCE)
        self._lifecycle_configs = Resources(store, LIFECYCLE_CONFIG)

    @operation("CreateNotebookInstance")
    def create(self, request: Payload, caller: Caller) -> Payload:
        self._check_lifecycle_config(request, caller)
        url = f"{request['NotebookInstanceName'].lower()}.notebook.{caller.region}.sagemaker.aws"
        record = self._notebooks.create(
            caller, {**_DEFAULTS, **_renamed(request)}, **{_STATUS: "InService", "Url": url}
        )
        return {"NotebookInstanceArn": record["NotebookInstanceArn"]}

    @operation("StartNotebookInstance")
    def start(self, request: Payload, caller: Caller) -> None:
        self._move(request, caller, ("Stopped", "Failed"), "InService")

    @operation("StopNotebookInstance")
    def stop(self, request: Payload, caller: Caller) -> None:
        self._move(request, caller, ("InService",), "Stopped")

    @operation("UpdateNotebookInstance")
    def update(self, request: Payload, caller: Caller) -> None:
        self._check_lifecycle_config(request, caller)
        arn = self._require_status(request, caller, ("Stopped", "Failed"), "Updating")

        def change(record: Record) -> None:
            record.update({k: v for k, v in _renamed(request).items() if k not in _REMOVALS})
            for flag, member in _REMOVALS.items():
                if request.get(flag):
                    record.pop(member, None)

        self._notebooks.change(arn, change)

    @operation("DeleteNotebookInstance")
    def delete(self, request: Payload, caller: Caller) -> None:
        self._notebooks.delete(self._require_status(request, caller, ("Stopped", "Failed"), "Deleting"))

    def _move(self, request: Payload, caller: Caller, allowed: tuple[str, ...], status: str) -> None:
        arn = self._require_status(request, caller, allowed, status)
        self._notebooks.change(arn, lambda record: record.update({_STATUS: status}))

    def _require_status(self, request: Payload, caller: Caller, allowed: tuple[str, ...], target: str) -> str:
        record = self._notebooks.require(caller, request["NotebookInstanceName"])
        arn = record["NotebookInstanceArn"]
        refuse(
            record[_STATUS] not in allowed,
            f"Status ({record[_STATUS]}) not in ([{', '.join(allowed)}]). Unable to transition to ({target}) for "
            f"Notebook Instance ({arn})",
        )
        return arn

    def _check_lifecycle_config(self, request: Payload, caller: Caller) -> None:
        if "LifecycleConfigName" in request:
            self._lifecycle_configs.require(caller, request["LifecycleConfigName"])


def _renamed(request: Payload) -> Payload:
    return {_RENAMED.get(name, name): value for name, value in request.items()}


class LifecycleConfigs:
    """Create, Update and DeleteNotebookInstanceLifecycleConfig."""

    def __init__(self, store: Store) -> None:
        self._configs = Resources(store, LIFECYCLE_CONFIG)
        self._notebooks = Resources(store, NOTEBOOK_INSTANCE)

    @operation("CreateNotebookInstanceLifecycleConfig")
    def create(self, request: Payload, caller: Caller) -> Payload:
        record = self._configs.create(caller, request)
        return {LIFECYCLE_CONFIG.arn_member: record[LIFECYCLE_CONFIG.arn_member]}

    @operation("UpdateNotebookInstanceLifecycleConfig")
    def update(self, request: Payload, caller: Caller) -> None:
        arn = self._require(request, caller)[LIFECYCLE_CONFIG.arn_member]
        self._configs.change(arn, lambda record: record.update(request))

    @operation("DeleteNotebookInstanceLifecycleConfig")
    def delete(self, request: Payload, caller: Caller) -> None:
        record = self._require(request, caller)
        name = record[LIFECYCLE_CONFIG.name_member]
        users = [
            n["NotebookInstanceName"] for n in self._notebooks.all() if n.get(LIFECYCLE_CONFIG.name_member) == name
        ]
        refuse(users, f"Notebook Instance Lifecycle Config {name} is in use by {', '.join(users)}.")
        self._configs.delete(record[LIFECYCLE_CONFIG.arn_member])

    def _require(self, request: Payload, caller: Caller) -> Record:
        return self._configs.require(caller, request[LIFECYCLE_CONFIG.name_member])
