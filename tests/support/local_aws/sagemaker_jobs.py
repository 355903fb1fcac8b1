"""Transform jobs and tuning jobs on a local AWS that do what a test says."""

from __future__ import annotations

import uuid
from typing import Any

from emulator_fixtures import tar_gz, tuning_job
from sagemaker_local import BUCKET, ENDED, LocalSageMaker
from waiting import wait_until

#: AWS does not say that it keeps the checkpoints of the training jobs apart, so a program has to.
CHECKPOINTS = f"s3://{BUCKET}/checkpoints/tuning/"

#: Loss of epoch n: (lr - 0.3)² + 1/n. Fails, is silent, takes its time, or (with a learning rate above `linger`) never
#: ends by itself where it is told to.
PROGRAM = """
import argparse, os, pathlib, signal, sys, time
parser = argparse.ArgumentParser()
for name, default in (("lr", 0.0), ("epochs", 2), ("pause", 0.0), ("linger", 9.0), ("fail", 0), ("silent", 0)):
    parser.add_argument(f"--{name}", type=type(default), default=default)
arguments = parser.parse_args()
def save(*_):
    pathlib.Path(os.environ["SM_MODEL_DIR"], "partial").write_text("so far")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
if arguments.fail:
    raise ValueError("this cannot be learned")
for epoch in range(1, arguments.epochs + 1):
    if not arguments.silent:
        print(f"epoch={epoch} loss={(arguments.lr - 0.3) ** 2 + 1 / epoch:.6f}")
    time.sleep(arguments.pause)
while arguments.lr > arguments.linger:
    time.sleep(0.05)
"""


class TransformJob:
    """A transform job over objects of its own; one with filters joins its lines, which are compressed when CSV."""

    def __init__(
        self, aws: LocalSageMaker, model: str, objects: dict[str, bytes], kind: str = "", *filters: str, **members: Any
    ) -> None:
        self.aws = aws
        self.name = f"Batch-{uuid.uuid4().hex[:8]}"
        for name, body in objects.items():
            aws.s3.put_object(Bucket=BUCKET, Key=f"in/{self.name}/{name}", Body=body)
        source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/in/{self.name}/"}
        request: dict[str, Any] = {
            "ModelName": model,
            "TransformInput": {"DataSource": {"S3DataSource": source}, "ContentType": "image/jpeg; errors=inline"},
            "TransformOutput": {"S3OutputPath": f"s3://{BUCKET}/out/{self.name}"},
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
            "ModelClientConfig": {"InvocationsMaxRetries": 1},
        }
        if filters:
            compression = "Gzip" if kind == "text/csv" else "None"
            request["TransformInput"] |= {"ContentType": kind, "SplitType": "Line", "CompressionType": compression}
            request["TransformOutput"] |= {"Accept": kind, "AssembleWith": "Line"}
            members["DataProcessing"] = dict(zip(("InputFilter", "OutputFilter"), filters, strict=True))
            members["DataProcessing"]["JoinSource"] = "Input"
        aws.sagemaker.create_transform_job(TransformJobName=self.name, **{**request, **members})

    def ended(self) -> dict[str, Any]:
        describe, name = self.aws.sagemaker.describe_transform_job, {"TransformJobName": self.name}
        return wait_until(lambda: (found := describe(**name))["TransformJobStatus"] in ENDED and found)

    def outputs(self) -> dict[str, bytes]:
        prefix = f"out/{self.name}/"
        found = self.aws.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        keys = [item["Key"] for item in found]
        return {k.removeprefix(prefix): self.aws.s3.get_object(Bucket=BUCKET, Key=k)["Body"].read() for k in keys}

    def printed(self) -> list[str]:
        return self.aws.printed(self.name, "/aws/sagemaker/TransformJobs")


class Tuning:
    """A tuning job over the program above."""

    def __init__(
        self,
        aws: LocalSageMaker,
        role: str,
        *,
        strategy: str = "Random",
        jobs: int = 3,
        parallel: int = 2,
        lr: tuple[str, ...] = (),
        static: dict[str, str] | None = None,
        config: dict[str, Any] | None = None,
        **members: Any,
    ) -> None:
        self.aws = aws
        self.name = f"Tuning-{uuid.uuid4().hex[:8]}"
        ranges: dict[str, Any] = {"ContinuousParameterRanges": [{"Name": "lr", "MinValue": "0", "MaxValue": "1"}]}
        if lr:
            ranges = {"CategoricalParameterRanges": [{"Name": "lr", "Values": list(lr)}]}
        aws.s3.put_object(Bucket=BUCKET, Key="code/tuned.tar.gz", Body=tar_gz({"train.py": PROGRAM.encode()}))
        toolkit = {"sagemaker_program": "train.py", "sagemaker_submit_directory": f"s3://{BUCKET}/code/tuned.tar.gz"}
        searching = {
            "Strategy": strategy,
            "ResourceLimits": {"MaxNumberOfTrainingJobs": jobs, "MaxParallelTrainingJobs": parallel},
            "ParameterRanges": ranges,
            "RandomSeed": 7,
            **(config or {}),
        }
        request = tuning_job(searching, HyperParameterTuningJobName=self.name, **members)
        request["TrainingJobDefinition"] |= {
            "RoleArn": role,
            "StaticHyperParameters": {**toolkit, **(static or {})},
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/training"},
            "CheckpointConfig": {"S3Uri": CHECKPOINTS},
        }
        aws.sagemaker.create_hyper_parameter_tuning_job(**request)

    def stop(self) -> None:
        self.aws.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=self.name)

    def ended(self) -> dict[str, Any]:
        describe = self.aws.sagemaker.describe_hyper_parameter_tuning_job
        name = {"HyperParameterTuningJobName": self.name}
        return wait_until(lambda: (found := describe(**name))["HyperParameterTuningJobStatus"] in ENDED and found)

    def jobs(self, **options: Any) -> list[dict[str, Any]]:
        """The training jobs, in the order of their names unless told otherwise."""
        pages = self.aws.sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
        return list(pages.paginate(HyperParameterTuningJobName=self.name, **options).search("TrainingJobSummaries[]"))
