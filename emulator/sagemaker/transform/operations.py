"""Transform jobs: their operations, and their lives across restarts of the server."""

from __future__ import annotations

from emulator.platform.awsapi import Caller, Payload, operation
from emulator.platform.errors import refuse
from emulator.platform.host import Host
from emulator.platform.store import Record, Store
from emulator.sagemaker.artifacts import check_location
from emulator.sagemaker.resources import MODEL, TRANSFORM_JOB, Resources
from emulator.sagemaker.roles import Role
from emulator.sagemaker.runs import Jobs, Run
from emulator.sagemaker.transform.job import TransformRun
from emulator.sagemaker.transform.records import DEFAULT_PAYLOAD_MB, Records

#: AWS's limit for MaxPayloadInMB, and for its product with MaxConcurrentTransforms.
_MAX_PAYLOAD_MB = 100


class TransformJobs(Jobs):
    def __init__(self, host: Host, store: Store) -> None:
        super().__init__(store, TRANSFORM_JOB, "transform")
        self._host = host
        self._models = Resources(store, MODEL)

    @operation("CreateTransformJob")
    def create(self, request: Payload, caller: Caller) -> Payload:
        _check(request)
        model = self._models.require(caller, request["ModelName"])
        Role(self._host, model["ExecutionRoleArn"], caller.region)  # refused at once without its trust
        # The job keeps the model as it is now: its deletion does not disturb the job.
        record = self._jobs.create(caller, request, TransformJobStatus="InProgress", Model=model)
        self._begin(record)
        return {"TransformJobArn": record["TransformJobArn"]}

    def _new_run(self, record: Record) -> Run:
        return TransformRun(self._jobs, record, self._host)


def _check(request: Payload) -> None:
    """Refuse what botocore's model allows and SageMaker does not."""
    payload = request.get("MaxPayloadInMB", DEFAULT_PAYLOAD_MB)
    refuse(
        payload > _MAX_PAYLOAD_MB or payload * request.get("MaxConcurrentTransforms", 1) > _MAX_PAYLOAD_MB,
        f"MaxPayloadInMB, and MaxPayloadInMB times MaxConcurrentTransforms, must not exceed {_MAX_PAYLOAD_MB}.",
    )
    Records(request)
    check_location(request["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"])
    check_location(request["TransformOutput"]["S3OutputPath"])
