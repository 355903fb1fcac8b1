"""`kennel tune` and `kennel train --best` against the local AWS, with a program that learns in no time."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from sagemaker_local import BUCKET

from cli import main
from cli.aws import Stage
from cli.training import packaging
from cli.training import sagemaker as training
from cli.tuning import watching as tuning

Kennel = Callable[..., str]
#: The validation loss is least at a learning rate of 0.01 and batches of 64.
PROGRAM = """
import argparse, math
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--batch-size", type=int, default=512)
parser.add_argument("--epochs", type=int, default=40)
given, _ = parser.parse_known_args()
loss = (math.log10(given.lr) + 2) ** 2 + 0.1 * (math.log2(given.batch_size) - 6) ** 2 + 0.1
for epoch in range(1, given.epochs + 1):
    print(f"epoch={epoch} valid_loss={loss + 1 / epoch:.4f}")
print(f"best_epoch={given.epochs} best_valid_loss={loss:.4f}")
print("lr", given.lr, "batch-size", given.batch_size, "epochs", given.epochs)
"""


@pytest.fixture
def kennel(aws, tmp_path, monkeypatch, capsys):
    """Runs `kennel` in this process, on a stage whose stacks are a bucket and a role; what it prints."""
    role = aws.job_role("s3:*", "logs:*", "kms:*")
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    outputs = {"storage": {"DataBucketName": BUCKET, "DataKeyArn": key}, "training": {"TrainingRoleArn": role}}

    class DeployedStage(Stage):
        def find_outputs(self, kind: str) -> dict[str, str]:
            return outputs[kind]

    source = tmp_path / "model"
    source.mkdir()
    (source / "train.py").write_text(PROGRAM)
    (source / "requirements.txt").touch()
    shutil.copy(training.SOURCE_DIR / "container_start.py", source)
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(main, "Stage", DeployedStage)
    monkeypatch.setattr(training, "SOURCE_DIR", source)
    monkeypatch.setattr(training, "_POLL_SECONDS", 0.1)
    monkeypatch.setattr(tuning, "_POLL_SECONDS", 0.1)
    monkeypatch.setattr(tuning, "CHARTS", tmp_path / "charts")
    aws.s3.put_object(Bucket=BUCKET, Key="datasets/sample/train/dog/1.jpg", Body=b"1")

    def run(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr("sys.argv", ["kennel", "--stage", "local", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        captured = capsys.readouterr()
        printed = captured.out + captured.err
        assert (stopped.value.code or 0) == code, printed
        return printed

    return run


def started(kennel: Kennel, *arguments: str) -> str:
    return kennel("tune", "--no-wait", *arguments).split()[2].rstrip(":")


def described(job: str) -> dict[str, Any]:
    sagemaker = main.Stage("local").client("sagemaker")
    return sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=job)


def test_a_search_its_charts_and_a_training_with_the_best_values(kennel: Kennel, tmp_path: Path) -> None:
    printed = kennel("tune", "--max-jobs", "6", "--parallel", "3", "--seed", "1", "--set", "epochs=3")
    # The price, and the most that it can come to, stand before anything has been started.
    first, searched, price, *_ = printed.splitlines()
    assert first.endswith(": 6 training jobs, at most 3 at once, each on 1 × ml.m5.xlarge.")
    assert searched == "Searched: lr 0.001 to 0.1; batch-size 32, 64, 128, 256, 512."
    assert price.startswith("With 3 at once: 0.707 USD per hour, at most 1.41 USD in 6.0 instance-hours; list prices")
    job = printed.split()[2].rstrip(":")
    best = described(job)["BestTrainingJob"]["TunedHyperParameters"]
    assert f"Best: lr={best['lr']}, batch-size={best['batch-size']}, valid:loss" in printed
    assert f"kennel train --best {job}" in printed
    for chart in (f"{job}.svg", f"{job}-history.svg"):
        assert ElementTree.parse(tmp_path / "charts" / chart).getroot().tag.endswith("svg")
    assert len(re.findall(r"^  00[1-6]  Completed, valid:loss", printed, re.MULTILINE)) == 6
    assert f"{job}: Completed, 6 of 6 training jobs started" in kennel("tune", "status")
    trained = kennel("train", "--best", "--set", "epochs=2")
    assert f"lr {float(best['lr'])} batch-size {best['batch-size']} epochs 2" in trained
    # The trainings of the search are not what `kennel package` takes.
    newest = packaging.newest_job(main.Stage("local"))
    assert newest in trained
    assert not newest.startswith(job)


def test_a_search_goes_on_from_an_earlier_one_and_can_be_stopped(kennel: Kennel) -> None:
    first = started(kennel, "--max-jobs", "2", "--strategy", "random")
    kennel("tune", "status", first)
    second = started(kennel, "--max-jobs", "30", "--warm-start", first)
    assert described(second)["WarmStartConfig"]["WarmStartType"] == "IdenticalDataAndAlgorithm"
    assert "is stopping" in kennel("tune", "stop")
    assert f"{second}: Stopped" in kennel("tune", "status")


def test_a_failed_search_says_why(kennel: Kennel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "train.py").write_text("raise ValueError('there are no images')")
    monkeypatch.setattr(training, "SOURCE_DIR", broken)
    printed = kennel("tune", "--max-jobs", "2", "--strategy", "hyperband", "--set", "epochs=9", code=5)
    assert "No training job succeeded after 2 attempts." in printed
    assert "there are no images" in printed
