"""Training jobs on the local AWS, through unmodified clients."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from emulator_fixtures import channel
from local_aws_harness import QUICKLY, refused
from sagemaker_local import ACTIONS, BUCKET, LocalSageMaker, alive
from waiting import wait_until

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


@pytest.fixture(scope="module", autouse=True)
def objects(aws: LocalSageMaker) -> None:
    for number in range(5):
        aws.s3.put_object(Bucket=BUCKET, Key=f"data/part-{number}/é {number}.txt", Body=str(number).encode())


def start(
    aws: LocalSageMaker,
    role: str,
    program: str,
    *,
    instances: int = 1,
    prefix: str = "data",
    **members: Any,
) -> str:
    inputs = [channel("training", f"s3://{BUCKET}/{prefix}")]
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": instances, "VolumeSizeInGB": 10}
    return aws.train(role, program, InputDataConfig=inputs, ResourceConfig=resources, **members)


def test_a_job_runs_its_program_and_uploads_what_it_leaves(aws: LocalSageMaker, role: str) -> None:
    hyperparameters = {"lr": "0.1", "name": '"Größe 5"'}
    job = start(aws, role, LOOK_AROUND, hyperparameters=hyperparameters, Environment={"OWN": "1"})
    waiter = aws.sagemaker.get_waiter("training_job_completed_or_stopped")
    waiter.wait(TrainingJobName=job, WaiterConfig=QUICKLY)
    described = aws.job(job)
    assert described["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{BUCKET}/training/{job}/output/model.tar.gz"
    transitions = described["SecondaryStatusTransitions"]
    course = ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert [transition["Status"] for transition in transitions] == course
    assert transitions[1]["StatusMessage"] == "Downloading input data: channel training, 5 of 5 objects"
    assert described["TrainingStartTime"] <= described["TrainingEndTime"]
    assert described["BillableTimeInSeconds"] >= 1
    facts = json.loads(aws.output(job)["algo-1.json"])
    assert facts["argv"] == ["train.py", "--lr", "0.1", "--name", "Größe", "5"], "a shell has read the arguments"
    assert facts["inputs"] == {f"part-{n}/é {n}.txt": str(n) for n in range(5)}
    assert facts["configuration"] == ["hyperparameters.json", "inputdataconfig.json", "resourceconfig.json"]
    environment = facts["environment"]
    assert environment["OWN"] == "1" and environment["AWS_SESSION_TOKEN"]
    assert environment["AWS_ACCESS_KEY_ID"] != aws.environment["AWS_ACCESS_KEY_ID"]
    assert aws.output(job, "output.tar.gz") == {"report.txt": b"all well"}
    assert not list((aws.state_dir / "sagemaker" / "training-job").rglob("*.json")), "the folders are cleared away"


def test_network_isolation_takes_the_credentials_away(aws: LocalSageMaker, role: str) -> None:
    job = start(aws, role, LOOK_AROUND, EnableNetworkIsolation=True)
    assert aws.ended(job)["TrainingJobStatus"] == "Completed"
    environment = json.loads(aws.output(job)["algo-1.json"])["environment"]
    assert [name for name in environment if name.startswith("AWS_")] == []


def test_metrics_and_log_lines_are_seen_while_the_job_runs(aws: LocalSageMaker, role: str) -> None:
    program = """
import time
for epoch in range(3):
    print(f"epoch={epoch} valid_loss={1 / (epoch + 1):.4f} accuracy=nan")
print("waiting")
time.sleep(600)
"""
    expressions = (("valid:loss", r"valid_loss=([0-9.]+)"), ("valid:accuracy", r"accuracy=(\S+)"))
    definitions = [{"Name": name, "Regex": regex} for name, regex in expressions]
    job = start(aws, role, program, algorithm={"MetricDefinitions": definitions})
    wait_until(lambda: "waiting" in aws.printed(job))
    described = wait_until(lambda: (found := aws.job(job)).get("FinalMetricDataList") and found)
    assert described["TrainingJobStatus"] == "InProgress"
    (final,) = described["FinalMetricDataList"]
    assert (final["MetricName"], final["Value"]) == ("valid:loss", pytest.approx(0.3333))
    assert aws.printed(job)[0] == "epoch=0 valid_loss=1.0000 accuracy=nan"
    aws.sagemaker.stop_training_job(TrainingJobName=job)
    assert [point.value for point in aws.series(job, "valid:loss")] == [1.0, 0.5, pytest.approx(0.3333)]
    assert aws.series(job, "valid:accuracy") == []


FAILURE_FILE = """
import os, pathlib
pathlib.Path(os.environ['SM_OUTPUT_DIR'], 'failure').write_text('no images in train/')
raise SystemExit(4)
"""
ONE_OF_TWO = """
import os, sys, time
if os.environ['SM_CURRENT_HOST'] == 'algo-2': sys.exit('algo-2 gives up')
print('pid', os.getpid()); time.sleep(600)
"""


@pytest.mark.parametrize(
    ("program", "instances", "reason"),
    [
        (FAILURE_FILE, 1, "no images in train/"),
        ("raise ValueError('rate is negative')", 1, 'ExitCode 1\nErrorMessage ".*ValueError: rate is negative"\n'),
        # Some shells wait for their last command, others become it.
        ("import os; os.kill(os.getpid(), 9)", 1, 'ExitCode (137|-9)\nErrorMessage ""\nCommand ".* train.py'),
        (ONE_OF_TWO, 2, 'ExitCode 1\nErrorMessage ""'),
    ],
)
def test_a_failing_program_says_why_and_ends_the_other_instances(
    aws: LocalSageMaker, role: str, program: str, instances: int, reason: str
) -> None:
    job = start(aws, role, program, instances=instances)
    described = aws.ended(job)
    assert (described["TrainingJobStatus"], described["SecondaryStatus"]) == ("Failed", "Failed")
    assert re.match(rf"AlgorithmError: (ExecuteUserScriptError:\n)?{reason}", described["FailureReason"], re.DOTALL)
    assert described["FailureReason"].endswith(", exit code: 1")
    assert not aws.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"training/{job}/").get("Contents")
    assert not any(alive(int(line.split()[1])) for line in aws.printed(job) if line.startswith("pid "))


def test_missing_inputs_and_permissions_are_client_errors(aws: LocalSageMaker, role: str) -> None:
    mute = aws.job_role(*(action for action in ACTIONS if action != "s3:PutObject"))
    no_archive = {"sagemaker_submit_directory": f"s3://{BUCKET}/data/part-0/é 0.txt"}
    for by, members, reason in (
        (mute, {}, 'has "s3:PutObject" permissions there: AccessDenied'),
        (role, {"hyperparameters": no_archive}, "cannot be unpacked"),
    ):
        described = aws.ended(start(aws, by, LOOK_AROUND, **members))
        assert described["TrainingJobStatus"] == "Failed"
        assert described["FailureReason"].startswith("ClientError: ")
        assert reason in described["FailureReason"]


def test_missing_inputs_and_roles_that_cannot_be_assumed_are_refused_at_once(aws: LocalSageMaker, role: str) -> None:
    for by, members, reason in (
        (role, {"prefix": "nothing-here"}, 'No S3 objects found under S3 URL "s3://model-bucket/nothing-here"'),
        (aws.job_role(*ACTIONS, trusted="lambda.amazonaws.com"), {}, "sagemaker.amazonaws.com"),
    ):
        with pytest.raises(aws.sagemaker.exceptions.ClientError, match=reason):
            start(aws, by, LOOK_AROUND, **members)


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
    aws: LocalSageMaker, role: str, algorithm: dict[str, Any], left: dict[str, bytes]
) -> None:
    job = start(aws, role, UNTIL_STOPPED, algorithm=algorithm)
    wait_until(lambda: any(line.startswith("pid ") for line in aws.printed(job)))
    aws.sagemaker.stop_training_job(TrainingJobName=job)
    described = aws.ended(job)
    assert (described["TrainingJobStatus"], described["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert "Stopping" in [t["Status"] for t in described["SecondaryStatusTransitions"]]
    assert aws.output(job) == left
    refused(aws.sagemaker.stop_training_job, "the training job is in status Stopped", TrainingJobName=job)


def test_outputs_are_encrypted_with_the_key_that_the_job_names(aws: LocalSageMaker) -> None:
    output = {
        "S3OutputPath": f"s3://{BUCKET}/training",
        "KmsKeyId": aws.client("kms").create_key()["KeyMetadata"]["Arn"],
    }
    using = (*ACTIONS, "kms:GenerateDataKey", "kms:Decrypt")
    failed = aws.ended(start(aws, aws.job_role(*using), LOOK_AROUND, OutputDataConfig=output))
    assert 'has "kms:Encrypt and s3:PutObject" permissions there' in failed["FailureReason"]
    job = start(aws, aws.job_role(*using, "kms:Encrypt"), LOOK_AROUND, OutputDataConfig=output)
    assert aws.ended(job)["TrainingJobStatus"] == "Completed", aws.job(job).get("FailureReason")
    report = aws.s3.get_object(Bucket=BUCKET, Key=f"training/{job}/output/output.tar.gz")
    assert (report["ServerSideEncryption"], report["SSEKMSKeyId"]) == ("aws:kms", output["KmsKeyId"])
