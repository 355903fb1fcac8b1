"""Processing jobs on the local AWS, through unmodified clients."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from local_aws_harness import refused
from sagemaker_local import BUCKET, ENDED, IMAGE, LocalSageMaker
from waiting import wait_until

HOME = "/opt/ml/processing"
ENTRY = {"ImageUri": IMAGE, "ContainerEntrypoint": ["python3", f"{HOME}/code/program.py"]}
#: What a job finds and leaves, on every instance.
LOOK_AROUND = b"""
import json, os, pathlib, sys
home = pathlib.Path("/opt/ml")
host = json.loads((home / "config/resourceconfig.json").read_text())["current_host"]
job = json.loads((home / "config/processingjobconfig.json").read_text())["ProcessingJobName"]
rows = sorted(path.name for path in (home / "processing/rows").iterdir())
(home / "processing/output/deep").mkdir()
(home / "processing/output/deep" / host).write_text(json.dumps([sys.argv[1:], rows, os.environ["OWN"], job]))
(home / "output/message").write_text("seen; ")
print("looked around as", "AWS_SECRET_ACCESS_KEY" in os.environ)
"""


class Job:
    """A processing job with a program and rows of its own."""

    def __init__(self, aws: LocalSageMaker, role: str, program: bytes, instances: int = 1, **members: Any) -> None:
        self.aws, self.name = aws, f"Process-{uuid.uuid4().hex[:8]}"
        for key, body in {"code/program.py": program, "rows/a": b"", "rows/b": b"", "rows/c": b""}.items():
            aws.s3.put_object(Bucket=BUCKET, Key=f"{self.name}/{key}", Body=body)
        ends: dict[str, Any] = {
            name: {"S3Uri": f"s3://{BUCKET}/{self.name}/{name}", "LocalPath": f"{HOME}/{name}"}
            for name in ("code", "rows", "output")
        }
        ends["rows"]["S3DataDistributionType"] = "ShardedByS3Key"
        output = {"OutputName": "o", "S3Output": {**ends.pop("output"), "S3UploadMode": "EndOfJob"}}
        inputs = [{"InputName": name, "S3Input": {**end, "S3DataType": "S3Prefix"}} for name, end in ends.items()]
        machines = {"InstanceType": "ml.m5.large", "InstanceCount": instances, "VolumeSizeInGB": 1}
        request = {
            "ProcessingInputs": inputs,
            "ProcessingOutputConfig": {"Outputs": [output]},
            "ProcessingResources": {"ClusterConfig": machines},
            "AppSpecification": ENTRY,
        }
        aws.sagemaker.create_processing_job(ProcessingJobName=self.name, RoleArn=role, **(request | members))

    def ended(self) -> Any:
        describe, name = self.aws.sagemaker.describe_processing_job, {"ProcessingJobName": self.name}
        return wait_until(lambda: (found := describe(**name))["ProcessingJobStatus"] in ENDED and found)

    def printed(self) -> list[str]:
        return self.aws.printed(self.name, "/aws/sagemaker/ProcessingJobs")


def test_every_instance_runs_the_program_on_its_share_and_leaves_its_outputs(aws: LocalSageMaker, role: str) -> None:
    specification = {**ENTRY, "ContainerArguments": ["--split", "0.2 a"]}
    job = Job(aws, role, LOOK_AROUND, 2, AppSpecification=specification, Environment={"OWN": "1"})
    described = job.ended()
    assert described["ProcessingJobStatus"] == "Completed", described
    assert (described["ExitMessage"], job.printed()) == ("seen; seen; ", ["looked around as True"] * 2)
    assert described["StoppingCondition"] == {"MaxRuntimeInSeconds": 86_400}
    assert described["CreationTime"] <= described["ProcessingStartTime"] <= described["ProcessingEndTime"]
    for host, rows in (("algo-1", ["a", "c"]), ("algo-2", ["b"])):
        found = aws.s3.get_object(Bucket=BUCKET, Key=f"{job.name}/output/deep/{host}")["Body"].read()
        assert json.loads(found) == [["--split", "0.2 a"], rows, "1", job.name]
    listed = aws.sagemaker.list_processing_jobs(NameContains=job.name)["ProcessingJobSummaries"]
    assert [item["ProcessingJobArn"] for item in listed] == [described["ProcessingJobArn"]]


FAILED = "AlgorithmError: See job logs for more information, exit code: 3"


@pytest.mark.parametrize(("message", "code", "reason"), [("no rows", 3, FAILED), ("\\xff", 0, "message is not UTF-8.")])
def test_a_job_fails_as_its_program_does(aws: LocalSageMaker, role: str, message: str, code: int, reason: str) -> None:
    program = f"import pathlib, sys; pathlib.Path('/opt/ml/output/message').write_bytes(b'{message}'); sys.exit({code})"
    described = Job(aws, role, program.encode()).ended()
    assert described["ProcessingJobStatus"] == "Failed" and described["FailureReason"].endswith(reason)
    assert described.get("ExitMessage") == ("no rows" if code else None)


@pytest.mark.parametrize("limit", [1, 600])
def test_a_job_is_stopped_on_request_and_by_its_limit(aws: LocalSageMaker, role: str, limit: int) -> None:
    program = b"import os, time; print([n for n in os.environ if n[:4] == 'AWS_'], flush=True); time.sleep(600)"
    isolated = {"NetworkConfig": {"EnableNetworkIsolation": True}}
    job = Job(aws, role, program, StoppingCondition={"MaxRuntimeInSeconds": limit}, **isolated)
    if limit > 1:
        wait_until(lambda: job.printed() == ["[]"])
        aws.sagemaker.stop_processing_job(ProcessingJobName=job.name)
    assert job.ended()["ProcessingJobStatus"] == "Stopped"


def test_what_a_program_leaves_cannot_hold_or_lead_the_server(aws: LocalSageMaker, role: str) -> None:
    program = b"""import os, pathlib
os.truncate(os.open("/opt/ml/output/message", os.O_CREAT | os.O_WRONLY), 2**40)
os.symlink("/etc/passwd", "/opt/ml/processing/output/link")
os.symlink("own", "/opt/ml/processing/output/other")
pathlib.Path("/opt/ml/processing/output/own").write_text("1")"""
    job = Job(aws, role, program)
    described = job.ended()
    assert (described["ProcessingJobStatus"], described["ExitMessage"]) == ("Completed", "\0" * 1024)
    made = aws.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{job.name}/output/")["Contents"]
    assert [item["Key"].rpartition("/")[2] for item in made] == ["other", "own"]
    unnamed = Job(aws, role, b"open(b'/opt/ml/processing/output/\\xff', 'w')").ended()
    assert "a name is not UTF-8" in unnamed["FailureReason"]


def test_a_job_without_an_entry_point_is_refused(aws: LocalSageMaker, role: str) -> None:
    refused(Job, "runs no images", aws, role, b"", AppSpecification={"ImageUri": IMAGE})
