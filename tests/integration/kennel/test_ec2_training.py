"""Training on EC2: the stacks as they are, the user data as it is, run by the local AWS."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import untar
from local_aws_harness import policy
from sagemaker_local import LocalSageMaker
from templates import make_app
from waiting import wait_until

from cli.aws import ROOT, Stage
from cli.errors import NotReadyError, WorkFailedError
from cli.training import ec2 as ec2_training
from cli.training import sagemaker as training
from cli.training.sagemaker import TrainingRequest
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


@pytest.fixture(scope="module")
def deployed(aws: LocalSageMaker, tmp_path_factory: pytest.TempPathFactory) -> LocalSageMaker:
    """As the CDK's command line does: assets into the bootstrap bucket, then the stacks."""
    local = settings.load("local")
    app = make_app(tmp_path_factory.mktemp("assembly"))
    assembly = application.synthesise(app, local, Path("does-not-exist.tar.gz"))
    bucket = "cdk-hnb659fds-assets-000000000000-us-east-1"
    aws.s3.create_bucket(Bucket=bucket)
    aws.client("ssm").put_parameter(Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String")
    for asset in assembly.glob("asset.*"):
        if asset.is_dir():
            aws.s3.upload_file(shutil.make_archive(str(asset), "zip", asset), bucket, f"{asset.name[6:]}.zip")
    for name in map(local.stack_name, ("storage", "training")):
        made = aws.deploy(name, (assembly / f"{name}.template.json").read_text())
        assert made["StackStatus"] == "CREATE_COMPLETE", made["Reasons"]
    return aws


@pytest.fixture
def stage(deployed: LocalSageMaker, monkeypatch: pytest.MonkeyPatch) -> Stage:
    for name, value in deployed.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ec2_training, "_POLL_SECONDS", 0.05)
    stage = Stage("local")
    for split in ("train", "valid"):
        key = f"datasets/{DATA_SET}/{split}/a/1.jpg"
        deployed.s3.put_object(Bucket=stage.data_bucket, Key=key, Body=b"image")
    return stage


@pytest.fixture
def start(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    def begin(body: str = "", **hyperparameters: str) -> str:
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "train.py").write_text(PROGRAM.format(body=textwrap.dedent(body)))
        (folder / "requirements.txt").touch()
        shutil.copy(ROOT / "model" / "training" / "job" / "container_start.py", folder)
        monkeypatch.setattr(training, "SOURCE_DIR", folder)
        return ec2_training.start_training(stage, TrainingRequest(DATA_SET, hyperparameters))

    return begin


def instance_of(aws: LocalSageMaker, job: str) -> dict[str, Any]:
    filters = [{"Name": "tag:training-job", "Values": [job]}]
    (group,) = aws.client("ec2").describe_instances(Filters=filters)["Reservations"]
    return group["Instances"][0]


def left(aws: LocalSageMaker, stage: Stage, job: str, archive: str) -> dict[str, bytes]:
    key = f"training/{job}/output/{archive}.tar.gz"
    return untar(aws.s3.get_object(Bucket=stage.data_bucket, Key=key)["Body"].read())


def says(aws: LocalSageMaker, stage: Stage, job: str, text: str) -> bool:
    lines = aws.printed(job, stage.output("training", "TrainingInstanceLogGroup"))
    return any(text in line for line in lines)


def test_a_training_leaves_what_a_sagemaker_job_leaves_and_its_instance_is_gone(aws, stage, start, capsys):
    job = start("", lr="0.01")
    ec2_training.follow_training(stage, job)
    assert left(aws, stage, job, "model") == {"model.json": b'["train", "valid"]'}
    assert left(aws, stage, job, "output") == {"metrics.json": b"{}"}
    wait_until(lambda: instance_of(aws, job)["State"]["Name"] == "terminated")
    assert " --lr=0.01 " in capsys.readouterr().out  # the program's own line, by way of CloudWatch
    instance = instance_of(aws, job)
    assert instance["InstanceType"] == "t3.xlarge"
    tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
    assert tags == {"Name": "kennel-local-training", "project": "kennel", "stage": "local", "training-job": job}


def test_stopping_keeps_the_model(aws: LocalSageMaker, stage: Stage, start: Callable[..., str]) -> None:
    job = start(PATIENT)
    wait_until(lambda: says(aws, stage, job, "step 0"))
    ec2_training.stop_training(stage, job)
    with pytest.raises(WorkFailedError, match="ended as Stopped: The training was stopped by its user"):
        ec2_training.follow_training(stage, job)
    assert left(aws, stage, job, "model") == {"model.json": b"[]"}
    wait_until(lambda: instance_of(aws, job)["State"]["Name"] == "terminated")
    with pytest.raises(NotReadyError, match="has ended already"):
        ec2_training.stop_training(stage, job)


def test_whoever_may_not_pass_the_role_cannot_launch_an_instance_that_has_it(aws: LocalSageMaker, stage: Stage) -> None:
    template = {"LaunchTemplateId": stage.output("training", "TrainingLaunchTemplateId"), "Version": "$Latest"}
    launching = policy({"Action": "ec2:RunInstances", "Resource": "*"})
    user = aws.client("ec2", aws.user("launcher", launching))
    with pytest.raises(user.exceptions.ClientError, match=r"not authorized to perform: iam:PassRole"):
        user.run_instances(LaunchTemplate=template, MinCount=1, MaxCount=1)
    with pytest.raises(user.exceptions.ClientError, match="DryRunOperation"):
        aws.client("ec2").run_instances(LaunchTemplate=template, MinCount=1, MaxCount=1, DryRun=True)


def test_a_program_acts_under_the_role_of_its_instance(aws, stage, start):
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
    assert says(aws, stage, job, f"/{instance_of(aws, job)['InstanceId']}")  # the session's name, as on EC2
    assert says(aws, stage, job, "changes a job AccessDenied")
