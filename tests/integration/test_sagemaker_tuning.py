"""Tuning jobs on the local AWS, through unmodified clients and with real training jobs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from emulator_fixtures import training_job
from sagemaker_local import BUCKET, IMAGE, Local, local_aws, tar_gz
from waiting import wait_until

ACTIONS = ("s3:*", "logs:*")
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
    sys.exit("this cannot be learned")
pathlib.Path(os.environ["SM_MODEL_DIR"], "lr").write_text(str(arguments.lr))
for epoch in range(1, arguments.epochs + 1):
    if not arguments.silent:
        print(f"epoch={epoch} loss={(arguments.lr - 0.3) ** 2 + 1 / epoch:.6f}")
    time.sleep(arguments.pause)
while arguments.lr > arguments.linger:
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local_aws(tmp_path_factory.mktemp("aws")) as local:
        prepare(local)
        yield local


@pytest.fixture(scope="module")
def role(local: Local) -> str:
    return local.role(*ACTIONS)


def prepare(local: Local) -> None:
    local.s3.put_object(Bucket=BUCKET, Key="code/tuned.tar.gz", Body=tar_gz({"train.py": PROGRAM.encode()}))


class Tuning:
    """A tuning job over the program above."""

    def __init__(
        self,
        local: Local,
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
        self.local = local
        self.name = f"Tuning-{uuid.uuid4().hex[:8]}"
        ranges: dict[str, Any] = {"ContinuousParameterRanges": [{"Name": "lr", "MinValue": "0", "MaxValue": "1"}]}
        if lr:
            ranges = {"CategoricalParameterRanges": [{"Name": "lr", "Values": list(lr)}]}
        definition = training_job(
            RoleArn=role,
            AlgorithmSpecification={
                "TrainingImage": IMAGE,
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}],
            },
            StaticHyperParameters={
                "sagemaker_program": "train.py",
                "sagemaker_submit_directory": f"s3://{BUCKET}/code/tuned.tar.gz",
                **(static or {}),
            },
            OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/training"},
            CheckpointConfig={"S3Uri": CHECKPOINTS},
        )
        del definition["TrainingJobName"]
        local.sagemaker.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=self.name,
            HyperParameterTuningJobConfig={
                "Strategy": strategy,
                "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
                "ResourceLimits": {"MaxNumberOfTrainingJobs": jobs, "MaxParallelTrainingJobs": parallel},
                "ParameterRanges": ranges,
                "RandomSeed": 7,
                **(config or {}),
            },
            TrainingJobDefinition=definition,
            **members,
        )

    def describe(self) -> dict[str, Any]:
        return self.local.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=self.name)

    def ended(self) -> dict[str, Any]:
        """Wait for the end; the description."""
        wait_until(lambda: self.describe()["HyperParameterTuningJobStatus"] in ("Completed", "Failed", "Stopped"))
        return self.describe()

    def jobs(self, **options: Any) -> list[dict[str, Any]]:
        """The training jobs, in the order of their names unless told otherwise."""
        pages = self.local.sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
        return list(pages.paginate(HyperParameterTuningJobName=self.name, **options).search("TrainingJobSummaries[]"))


def value(job: dict[str, Any]) -> float:
    return job["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]


def test_the_best_of_several_real_training_jobs_is_found(local: Local, role: str) -> None:
    tags = [{"Key": "team", "Value": "dogs"}]
    tuning = Tuning(local, role, strategy="Bayesian", jobs=6, parallel=3, Tags=tags)
    described = tuning.ended()
    assert described["HyperParameterTuningJobStatus"] == "Completed", described
    assert described["TrainingJobStatusCounters"]["Completed"] == 6
    assert described["ObjectiveStatusCounters"] == {"Succeeded": 6, "Pending": 0, "Failed": 0}
    jobs = tuning.jobs()
    assert [job["TrainingJobName"][:-8] for job in jobs] == [f"{tuning.name}-{n:03d}-" for n in range(1, 7)]
    for job in jobs:
        # What the job really printed last, to six digits.
        assert value(job) == pytest.approx((float(job["TunedHyperParameters"]["lr"]) - 0.3) ** 2 + 0.5, abs=1e-6)
    best = min(jobs, key=value)
    assert described["BestTrainingJob"]["TrainingJobName"] == best["TrainingJobName"]
    assert value(described["BestTrainingJob"]) == value(best)
    assert [value(job) for job in tuning.jobs(SortBy="FinalObjectiveMetricValue")] == sorted(map(value, jobs))
    pages = tuning.jobs(SortBy="Name", SortOrder="Descending", PaginationConfig={"PageSize": 4})
    assert [job["TrainingJobName"] for job in pages] == [job["TrainingJobName"] for job in reversed(jobs)]
    child = local.job(best["TrainingJobName"])
    assert child["TuningJobArn"] == described["HyperParameterTuningJobArn"]
    assert child["CheckpointConfig"]["S3Uri"] == CHECKPOINTS
    assert child["HyperParameters"]["_tuning_objective_metric"] == "loss"
    assert child["HyperParameters"]["lr"] == best["TunedHyperParameters"]["lr"]
    assert local.sagemaker.list_tags(ResourceArn=child["TrainingJobArn"])["Tags"] == tags
    (summary,) = local.sagemaker.list_hyper_parameter_tuning_jobs(NameContains=tuning.name)[
        "HyperParameterTuningJobSummaries"
    ]
    assert (summary["Strategy"], summary["TrainingJobStatusCounters"]["Completed"]) == ("Bayesian", 6)


def test_stopping_ends_the_running_jobs_and_starts_no_more(local: Local, role: str) -> None:
    tuning = Tuning(local, role, jobs=5, static={"epochs": "1000", "pause": "0.1"})
    wait_until(lambda: any(job["TrainingJobStatus"] == "InProgress" for job in tuning.jobs()))
    running = tuning.jobs()[0]["TrainingJobName"]
    wait_until(lambda: local.job(running)["SecondaryStatus"] == "Training")
    local.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=tuning.name)
    described = tuning.ended()
    assert described["HyperParameterTuningJobStatus"] == "Stopped"
    assert len(tuning.jobs()) == 2
    assert {job["TrainingJobStatus"] for job in tuning.jobs()} == {"Stopped"}
    with pytest.raises(ClientError, match="the tuning job is in status Stopped"):
        local.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=tuning.name)


def test_a_search_in_which_nothing_succeeds_is_given_up(local: Local, role: str) -> None:
    failing, silent = (Tuning(local, role, jobs=20, parallel=1, static={fault: "1"}) for fault in ("fail", "silent"))
    for tuning, reason in (
        (failing, "No training job succeeded after 5"),
        (silent, "No objective metrics found after"),
    ):
        described = tuning.ended()
        assert described["HyperParameterTuningJobStatus"] == "Failed"
        assert described["FailureReason"].startswith(reason)
        assert described["ObjectiveStatusCounters"] == {"Succeeded": 0, "Pending": 0, "Failed": 5}
        assert "BestTrainingJob" not in described
        assert tuning.jobs(SortBy="FinalObjectiveMetricValue") == []
    assert all("this cannot be learned" in job["FailureReason"] for job in failing.jobs())


def test_hyperband_ends_the_bad_ones_early(local: Local, role: str) -> None:
    # Those above 0.5 end only when somebody ends them. The first job of this seed is better than all of them.
    tuning = Tuning(
        local,
        role,
        strategy="Hyperband",
        jobs=5,
        parallel=1,
        static={"linger": "0.5"},
        config={
            "StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 2, "MaxResource": 5}},
            "RandomSeed": 3,
        },
    )
    described = tuning.ended()
    assert described["HyperParameterTuningJobStatus"] == "Completed"
    jobs = tuning.jobs()
    bad = [job for job in jobs if float(job["TunedHyperParameters"]["lr"]) > 0.5]
    assert bad
    assert {job["TrainingJobStatus"] for job in bad} == {"Stopped"}
    assert all(job["ObjectiveStatus"] == "Succeeded" for job in jobs)
    assert described["BestTrainingJob"]["TrainingJobStatus"] == "Completed"
    assert described["TrainingJobStatusCounters"]["Stopped"] >= len(bad)


def test_a_warm_start_goes_on_from_its_parent(local: Local, role: str) -> None:
    parent = Tuning(local, role, strategy="Grid", lr=("0.3", "0.9"), jobs=2)
    parent.ended()

    def warm(kind: str) -> dict[str, Any]:
        parents = [{"HyperParameterTuningJobName": parent.name}]
        return {"WarmStartConfig": {"ParentHyperParameterTuningJobs": parents, "WarmStartType": kind}}

    identical = Tuning(local, role, lr=("0.8", "0.9"), jobs=1, parallel=1, **warm("IdenticalDataAndAlgorithm"))
    transfer = Tuning(local, role, jobs=1, parallel=1, **warm("TransferLearning"))
    described = identical.ended()
    assert value(described["BestTrainingJob"]) > 0.5
    described = transfer.ended()
    assert described["BestTrainingJob"]["TunedHyperParameters"] == {"lr": "0.3"}


@pytest.mark.slow
@pytest.mark.parametrize("stopping", [False, True])
def test_a_killed_server_takes_its_tuning_job_up_again(
    tmp_path_factory: pytest.TempPathFactory, stopping: bool
) -> None:
    with local_aws(tmp_path_factory.mktemp("aws")) as local:
        prepare(local)
        tuning = Tuning(local, local.role(*ACTIONS), jobs=4, parallel=2, static={"epochs": "6", "pause": "0.1"})
        wait_until(lambda: [j["TrainingJobStatus"] for j in tuning.jobs()].count("Completed") >= 1)
        before = {job["TrainingJobName"]: job["TunedHyperParameters"] for job in tuning.jobs()}
        if stopping:
            local.sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=tuning.name)
        local.kill()
        local.up()
        described = tuning.ended()
        jobs = {job["TrainingJobName"]: job["TunedHyperParameters"] for job in tuning.jobs()}
        assert before.items() <= jobs.items()
        if stopping:
            assert described["HyperParameterTuningJobStatus"] == "Stopped"
            assert len(jobs) == len(before)
            return
        assert described["HyperParameterTuningJobStatus"] == "Completed"
        assert described["TrainingJobStatusCounters"]["Completed"] == len(jobs) == 4
        # The same seed tries the same, whether or not the server died meanwhile.
        undisturbed = Tuning(local, local.role(*ACTIONS), jobs=4)
        undisturbed.ended()
        assert [j["TunedHyperParameters"] for j in undisturbed.jobs()] == list(jobs.values())
