"""Training on EC2: the stacks as they are, the user data as it is, run by the local AWS."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tarfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App
from local_aws_harness import LocalAws, local_aws
from sagemaker_local import alive, untar
from waiting import wait_until

from cli.aws import ROOT, Stage
from cli.errors import NotReadyError, WorkFailedError
from cli.training import ec2 as ec2_training
from cli.training import packaging
from cli.training import sagemaker as training
from cli.training.sagemaker import TrainingRequest
from emulator.platform import lifecycle
from infra import application, settings

DATA_SET = "images"
#: A training program of a few milliseconds; what it does is in the middle.
PROGRAM = """
import json, os, pathlib, signal, sys, time

model, checkpoints = (pathlib.Path(os.environ[name]) for name in ("SM_MODEL_DIR", "SM_CHECKPOINT_DIR"))
print("arguments", *sys.argv[1:])
{body}
(model / "model.json").write_text(json.dumps(sorted(os.listdir(os.environ["SM_CHANNEL_TRAINING"]))))
pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"], "metrics.json").write_text("{{}}")
"""
#: Saves a step, says so, and waits for somebody to end it.
PATIENT = """
step = len(list(checkpoints.iterdir()))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
(checkpoints / f"step-{step}").write_text("")
(model / "model.json").write_text("[]")
print("step", step)
while step < 1:
    time.sleep(0.05)
"""


def deploy(aws: LocalAws, assembly: Path, stage_settings: settings.Settings) -> None:
    """As the CDK's command line does: assets into the bootstrap bucket, then the stacks."""
    bucket = "cdk-hnb659fds-assets-000000000000-us-east-1"
    aws.client("s3").create_bucket(Bucket=bucket)
    aws.client("ssm").put_parameter(Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String")
    for asset in assembly.glob("asset.*"):
        if asset.is_dir():
            aws.client("s3").upload_file(shutil.make_archive(str(asset), "zip", asset), bucket, f"{asset.name[6:]}.zip")
    cloudformation = aws.client("cloudformation")
    for kind in ("storage", "training"):
        name = stage_settings.stack_name(kind)
        template = (assembly / f"{name}.template.json").read_text()
        cloudformation.create_stack(StackName=name, TemplateBody=template, Capabilities=["CAPABILITY_IAM"])
        cloudformation.get_waiter("stack_create_complete").wait(
            StackName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 600}
        )


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    app = App(context=context, outdir=str(tmp_path_factory.mktemp("assembly")), analytics_reporting=False)
    local = settings.load("local")
    assembly = application.synthesise(app, local, Path("does-not-exist.tar.gz"))
    with local_aws(tmp_path_factory.mktemp("state")) as running:
        deploy(running, assembly, local)
        yield running


@pytest.fixture
def stage(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> Stage:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ec2_training, "_POLL_SECONDS", 0.05)
    stage = Stage("local")
    for split in ("train", "valid"):
        key = f"datasets/{DATA_SET}/{split}/a/1.jpg"
        stage.client("s3").put_object(Bucket=stage.data_bucket, Key=key, Body=b"image")
    return stage


@pytest.fixture
def start(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Start a training whose program does what it is given."""

    def begin(body: str = "", **hyperparameters: str) -> str:
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "train.py").write_text(PROGRAM.format(body=textwrap.dedent(body)))
        (folder / "requirements.txt").touch()
        shutil.copy(ROOT / "model" / "training" / "job" / "container_start.py", folder)
        monkeypatch.setattr(training, "SOURCE_DIR", folder)
        return ec2_training.start_training(stage, TrainingRequest(DATA_SET, hyperparameters))

    return begin


def instance_of(aws: LocalAws, job: str) -> dict[str, Any]:
    filters = [{"Name": "tag:training-job", "Values": [job]}]
    (group,) = aws.client("ec2").describe_instances(Filters=filters)["Reservations"]
    return group["Instances"][0]


def is_terminated(aws: LocalAws, job: str) -> bool:
    return instance_of(aws, job)["State"]["Name"] == "terminated"


def archive(stage: Stage, key: str) -> dict[str, bytes]:
    return untar(stage.client("s3").get_object(Bucket=stage.data_bucket, Key=key)["Body"].read())


def says(stage: Stage, job: str, text: str) -> bool:
    """Whether a line of the job's log has the text."""
    logs, group = stage.client("logs"), stage.output("training", "TrainingInstanceLogGroup")
    streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{job}/")["logStreams"]
    return any(
        text in event["message"]
        for stream in streams
        for event in logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
    )


def test_a_training_leaves_what_a_sagemaker_job_leaves_and_its_instance_is_gone(
    aws: LocalAws, stage: Stage, start: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    job = start("", lr="0.01")
    status = ec2_training.follow_training(stage, job)
    assert (status.state, status.exit_code) == ("Completed", 0)
    assert archive(stage, f"training/{job}/output/model.tar.gz") == {"model.json": b'["train", "valid"]'}
    assert archive(stage, f"training/{job}/output/output.tar.gz") == {"metrics.json": b"{}"}
    wait_until(lambda: is_terminated(aws, job))
    printed = capsys.readouterr().out
    assert "1 × t3.xlarge (0.166 USD per hour" in printed
    assert "after 90 minutes at the latest" in printed
    assert " --lr=0.01 " in printed  # the program's own line, by way of CloudWatch
    instance = instance_of(aws, job)
    assert instance["InstanceType"] == "t3.xlarge"
    tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
    assert tags == {"Name": "kennel-local-training", "project": "kennel", "stage": "local", "training-job": job}
    # It is the newest training, so it is what is packaged next.
    assert packaging.newest_job(stage) == job
    fetched = tmp_path / "model.tar.gz"
    packaging._fetch_model(stage, job, fetched)
    with tarfile.open(fetched) as tar:
        assert tar.getnames() == ["model.json"]


def test_stopping_keeps_the_model(aws: LocalAws, stage: Stage, start: Callable[..., str]) -> None:
    job = start(PATIENT)
    wait_until(lambda: says(stage, job, "step 0"))
    ec2_training.stop_training(stage, job)
    with pytest.raises(WorkFailedError, match="ended as Stopped: The training was stopped by its user"):
        ec2_training.follow_training(stage, job)
    assert archive(stage, f"training/{job}/output/model.tar.gz") == {"model.json": b"[]"}
    wait_until(lambda: is_terminated(aws, job))
    with pytest.raises(NotReadyError, match="has ended already"):
        ec2_training.stop_training(stage, job)


def test_whoever_may_not_pass_the_role_cannot_launch_an_instance_that_has_it(aws: LocalAws, stage: Stage) -> None:
    template = {"LaunchTemplateId": stage.output("training", "TrainingLaunchTemplateId"), "Version": "$Latest"}
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": "*"}],
    }
    user = aws.client("ec2", aws.user("launcher", document))
    with pytest.raises(user.exceptions.ClientError, match=r"not authorized to perform: iam:PassRole"):
        user.run_instances(LaunchTemplate=template, MinCount=1, MaxCount=1)
    with pytest.raises(user.exceptions.ClientError, match="DryRunOperation"):
        aws.client("ec2").run_instances(LaunchTemplate=template, MinCount=1, MaxCount=1, DryRun=True)


@pytest.mark.slow
def test_an_instance_ends_with_its_server_however_that_ends(aws: LocalAws, tmp_path: Path) -> None:
    ec2 = aws.client("ec2")
    pid_file = tmp_path / "pid"
    script = f"#!/bin/bash\necho $$ > {pid_file}\nsleep 1000\n"
    (instance,) = ec2.run_instances(ImageId="ami-1", MinCount=1, MaxCount=1, UserData=script)["Instances"]
    pid = int(wait_until(lambda: pid_file.exists() and pid_file.read_text()))
    server = aws.pid
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: not alive(pid))
    wait_until(lambda: lifecycle.status(aws.state_dir) is None)
    lifecycle.up(aws.state_dir, aws.port)
    found = ec2.describe_instances(InstanceIds=[instance["InstanceId"]])["Reservations"][0]["Instances"][0]
    assert found["State"]["Name"] == "terminated"
    assert not [path for path in (aws.state_dir / "ec2").iterdir() if path.is_dir()]


def test_a_program_acts_under_the_role_of_its_instance(aws: LocalAws, stage: Stage, start: Callable[..., str]) -> None:
    job = start(
        f"""
        import boto3, botocore.exceptions
        print("caller", boto3.client("sts").get_caller_identity()["Arn"])
        try:
            boto3.client("s3").put_object(Bucket="{stage.data_bucket}", Key="code/jobs/x.json", Body=b"")
        except botocore.exceptions.ClientError as error:
            print("changes a job", error.response["Error"]["Code"])
        """
    )
    ec2_training.follow_training(stage, job)
    assert says(stage, job, f"/{instance_of(aws, job)['InstanceId']}")  # the session's name, as on EC2
    assert says(stage, job, "changes a job AccessDenied")
