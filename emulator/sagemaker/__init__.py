"""SageMaker: models served by real processes, training, tuning, transform and processing jobs, too."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from emulator.platform.awsapi import Caller, Handler, Payload, Service
from emulator.platform.host import Host
from emulator.platform.store import Store
from emulator.sagemaker.endpoints.operations import Endpoints
from emulator.sagemaker.endpoints.runtime import Runtime
from emulator.sagemaker.instance_quotas import LIMITED, InstanceQuotas
from emulator.sagemaker.model_packages import ModelPackages
from emulator.sagemaker.models import Models
from emulator.sagemaker.notebooks import LifecycleConfigs, NotebookInstances
from emulator.sagemaker.processing import ProcessingJobs
from emulator.sagemaker.resources import (
    ENDPOINT_CONFIG,
    KINDS,
    MODEL,
    MODEL_PACKAGE,
    MODEL_PACKAGE_GROUP,
    Resources,
    Tags,
)
from emulator.sagemaker.training.operations import TrainingJobs
from emulator.sagemaker.transform.operations import TransformJobs
from emulator.sagemaker.tuning.operations import TuningJobs

__all__ = ["SageMaker"]


class SageMaker(Service):
    """The control plane, and `runtime`, the data plane, which answers InvokeEndpoint."""

    name = "sagemaker"

    def __init__(self, host: Host) -> None:
        super().__init__(host.account)
        self._store = Store(host.state_dir)
        self.endpoints = Endpoints(host, self._store)
        self.training_jobs = TrainingJobs(host, self._store)
        self.tuning_jobs = TuningJobs(self._store, self.training_jobs)
        others = (TransformJobs(host, self._store), ProcessingJobs(host, self._store))
        self._lives = (self.endpoints, self.training_jobs, self.tuning_jobs, *others)
        # In the order in which they are interrupted.
        self._jobs = (self.tuning_jobs, self.training_jobs, *others)
        for kind in KINDS:
            resources = Resources(self._store, kind)
            self._handlers[f"Describe{kind.member}"] = resources.describe
            self._handlers[f"List{kind.member}s"] = resources.list_page
        for kind in (MODEL, ENDPOINT_CONFIG, MODEL_PACKAGE):  # no use of them keeps one
            self._handlers[f"Delete{kind.member}"] = Resources(self._store, kind).delete_named
        for jobs in self._jobs:
            self._handlers[f"Stop{jobs.kind.member}"] = jobs.stop_job
        self.register(*self._lives, Models(host, self._store), ModelPackages(self._store))
        self.register(NotebookInstances(self._store), LifecycleConfigs(self._store), Tags(self._store))
        self._quotas = InstanceQuotas(self._store, host.quotas)
        self._counting = threading.Lock()
        for operation in LIMITED:
            self.guard(operation, self._within_quotas)
        self.runtime = Runtime(host.account, self.endpoints.fleet, self.endpoints.backlog.accept)

    def _within_quotas(self, operation: str, handler: Handler, request: Payload, caller: Caller) -> Payload | None:
        with self._counting:  # two requests at once must not both have the last instance
            self._quotas.check(operation, request, caller)
            return handler(request, caller)

    def tagged(self, region: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
        for kind in KINDS:
            for record in Resources(self._store, kind).all(kind.arn(Caller(self._account, region), "")):
                yield record[kind.arn_member], record.get("Tags", [])

    def start(self) -> None:
        """Bring back endpoints and jobs; the other services must answer by now."""
        for controller in self._lives:
            controller.start()

    def interrupt(self) -> None:
        """Interrupt the jobs, while the other services still answer: without them a job would fail."""
        for jobs in (*self._jobs, self.endpoints):
            jobs.interrupt()

    def stop(self) -> None:
        self._store.give_up()
        for controller in reversed(self._lives):
            controller.stop()
        self._store.close()

    def resource_arns(self, operation: str, payload: Payload, caller: Caller) -> list[str]:
        if "ResourceArn" in payload:
            return [payload["ResourceArn"]]
        if operation == "CreateModelPackage" and (group := payload.get(MODEL_PACKAGE_GROUP.name_member)):
            arn = MODEL_PACKAGE_GROUP.arn(caller, group)  # the number of the version is not known yet
            return [arn, MODEL_PACKAGE.arn(caller, f"{arn.rpartition('/')[2]}/*")]
        # The longest name first: CreateEndpointConfig is not about an endpoint.
        for kind in sorted(KINDS, key=lambda kind: len(kind.member), reverse=True):
            named = payload.get(kind.name_member, payload.get(kind.arn_member))
            if kind.member in operation and named:
                arns = [kind.arn(caller, named)]
                if operation in ("CreateEndpoint", "UpdateEndpoint"):
                    arns.append(ENDPOINT_CONFIG.arn(caller, payload[ENDPOINT_CONFIG.name_member]))
                return arns
        return ["*"]
