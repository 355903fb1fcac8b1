"""One SageMaker transform job over images of the data bucket: started, followed, its answers gathered.

What a later run needs to go on lies in the bucket, below ``<output>/.jobs/<job>/``: ``images.json`` says what the job
was given, ``answers/`` is where SageMaker puts what the model answers. Both go once the answers have been gathered.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import botocore.exceptions
from botocore.config import Config

from cli.aws import Stage, delete_objects
from cli.batch.labels import BAD_ANSWER, InputImage, Label, label_of_answer, label_of_error, match_answers
from cli.console import console, progress_bar
from cli.costs.table import job_price
from cli.errors import aws_errors, goes_on
from cli.parallel import map_unordered
from cli.serving.answers import MAX_BYTES
from cli.training.job_names import job_prefix, new_job
from infra import instance_types
from infra.bucket_layout import BATCH_INPUT
from model.training.data.listing import some

LOG_GROUP = "/aws/sagemaker/TransformJobs"
#: The most that a transform job sends of one image; InvokeEndpoint and the model's server take no more either.
MAX_IMAGE_MB = 6
#: Requests under way at an instance: enough to keep its workers busy. Times MAX_IMAGE_MB, AWS allows 100.
_CONCURRENCY = 8
_INVOCATION_SECONDS = 60
_CONNECTIONS = 16
_GIVEN = "/images.json"
_ENDED = ("Completed", "Failed", "Stopped")
_POLL_SECONDS = 2.0


@dataclass(frozen=True)
class BatchOptions:
    """What is asked of the model, and of which machines."""

    top_k: int = 5
    scores: bool = False
    instance_type: str | None = None  # None: the endpoint's
    instances: int = 1


class BatchFolder:
    """An input and an output prefix of the data bucket, both with a trailing slash."""

    def __init__(self, stage: Stage, bucket: str, source: str, destination: str) -> None:
        self.bucket, self.source, self.destination = bucket, source, destination
        self._stage = stage
        self.s3 = stage.client("s3", config=Config(max_pool_connections=_CONNECTIONS))
        self._sagemaker = stage.client("sagemaker")
        self._jobs = f"{destination}.jobs/"

    def list_objects(self, prefix: str) -> Iterator[dict[str, Any]]:
        """Yield every object below a prefix, as S3 lists it."""
        return self._stage.listed("s3", "list_objects_v2", "Contents", Bucket=self.bucket, Prefix=prefix)

    def read(self, key: str, most: int | None = None) -> bytes:
        """Return one object's bytes, or the first ones."""
        body: bytes = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read(most)
        return body

    def open_jobs(self) -> list[str]:
        """Return the jobs whose answers have not been gathered, oldest first."""
        keys = (item["Key"].removeprefix(self._jobs) for item in self.list_objects(self._jobs))
        return sorted(key.removesuffix(_GIVEN) for key in keys if key.endswith(_GIVEN) and key.count("/") == 1)

    def start(self, images: Mapping[str, InputImage], model: str, options: BatchOptions) -> str:
        """Say what it costs and start a job over some images; return its name."""
        job = new_job(f"{job_prefix(self._stage)}batch-")
        default_type = self._stage.settings.serving.instance_type
        instance_type = options.instance_type or default_type
        etags = {name: image.etag for name, image in images.items()}
        self._put_json(f"{self._jobs}{job}{_GIVEN}", {"model": model, "etags": etags})
        self._put_json(self._manifest_key(job), [{"prefix": f"s3://{self.bucket}/{self.source}"}, *images])
        price = job_price(instance_type, options.instances)
        console.print(f"Transform job {job} on {options.instances} × {instance_type} ({price}).")
        key = self._stage.output("storage", "DataKeyArn")
        machines = {"InstanceType": instance_type, "InstanceCount": options.instances}
        # Only where the volumes take a key, and the model's role may hand it on.
        if not any(instance_types.has_local_storage(name) for name in (instance_type, default_type)):
            machines["VolumeKmsKeyId"] = key
        manifest = {"S3DataType": "ManifestFile", "S3Uri": f"s3://{self.bucket}/{self._manifest_key(job)}"}
        # One image that cannot be read must not fail the job: its error is an answer like any other.
        parameters = f"errors=inline; top_k={options.top_k}{'; scores=true' if options.scores else ''}"
        content = {"ContentType": f"application/x-image; {parameters}", "SplitType": "None"}
        output = f"s3://{self.bucket}/{self._answers_prefix(job)}"
        with aws_errors():
            self._sagemaker.create_transform_job(
                TransformJobName=job,
                ModelName=model,
                BatchStrategy="SingleRecord",
                MaxConcurrentTransforms=_CONCURRENCY,
                MaxPayloadInMB=MAX_IMAGE_MB,
                ModelClientConfig={"InvocationsTimeoutInSeconds": _INVOCATION_SECONDS, "InvocationsMaxRetries": 3},
                TransformInput={"DataSource": {"S3DataSource": manifest}, **content},
                TransformOutput={"S3OutputPath": output, "KmsKeyId": key},
                TransformResources=machines,
                Tags=self._stage.tag_list,
            )
        return job

    def stop(self, job: str) -> None:
        """Ask a job to stop; one that has ended, or never began, is left alone."""
        if self._describe(job)["TransformJobStatus"] == "InProgress":
            console.print(f"Stopping the transform job {job}")
            self._sagemaker.stop_transform_job(TransformJobName=job)

    def finish(self, job: str) -> tuple[list[Label], list[str]]:
        """Follow a job to its end; return the records of its images, and why it is no success.

        Its files stay until the caller, who has the records now, calls `forget`.
        """
        given, prefix = json.loads(self.read(f"{self._jobs}{job}{_GIVEN}")), self._answers_prefix(job)
        model, etags = given["model"], given["etags"]
        on = self._describe(job).get("TransformResources")
        price = job_price(on["InstanceType"], on["InstanceCount"]) if on else "as it was started"
        note = f"The transform job {job} goes on ({price}). The same command follows it again; with --stop it stops it."
        with goes_on(note), progress_bar("Labelling images", len(etags)) as report:
            while (description := self._describe(job))["TransformJobStatus"] not in _ENDED:
                report(sum(1 for _ in self.list_objects(prefix)))
                time.sleep(_POLL_SECONDS)
        status, reason = description["TransformJobStatus"], description.get("FailureReason", "no reason was given")
        keys = [item["Key"].removeprefix(prefix) for item in self.list_objects(prefix)]
        answers = match_answers(keys, etags, self.source)

        def read(name: str) -> Label:
            answer = self.read(prefix + answers[name], MAX_BYTES + 1)  # one more shows that it is too long
            return label_of_answer(name, etags[name], model, answer)

        with progress_bar("Gathering answers", len(answers)) as report:
            labels = [label for _, label in map_unordered(read, answers, threads=_CONNECTIONS, report=report)]
        bad = sorted(label["image"] for label in labels if label.get("error", {}).get("code") == BAD_ANSWER)
        missing = [] if status == "Stopped" else sorted(etags.keys() - answers.keys())
        message = f"The transform job gave no answer ({status}: {reason})"
        labels += [label_of_error(name, etags[name], model, "no_answer", message) for name in missing]
        faults = []
        if status == "Failed":
            faults.append(f"The transform job {job} failed: {reason}")
        elif missing:
            faults.append(f"The transform job {job} gave no answer to {len(missing)} images: {some(missing)}")
        if bad:
            faults.append(f"{len(bad)} answers of the transform job {job} are none of a classifier: {some(bad)}")
        return labels, faults

    def forget(self, job: str) -> None:
        """Remove a job's files; it is no longer an open one."""
        keys = [item["Key"] for item in self.list_objects(f"{self._jobs}{job}/")]
        # The list of what it was given goes last: as long as it is there the job is an open one.
        keys.sort(key=lambda key: key == f"{self._jobs}{job}{_GIVEN}")
        delete_objects(self.s3, self.bucket, [{"Key": key} for key in [self._manifest_key(job), *keys]])

    def _describe(self, job: str) -> dict[str, Any]:
        try:
            description: dict[str, Any] = self._sagemaker.describe_transform_job(TransformJobName=job)
        except botocore.exceptions.ClientError as error:
            if error.response["Error"]["Code"] == "ValidationException":  # what SageMaker says of an unknown name
                return {"TransformJobStatus": "Stopped"}  # it never began
            raise
        return description

    def _put_json(self, key: str, document: object) -> None:
        body = json.dumps(document, ensure_ascii=False).encode()
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType="application/json")

    def _answers_prefix(self, job: str) -> str:
        return f"{self._jobs}{job}/answers/"

    @staticmethod
    def _manifest_key(job: str) -> str:
        # SageMaker reads it under the model's role, so it lies where that may read; hidden files are no images.
        return f"{BATCH_INPUT}/.manifests/{job}.json"
