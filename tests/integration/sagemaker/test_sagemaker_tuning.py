"""Tuning jobs on the local AWS, through unmodified clients and with real training jobs."""

from __future__ import annotations

from typing import Any

import pytest
from local_aws_harness import refused
from sagemaker_jobs import CHECKPOINTS, Tuning
from sagemaker_local import LocalSageMaker
from waiting import wait_until


def value(job: dict[str, Any]) -> float:
    return job["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]


def test_the_best_of_several_real_training_jobs_is_found(aws: LocalSageMaker, role: str) -> None:
    tags = [{"Key": "team", "Value": "dogs"}]
    tuning = Tuning(aws, role, strategy="Bayesian", jobs=6, parallel=3, Tags=tags)
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
    child = aws.job(best["TrainingJobName"])
    assert child["TuningJobArn"] == described["HyperParameterTuningJobArn"]
    assert child["CheckpointConfig"]["S3Uri"] == CHECKPOINTS
    assert child["HyperParameters"]["_tuning_objective_metric"] == "loss"
    assert child["HyperParameters"]["lr"] == best["TunedHyperParameters"]["lr"]
    assert aws.sagemaker.list_tags(ResourceArn=child["TrainingJobArn"])["Tags"] == tags


def test_stopping_ends_the_running_jobs_and_starts_no_more(aws: LocalSageMaker, role: str) -> None:
    tuning = Tuning(aws, role, jobs=5, static={"epochs": "1000", "pause": "0.1"})
    wait_until(lambda: any(job["TrainingJobStatus"] == "InProgress" for job in tuning.jobs()))
    running = tuning.jobs()[0]["TrainingJobName"]
    wait_until(lambda: aws.job(running)["SecondaryStatus"] == "Training")
    tuning.stop()
    assert tuning.ended()["HyperParameterTuningJobStatus"] == "Stopped"
    assert [job["TrainingJobStatus"] for job in tuning.jobs()] == ["Stopped", "Stopped"]
    refused(tuning.stop, "the tuning job is in status Stopped")


def test_a_search_in_which_nothing_succeeds_is_given_up(aws: LocalSageMaker, role: str) -> None:
    failing, silent = (Tuning(aws, role, jobs=20, parallel=1, static={fault: "1"}) for fault in ("fail", "silent"))
    for tuning, reason in ((failing, "No training job succeeded after 5"), (silent, "No objective metrics found afte")):
        described = tuning.ended()
        assert described["HyperParameterTuningJobStatus"] == "Failed"
        assert described["FailureReason"].startswith(reason)
        assert described["ObjectiveStatusCounters"] == {"Succeeded": 0, "Pending": 0, "Failed": 5}
        assert "BestTrainingJob" not in described
        assert tuning.jobs(SortBy="FinalObjectiveMetricValue") == []
    assert all("this cannot be learned" in job["FailureReason"] for job in failing.jobs())


def test_hyperband_ends_the_bad_ones_early(aws: LocalSageMaker, role: str) -> None:
    # Those above 0.5 end only when somebody ends them. The first job of this seed is better than all of them.
    resources = {"HyperbandStrategyConfig": {"MinResource": 2, "MaxResource": 5}}
    config = {"StrategyConfig": resources, "RandomSeed": 3}
    tuning = Tuning(aws, role, strategy="Hyperband", jobs=5, parallel=1, static={"linger": "0.5"}, config=config)
    described = tuning.ended()
    assert described["HyperParameterTuningJobStatus"] == "Completed"
    jobs = tuning.jobs()
    bad = [job for job in jobs if float(job["TunedHyperParameters"]["lr"]) > 0.5]
    assert {job["TrainingJobStatus"] for job in bad} == {"Stopped"}
    assert all(job["ObjectiveStatus"] == "Succeeded" for job in jobs)
    assert described["BestTrainingJob"]["TrainingJobStatus"] == "Completed"
    assert described["TrainingJobStatusCounters"]["Stopped"] >= len(bad)


def test_a_warm_start_goes_on_from_its_parent(aws: LocalSageMaker, role: str) -> None:
    parent = Tuning(aws, role, strategy="Grid", lr=("0.3", "0.9"), jobs=2)
    parent.ended()

    def warm(kind: str, **options: Any) -> dict[str, Any]:
        parents = [{"HyperParameterTuningJobName": parent.name}]
        start = {"ParentHyperParameterTuningJobs": parents, "WarmStartType": kind}
        return Tuning(aws, role, jobs=1, parallel=1, WarmStartConfig=start, **options).ended()

    identical = warm("IdenticalDataAndAlgorithm", lr=("0.8", "0.9"))
    assert value(identical["BestTrainingJob"]) > 0.5
    transfer = warm("TransferLearning")
    assert transfer["BestTrainingJob"]["TunedHyperParameters"] == {"lr": "0.3"}
