"""Training jobs on the local AWS, through unmodified clients."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from sagemaker_local import BUCKET, IMAGE, Local, alive, eventually, local_aws, tar_gz, untar

from emulator.platform.host import Host
from emulator.platform.processes import ProcessRegistry
from emulator.sagemaker import SageMaker

ACTIONS = (
    "s3:GetObject",
    "s3:PutObject",
    "s3:ListBucket",
    "logs:CreateLogGroup",
    "logs:CreateLogStream",
    "logs:PutLogEvents",
)
LOG_GROUP = "/aws/sagemaker/TrainingJobs"

#: Writes down everything that it can see.
LOOK_AROUND = """
import json, os, pathlib, sys
inputs = pathlib.Path(os.environ["SM_CHANNEL_TRAINING"])
facts = {
    "argv": sys.argv,
    "environment": dict(os.environ),
    "inputs": {p.relative_to(inputs).as_posix(): p.read_text() for p in sorted(inputs.rglob("*")) if p.is_file()},
    "configuration": sorted(os.listdir(os.environ["SM_INPUT_CONFIG_DIR"])),
}
host = os.environ["SM_CURRENT_HOST"]
pathlib.Path(os.environ["SM_MODEL_DIR"], f"{host}.json").write_text(json.dumps(facts))
pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"], "report.txt").write_text("all well")
"""
#: Saves something, runs until it is stopped, and saves more if it hears of that.
UNTIL_STOPPED = """
import os, pathlib, signal, sys, time
model = pathlib.Path(os.environ["SM_MODEL_DIR"])
def save(*_):
    (model / "more").write_text("at the end")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
(model / "partial").write_text("so far")
print("pid", os.getpid())
while True:
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local_aws(tmp_path_factory.mktemp("aws")) as local:
        for number in range(5):
            key = f"data/part-{number}/é {number}.txt"
            local.s3.put_object(Bucket=BUCKET, Key=key, Body=str(number).encode())
        yield local


@pytest.fixture(scope="module")
def role(local: Local) -> str:
    return local.role(*ACTIONS)


class Job:
    """A training job that runs a program."""

    def __init__(
        self,
        local: Local,
        role: str,
        program: str,
        *,
        files: dict[str, bytes] | None = None,
        hyperparameters: dict[str, str] | None = None,
        instances: int = 1,
        metrics: dict[str, str] | None = None,
        max_runtime: int = 120,
        distribution: str = "FullyReplicated",
        output: dict[str, str] | None = None,
        algorithm: dict[str, Any] | None = None,
        prefix: str = "data",
        **members: Any,
    ) -> None:
        self.local = local
        self.name = f"Job-{uuid.uuid4().hex[:8]}"
        source = f"code/{self.name}/sourcedir.tar.gz"
        local.s3.put_object(Bucket=BUCKET, Key=source, Body=tar_gz({"train.py": program.encode(), **(files or {})}))
        local.sagemaker.create_training_job(
            TrainingJobName=self.name,
            RoleArn=role,
            AlgorithmSpecification={
                "TrainingImage": IMAGE,
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": k, "Regex": v} for k, v in (metrics or {}).items()],
                **(algorithm or {}),
            },
            HyperParameters={
                "sagemaker_program": "train.py",
                "sagemaker_submit_directory": f"s3://{BUCKET}/{source}",
                **(hyperparameters or {}),
            },
            InputDataConfig=[
                {
                    "ChannelName": "training",
                    "DataSource": {
                        "S3DataSource": {
                            "S3DataType": "S3Prefix",
                            "S3Uri": f"s3://{BUCKET}/{prefix}",
                            "S3DataDistributionType": distribution,
                        }
                    },
                }
            ],
            OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/training", **(output or {})},
            ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": instances, "VolumeSizeInGB": 10},
            StoppingCondition={"MaxRuntimeInSeconds": max_runtime},
            **members,
        )

    def describe(self) -> dict[str, Any]:
        return self.local.sagemaker.describe_training_job(TrainingJobName=self.name)

    def ended(self) -> dict[str, Any]:
        """Wait for the end; the description."""
        eventually(lambda: self.describe()["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"))
        return self.describe()

    def output(self, name: str = "model.tar.gz") -> dict[str, bytes]:
        """The files of an output archive."""
        key = f"training/{self.name}/output/{name}"
        return untar(self.local.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def log(self) -> list[str]:
        """What the instances have printed so far."""
        try:
            events = self.local.logs.filter_log_events(logGroupName=LOG_GROUP)["events"]
        except ClientError:
            return []
        return [event["message"] for event in events if event["logStreamName"].startswith(f"{self.name}/")]


def test_a_job_runs_its_program_and_uploads_what_it_leaves(local: Local, role: str) -> None:
    job = Job(local, role, LOOK_AROUND, hyperparameters={"lr": "0.1", "name": '"Größe 5"'}, Environment={"OWN": "1"})
    local.sagemaker.get_waiter("training_job_completed_or_stopped").wait(
        TrainingJobName=job.name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 600}
    )
    described = job.describe()
    assert described["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{BUCKET}/training/{job.name}/output/model.tar.gz"
    assert [t["Status"] for t in described["SecondaryStatusTransitions"]] == [
        "Starting", "Downloading", "Training", "Uploading", "Completed",
    ]  # fmt: skip
    downloading = described["SecondaryStatusTransitions"][1]["StatusMessage"]
    assert downloading == "Downloading input data: channel training, 5 of 5 objects"
    assert described["TrainingStartTime"] <= described["TrainingEndTime"]
    assert described["BillableTimeInSeconds"] >= 1
    facts = json.loads(job.output()["algo-1.json"])
    assert facts["argv"] == ["train.py", "--lr", "0.1", "--name", "Größe", "5"], "a shell has read the arguments"
    assert facts["inputs"] == {f"part-{n}/é {n}.txt": str(n) for n in range(5)}
    assert facts["configuration"] == ["hyperparameters.json", "inputdataconfig.json", "resourceconfig.json"]
    assert facts["environment"]["OWN"] == "1"
    assert facts["environment"]["AWS_SESSION_TOKEN"]
    assert facts["environment"]["AWS_ACCESS_KEY_ID"] != local.environment["AWS_ACCESS_KEY_ID"]
    assert job.output("output.tar.gz") == {"report.txt": b"all well"}
    assert not list((local.state_dir / "sagemaker" / "training").rglob("*.json")), "the folders are cleared away"


def test_every_instance_is_a_process_of_its_own(local: Local, role: str) -> None:
    job = Job(local, role, LOOK_AROUND, instances=3, distribution="ShardedByS3Key")
    assert job.ended()["TrainingJobStatus"] == "Completed"
    facts = {name: json.loads(content) for name, content in job.output().items()}
    assert sorted(facts) == ["algo-1.json", "algo-2.json", "algo-3.json"]
    environments = [facts[name]["environment"] for name in sorted(facts)]
    assert [e["SM_CURRENT_HOST"] for e in environments] == ["algo-1", "algo-2", "algo-3"]
    assert {e["SM_HOSTS"] for e in environments} == {'["algo-1","algo-2","algo-3"]'}
    assert len({(e["SM_MASTER_ADDR"], e["SM_MASTER_PORT"]) for e in environments}) == 1
    shares = [set(facts[name]["inputs"]) for name in sorted(facts)]
    assert sorted(len(share) for share in shares) == [1, 2, 2]
    assert len(set.union(*shares)) == 5
    streams = local.logs.describe_log_streams(logGroupName=LOG_GROUP, logStreamNamePrefix=job.name)["logStreams"]
    assert sorted(s["logStreamName"].split("/")[1][:7] for s in streams) == ["algo-1-", "algo-2-", "algo-3-"]


def test_metrics_and_log_lines_are_seen_while_the_job_runs(local: Local, role: str, tmp_path: Path) -> None:
    program = """
import time
for epoch in range(3):
    print(f"epoch={epoch} valid_loss={1 / (epoch + 1):.4f} accuracy=nan")
print("waiting")
time.sleep(600)
"""
    job = Job(
        local, role, program, metrics={"valid:loss": r"valid_loss=([0-9.]+)", "valid:accuracy": r"accuracy=(\S+)"}
    )
    eventually(lambda: "waiting" in job.log())
    eventually(lambda: "FinalMetricDataList" in job.describe())
    described = job.describe()
    assert described["TrainingJobStatus"] == "InProgress"
    assert [(m["MetricName"], m["Value"]) for m in described["FinalMetricDataList"]] == [
        ("valid:loss", pytest.approx(0.3333))
    ]
    assert job.log()[:3] == [
        "epoch=0 valid_loss=1.0000 accuracy=nan",
        "epoch=1 valid_loss=0.5000 accuracy=nan",
        "epoch=2 valid_loss=0.3333 accuracy=nan",
    ]
    local.sagemaker.stop_training_job(TrainingJobName=job.name)
    host = Host(
        "sagemaker", "", local.state_dir, tmp_path, "", ProcessRegistry(tmp_path), lambda *_: {}, lambda *_: iter(())
    )
    series = SageMaker(host).training_jobs.metric_series(described["TrainingJobArn"])
    assert [value for _, value in series.pop("valid:loss")] == [1.0, 0.5, pytest.approx(0.3333)]
    assert not series


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (
            "import os, pathlib\n"
            "pathlib.Path(os.environ['SM_OUTPUT_DIR'], 'failure').write_text('no pictures in train/')\n"
            "raise SystemExit(4)",
            "AlgorithmError: no pictures in train/, exit code: 4",
        ),
        ("raise ValueError('learning rate is negative')", "ValueError: learning rate is negative, exit code: 1"),
        # Some shells wait for their last command, others become it.
        ("import os; os.kill(os.getpid(), 9)", ("exit code: 137", "was ended by SIGKILL")),
    ],
)
def test_a_failing_program_says_why(local: Local, role: str, program: str, reason: str | tuple[str, str]) -> None:
    job = Job(local, role, program)
    described = job.ended()
    assert (described["TrainingJobStatus"], described["SecondaryStatus"]) == ("Failed", "Failed")
    assert described["FailureReason"].startswith("AlgorithmError: ")
    assert described["FailureReason"].endswith(reason)
    assert not local.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"training/{job.name}/").get("Contents")


def test_one_failing_instance_ends_the_others(local: Local, role: str) -> None:
    program = (
        "import os, sys, time\n"
        "if os.environ['SM_CURRENT_HOST'] == 'algo-2': sys.exit('algo-2 gives up')\n"
        "print('pid', os.getpid()); time.sleep(600)"
    )
    job = Job(local, role, program, instances=2)
    assert "algo-2 gives up" in job.ended()["FailureReason"]
    for line in job.log():
        if line.startswith("pid "):
            assert not alive(int(line.split()[1]))


def test_missing_inputs_and_permissions_are_client_errors(local: Local, role: str) -> None:
    blind = local.role("s3:PutObject", *ACTIONS[3:])
    mute = local.role(*(action for action in ACTIONS if action != "s3:PutObject"))
    for by, members, reason in (
        (role, {"prefix": "nothing-here"}, 'No S3 objects found under S3 URL "s3://model-bucket/nothing-here"'),
        (blind, {}, "Data download failed: s3://model-bucket/data: AccessDenied"),
        (mute, {}, 'has "s3:PutObject" permissions there: AccessDenied'),
        (local.role(*ACTIONS, trusted="lambda.amazonaws.com"), {}, "sagemaker.amazonaws.com"),
        (role, {"hyperparameters": {"sagemaker_program": "absent.py"}}, "absent.py is not in the source directory"),
        (
            role,
            {"hyperparameters": {"sagemaker_submit_directory": f"s3://{BUCKET}/data/part-0/é 0.txt"}},
            "cannot be unpacked",
        ),
        (role, {"files": {"requirements.txt": b"no-such-package==9\n"}}, "no-such-package==9 (not installed)"),
    ):
        described = Job(local, by, LOOK_AROUND, **members).ended()
        assert described["TrainingJobStatus"] == "Failed"
        assert described["FailureReason"].startswith("ClientError: ")
        assert reason in described["FailureReason"]


#: The job's own first process, as the command line sends it.
ENTRY_POINT = {
    "ContainerEntrypoint": ["/bin/bash", "-c"],
    "ContainerArguments": ["cd /opt/ml && export SM_MODEL_DIR=/opt/ml/model && exec python code/train.py"],
}


@pytest.mark.parametrize(
    ("algorithm", "left"),
    [({}, {"partial": b"so far"}), (ENTRY_POINT, {"partial": b"so far", "more": b"at the end"})],
    ids=["toolkit", "entry point"],
)
def test_a_stopped_job_keeps_what_it_saved_and_hears_of_the_stop_as_a_first_process_only(
    local: Local, role: str, algorithm: dict[str, Any], left: dict[str, bytes]
) -> None:
    job = Job(local, role, UNTIL_STOPPED, algorithm=algorithm)
    eventually(lambda: any(line.startswith("pid ") for line in job.log()))
    local.sagemaker.stop_training_job(TrainingJobName=job.name)
    described = job.ended()
    assert (described["TrainingJobStatus"], described["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert "Stopping" in [t["Status"] for t in described["SecondaryStatusTransitions"]]
    assert job.output() == left
    with pytest.raises(ClientError, match="the training job is in status Stopped"):
        local.sagemaker.stop_training_job(TrainingJobName=job.name)


def test_a_job_has_only_so_much_time(local: Local, role: str) -> None:
    job = Job(local, role, UNTIL_STOPPED, max_runtime=1)
    described = job.ended()
    assert (described["TrainingJobStatus"], described["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert job.output() == {"partial": b"so far"}


def test_a_name_can_be_used_once(local: Local, role: str) -> None:
    job = Job(local, role, "pass")
    described = job.ended()
    request = {
        name: described[name]
        for name in ("RoleArn", "AlgorithmSpecification", "OutputDataConfig", "ResourceConfig", "StoppingCondition")
    }
    with pytest.raises(local.sagemaker.exceptions.ResourceInUse, match="must be unique"):
        local.sagemaker.create_training_job(TrainingJobName=job.name, **request)


def test_checkpoints_are_brought_and_kept(local: Local, role: str) -> None:
    local.s3.put_object(Bucket=BUCKET, Key="checkpoints/run/epoch", Body=b"7")
    program = """
import os, pathlib
path = pathlib.Path(os.environ["SM_CHECKPOINT_DIR"], "epoch")
path.write_text(str(int(path.read_text()) + 1))
"""
    config = {"S3Uri": f"s3://{BUCKET}/checkpoints/run"}
    assert Job(local, role, program, CheckpointConfig=config).ended()["TrainingJobStatus"] == "Completed"
    assert local.s3.get_object(Bucket=BUCKET, Key="checkpoints/run/epoch")["Body"].read() == b"8"


def test_a_container_entrypoint_is_run_with_its_paths_moved(local: Local, role: str) -> None:
    local.s3.put_object(Bucket=BUCKET, Key="script/run.sh", Body=b'ls /opt/ml 2>&1; echo "$2" > "$1/said"\n')
    job = Job(
        local,
        role,
        "",
        prefix="script",
        algorithm={
            "ContainerEntrypoint": ["/bin/bash", "/opt/ml/input/data/training/run.sh"],
            "ContainerArguments": ["/opt/ml/model", "hello"],
        },
    )
    assert job.ended()["TrainingJobStatus"] == "Completed", job.describe()
    assert job.output() == {"said": b"hello\n"}


def test_outputs_can_be_left_unpacked_and_encrypted(local: Local, role: str) -> None:
    key = local.client("kms").create_key()["KeyMetadata"]["Arn"]
    reading = local.role(*ACTIONS, "kms:GenerateDataKey", "kms:Decrypt")
    failed = Job(local, reading, LOOK_AROUND, output={"KmsKeyId": key}).ended()
    assert failed["TrainingJobStatus"] == "Failed"
    assert 'has "kms:Encrypt and s3:PutObject" permissions there' in failed["FailureReason"]
    encrypting = local.role(*ACTIONS, "kms:GenerateDataKey", "kms:Decrypt", "kms:Encrypt")
    job = Job(local, encrypting, LOOK_AROUND, output={"CompressionType": "NONE", "KmsKeyId": key})
    described = job.ended()
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    base = f"training/{job.name}/output"
    assert described["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{BUCKET}/{base}/model/"
    report = local.s3.get_object(Bucket=BUCKET, Key=f"{base}/output/report.txt")
    assert report["Body"].read() == b"all well"
    assert (report["ServerSideEncryption"], report["SSEKMSKeyId"]) == ("aws:kms", key)


def test_network_isolation_takes_the_credentials_away(local: Local, role: str) -> None:
    job = Job(local, role, LOOK_AROUND, EnableNetworkIsolation=True)
    assert job.ended()["TrainingJobStatus"] == "Completed"
    environment = json.loads(job.output()["algo-1.json"])["environment"]
    assert [name for name in environment if name.startswith("AWS_")] == []


def test_many_jobs_at_once_do_not_mix(local: Local, role: str) -> None:
    program = """
import os, pathlib, sys
pathlib.Path(os.environ["SM_MODEL_DIR"], "number").write_text(sys.argv[2])
print(f"loss={sys.argv[2]}")
"""
    jobs: list[Job] = []

    def start(number: int) -> None:
        jobs.append(Job(local, role, program, hyperparameters={"number": str(number)}, metrics={"loss": "loss=(.*)"}))

    threads = [threading.Thread(target=start, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for job in jobs:
        described = job.ended()
        number = described["HyperParameters"]["number"]
        assert job.output() == {"number": number.encode()}
        assert [m["Value"] for m in described["FinalMetricDataList"]] == [float(number)]
