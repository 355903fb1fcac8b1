"""Training jobs on the local AWS, through unmodified clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from emulator_fixtures import channel
from sagemaker_local import BUCKET, IMAGE, Local, alive, local_aws
from waiting import wait_until

ACTIONS = (
    *("s3:GetObject", "s3:PutObject", "s3:ListBucket"),
    *("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"),
)

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


def start(
    local: Local,
    role: str,
    program: str,
    *,
    instances: int = 1,
    prefix: str = "data",
    algorithm: dict[str, Any] | None = None,
    **members: Any,
) -> str:
    """Start a training job on the objects above; its name."""
    return local.train(
        role,
        program,
        AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File", **(algorithm or {})},
        InputDataConfig=[channel("training", f"s3://{BUCKET}/{prefix}")],
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": instances, "VolumeSizeInGB": 10},
        **members,
    )


def test_a_job_runs_its_program_and_uploads_what_it_leaves(local: Local, role: str) -> None:
    hyperparameters = {"lr": "0.1", "name": '"Größe 5"'}
    job = start(local, role, LOOK_AROUND, hyperparameters=hyperparameters, Environment={"OWN": "1"})
    local.sagemaker.get_waiter("training_job_completed_or_stopped").wait(
        TrainingJobName=job, WaiterConfig={"Delay": 0.1, "MaxAttempts": 600}
    )
    described = local.job(job)
    assert described["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{BUCKET}/training/{job}/output/model.tar.gz"
    assert [t["Status"] for t in described["SecondaryStatusTransitions"]] == [
        "Starting", "Downloading", "Training", "Uploading", "Completed",
    ]  # fmt: skip
    downloading = described["SecondaryStatusTransitions"][1]["StatusMessage"]
    assert downloading == "Downloading input data: channel training, 5 of 5 objects"
    assert described["TrainingStartTime"] <= described["TrainingEndTime"]
    assert described["BillableTimeInSeconds"] >= 1
    facts = json.loads(local.output(job)["algo-1.json"])
    assert facts["argv"] == ["train.py", "--lr", "0.1", "--name", "Größe", "5"], "a shell has read the arguments"
    assert facts["inputs"] == {f"part-{n}/é {n}.txt": str(n) for n in range(5)}
    assert facts["configuration"] == ["hyperparameters.json", "inputdataconfig.json", "resourceconfig.json"]
    assert facts["environment"]["OWN"] == "1"
    assert facts["environment"]["AWS_SESSION_TOKEN"]
    assert facts["environment"]["AWS_ACCESS_KEY_ID"] != local.environment["AWS_ACCESS_KEY_ID"]
    assert local.output(job, "output.tar.gz") == {"report.txt": b"all well"}
    assert not list((local.state_dir / "sagemaker" / "training").rglob("*.json")), "the folders are cleared away"


def test_every_instance_is_a_process_of_its_own(local: Local, role: str) -> None:
    job = start(local, role, LOOK_AROUND, instances=3)
    assert local.ended(job)["TrainingJobStatus"] == "Completed"
    facts = {name: json.loads(content) for name, content in sorted(local.output(job).items())}
    environments = [found["environment"] for found in facts.values()]
    assert [e["SM_CURRENT_HOST"] for e in environments] == ["algo-1", "algo-2", "algo-3"]
    assert {e["SM_HOSTS"] for e in environments} == {'["algo-1","algo-2","algo-3"]'}
    assert len({(e["SM_MASTER_ADDR"], e["SM_MASTER_PORT"]) for e in environments}) == 1
    assert [len(found["inputs"]) for found in facts.values()] == [5, 5, 5]


def test_metrics_and_log_lines_are_seen_while_the_job_runs(local: Local, role: str) -> None:
    program = """
import time
for epoch in range(3):
    print(f"epoch={epoch} valid_loss={1 / (epoch + 1):.4f} accuracy=nan")
print("waiting")
time.sleep(600)
"""
    expressions = (("valid:loss", r"valid_loss=([0-9.]+)"), ("valid:accuracy", r"accuracy=(\S+)"))
    definitions = [{"Name": name, "Regex": regex} for name, regex in expressions]
    job = start(local, role, program, algorithm={"MetricDefinitions": definitions})
    wait_until(lambda: "waiting" in local.printed(job))
    described = wait_until(lambda: (found := local.job(job)).get("FinalMetricDataList") and found)
    assert described["TrainingJobStatus"] == "InProgress"
    assert [(m["MetricName"], m["Value"]) for m in described["FinalMetricDataList"]] == [
        ("valid:loss", pytest.approx(0.3333))
    ]
    assert local.printed(job)[0] == "epoch=0 valid_loss=1.0000 accuracy=nan"
    local.sagemaker.stop_training_job(TrainingJobName=job)
    assert [point.value for point in local.series(job, "valid:loss")] == [1.0, 0.5, pytest.approx(0.3333)]
    assert local.series(job, "valid:accuracy") == []


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (
            "import os, pathlib\n"
            "pathlib.Path(os.environ['SM_OUTPUT_DIR'], 'failure').write_text('no images in train/')\n"
            "raise SystemExit(4)",
            "AlgorithmError: no images in train/, exit code: 4",
        ),
        ("raise ValueError('learning rate is negative')", "ValueError: learning rate is negative, exit code: 1"),
        # Some shells wait for their last command, others become it.
        ("import os; os.kill(os.getpid(), 9)", ("exit code: 137", "was ended by SIGKILL")),
    ],
)
def test_a_failing_program_says_why(local: Local, role: str, program: str, reason: str | tuple[str, str]) -> None:
    job = start(local, role, program)
    described = local.ended(job)
    assert (described["TrainingJobStatus"], described["SecondaryStatus"]) == ("Failed", "Failed")
    assert described["FailureReason"].startswith("AlgorithmError: ")
    assert described["FailureReason"].endswith(reason)
    assert not local.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"training/{job}/").get("Contents")


def test_one_failing_instance_ends_the_others(local: Local, role: str) -> None:
    program = (
        "import os, sys, time\n"
        "if os.environ['SM_CURRENT_HOST'] == 'algo-2': sys.exit('algo-2 gives up')\n"
        "print('pid', os.getpid()); time.sleep(600)"
    )
    job = start(local, role, program, instances=2)
    assert "algo-2 gives up" in local.ended(job)["FailureReason"]
    pids = [int(line.split()[1]) for line in local.printed(job) if line.startswith("pid ")]
    assert not any(map(alive, pids))


def test_missing_inputs_and_permissions_are_client_errors(local: Local, role: str) -> None:
    mute = local.role(*(action for action in ACTIONS if action != "s3:PutObject"))
    no_archive = {"sagemaker_submit_directory": f"s3://{BUCKET}/data/part-0/é 0.txt"}
    for by, members, reason in (
        (role, {"prefix": "nothing-here"}, 'No S3 objects found under S3 URL "s3://model-bucket/nothing-here"'),
        (mute, {}, 'has "s3:PutObject" permissions there: AccessDenied'),
        (local.role(*ACTIONS, trusted="lambda.amazonaws.com"), {}, "sagemaker.amazonaws.com"),
        (role, {"hyperparameters": no_archive}, "cannot be unpacked"),
    ):
        described = local.ended(start(local, by, LOOK_AROUND, **members))
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
    job = start(local, role, UNTIL_STOPPED, algorithm=algorithm)
    wait_until(lambda: any(line.startswith("pid ") for line in local.printed(job)))
    local.sagemaker.stop_training_job(TrainingJobName=job)
    described = local.ended(job)
    assert (described["TrainingJobStatus"], described["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert "Stopping" in [t["Status"] for t in described["SecondaryStatusTransitions"]]
    assert local.output(job) == left
    with pytest.raises(ClientError, match="the training job is in status Stopped"):
        local.sagemaker.stop_training_job(TrainingJobName=job)


def test_a_job_has_only_so_much_time(local: Local, role: str) -> None:
    job = start(local, role, UNTIL_STOPPED, StoppingCondition={"MaxRuntimeInSeconds": 1})
    described = local.ended(job)
    assert (described["TrainingJobStatus"], described["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert local.output(job) == {"partial": b"so far"}


def test_outputs_can_be_encrypted(local: Local, role: str) -> None:
    key = local.client("kms").create_key()["KeyMetadata"]["Arn"]
    using = (*ACTIONS, "kms:GenerateDataKey", "kms:Decrypt")
    output = {"S3OutputPath": f"s3://{BUCKET}/training", "KmsKeyId": key}
    failed = local.ended(start(local, local.role(*using), LOOK_AROUND, OutputDataConfig=output))
    assert failed["TrainingJobStatus"] == "Failed"
    assert 'has "kms:Encrypt and s3:PutObject" permissions there' in failed["FailureReason"]
    encrypting = local.role(*using, "kms:Encrypt")
    job = start(local, encrypting, LOOK_AROUND, OutputDataConfig=output)
    described = local.ended(job)
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    report = local.s3.get_object(Bucket=BUCKET, Key=f"training/{job}/output/output.tar.gz")
    assert (report["ServerSideEncryption"], report["SSEKMSKeyId"]) == ("aws:kms", key)


def test_network_isolation_takes_the_credentials_away(local: Local, role: str) -> None:
    job = start(local, role, LOOK_AROUND, EnableNetworkIsolation=True)
    assert local.ended(job)["TrainingJobStatus"] == "Completed"
    environment = json.loads(local.output(job)["algo-1.json"])["environment"]
    assert [name for name in environment if name.startswith("AWS_")] == []
