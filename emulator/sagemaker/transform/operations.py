"""Transform jobs: their operations, and their lives across restarts of the server."""

from __future__ import annotations

import time

from botocore.model import ServiceModel

from emulator.platform.awsapi import Caller, Payload, ServiceError, operation
from emulator.platform.host import Host
from emulator.platform.store import Record, Store
from emulator.sagemaker.artifacts import ArtifactError, parse_s3_url
from emulator.sagemaker.resources import MODEL, TRANSFORM_JOB, Resources, project
from emulator.sagemaker.runs import Runs
from emulator.sagemaker.transform.job import DEFAULT_PAYLOAD_MB, TransformRun

#: AWS's limit for MaxPayloadInMB, and for its product with MaxConcurrentTransforms.
_MAX_PAYLOAD_MB = 100


class TransformJobs:
    """Create, Describe, List and StopTransformJob."""

    def __init__(self, host: Host, store: Store, model: ServiceModel) -> None:
        self._host = host
        self._model = model
        self._jobs = Resources(store, TRANSFORM_JOB)
        self._models = Resources(store, MODEL)
        self._runs = Runs()

    @operation("CreateTransformJob")
    def create(self, request: Payload, caller: Caller) -> Payload:
        _check(request)
        model = self._models.require(caller, request["ModelName"])
        # The job keeps the model as it is now: whoever deletes it does not disturb the job.
        record = self._jobs.create(caller, request, TransformJobStatus="InProgress", Model=model)
        self._begin(record)
        return {"TransformJobArn": record["TransformJobArn"]}

    @operation("DescribeTransformJob")
    def describe(self, request: Payload, caller: Caller) -> Payload:
        record = self._jobs.require(caller, request["TransformJobName"])
        return project(record, self._model.operation_model("DescribeTransformJob").output_shape)

    @operation("ListTransformJobs")
    def list_all(self, request: Payload, caller: Caller) -> Payload:
        return self._jobs.list_page(caller, request, self._model, "ListTransformJobs")

    @operation("StopTransformJob")
    def stop_job(self, request: Payload, caller: Caller) -> None:
        arn = self._jobs.require(caller, request["TransformJobName"])["TransformJobArn"]

        def change(record: Record) -> None:
            status = record["TransformJobStatus"]
            if status not in ("InProgress", "Stopping"):
                raise ServiceError(
                    "ValidationException", f"The request was rejected because the transform job is in status {status}."
                )
            record["TransformJobStatus"] = "Stopping"

        self._jobs.change(arn, change)
        self._runs.request_stop(arn)

    def start(self) -> None:
        """Begin jobs anew that an earlier life of the server left unfinished."""
        for record in self._jobs.all():
            if record["TransformJobStatus"] == "Stopping":
                self._jobs.change(
                    record["TransformJobArn"],
                    lambda r: r.update(TransformJobStatus="Stopped", TransformEndTime=time.time()),
                )
            elif record["TransformJobStatus"] == "InProgress":
                self._begin(record)

    def stop(self) -> None:
        """Interrupt every job; `start` begins them anew."""
        self._runs.interrupt_all()

    def _begin(self, record: Record) -> None:
        arn = record["TransformJobArn"]
        run = TransformRun(self._host, record, lambda change: self._jobs.insist(lambda: self._jobs.change(arn, change)))
        self._runs.start(arn, run)
        if self._jobs.require_arn(arn)["TransformJobStatus"] == "Stopping":
            run.request_stop()  # asked for when there was no run yet that could be told


def _check(request: Payload) -> None:
    """Refuse what botocore's model allows and SageMaker, or this local one, does not.

    Raises
    ------
    ServiceError
    """
    payload = request.get("MaxPayloadInMB", DEFAULT_PAYLOAD_MB)
    if payload > _MAX_PAYLOAD_MB or payload * request.get("MaxConcurrentTransforms", 1) > _MAX_PAYLOAD_MB:
        raise ServiceError(
            "ValidationException",
            f"MaxPayloadInMB, and MaxPayloadInMB times MaxConcurrentTransforms, must not exceed {_MAX_PAYLOAD_MB}.",
        )
    source, processing = request["TransformInput"], request.get("DataProcessing", {})
    data_type = source["DataSource"]["S3DataSource"]["S3DataType"]
    for unsupported, what in (
        (data_type not in ("S3Prefix", "ManifestFile"), f"{data_type} sources"),
        (source.get("SplitType", "None") != "None", "splitting: one object is one record (SplitType None)"),
        (source.get("CompressionType", "None") != "None", "compressed inputs"),
        ({"InputFilter", "OutputFilter"} & processing.keys(), "filters in DataProcessing"),
        (processing.get("JoinSource", "None") != "None", "joining of inputs and outputs"),
        ("DataCaptureConfig" in request, "data capture of transform jobs"),
    ):
        if unsupported:
            raise ServiceError("ValidationException", f"The local AWS has no {what}.")
    for url in (source["DataSource"]["S3DataSource"]["S3Uri"], request["TransformOutput"]["S3OutputPath"]):
        try:
            parse_s3_url(url)
        except ArtifactError as error:
            raise ServiceError("ValidationException", str(error)) from None
