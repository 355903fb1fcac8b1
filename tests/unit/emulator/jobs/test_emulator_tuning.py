"""Tuning jobs: which requests are refused, and what is told of a job's progress."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import CALLER, IMAGE, make_host, refusal, training_job

from emulator.sagemaker import SageMaker
from emulator.sagemaker.tuning.definition import TuningDefinition
from emulator.sagemaker.tuning.progress import best, counters
from emulator.sagemaker.tuning.search import Trial

LR = {"ContinuousParameterRanges": [{"Name": "lr", "MinValue": "0.001", "MaxValue": "0.1"}]}
SIZES = {"CategoricalParameterRanges": [{"Name": "batch-size", "Values": ["32", "64"]}]}


@pytest.fixture
def sagemaker(tmp_path: Path) -> Iterator[SageMaker]:
    service = SageMaker(make_host(tmp_path))
    yield service
    service.stop()


def config(**members: Any) -> dict[str, Any]:
    return {
        "Strategy": "Bayesian",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 1},
        "ParameterRanges": LR,
        **members,
    }


def definition(**members: Any) -> dict[str, Any]:
    job = training_job()
    del job["TrainingJobName"]
    job["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "loss", "Regex": "loss=(.*)"}]
    return {**job, **members}


def request(
    name: str = "tuning", training: dict[str, Any] | None = None, top: dict[str, Any] | None = None, **members: Any
) -> dict[str, Any]:
    """A request that CreateHyperParameterTuningJob accepts; `members` go into its configuration."""
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": config(**members),
        "TrainingJobDefinition": definition(**(training or {})),
        **(top or {}),
    }


def limits(**members: int) -> dict[str, Any]:
    return {"ResourceLimits": {"MaxParallelTrainingJobs": 1, **members}}


HYPERBAND = {"HyperbandStrategyConfig": {"MinResource": 5, "MaxResource": 5}}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            request(HyperParameterTuningJobObjective={"Type": "Minimize", "MetricName": "x"}),
            "x is not among the Metric",
        ),
        (request(ParameterRanges={}), "At least one hyperparameter"),
        (request(training={"StaticHyperParameters": {"lr": "1"}}), "both a range and a static value: lr"),
        (request(training={"StaticHyperParameters": {"_tuning_objective_metric": "a"}}), "is reserved"),
        (request(training={"StaticHyperParameters": {str(n): "1" for n in range(100)}}), "At most 100 static"),
        (request(**limits()), "MaxNumberOfTrainingJobs is required without"),
        (request(**limits(MaxNumberOfTrainingJobs=2, MaxParallelTrainingJobs=3)), "(3) must not exceed"),
        (request(Strategy="Grid"), "categorical ranges only"),
        (request(Strategy="Grid", ParameterRanges=SIZES, **limits(MaxNumberOfTrainingJobs=3)), "combinations (2)"),
        (request(Strategy="Hyperband"), "Hyperband needs a MaxResource"),
        (request(Strategy="Hyperband", StrategyConfig=HYPERBAND), "MinResource (5) must be less than MaxResource (5)"),
        (request(Strategy="Hyperband", TrainingJobEarlyStoppingType="Auto"), "must be Off with the strategy Hyperband"),
        (request(StrategyConfig=HYPERBAND), "only valid with the strategy Hyperband"),
        (request(top={"Autotune": {"Mode": "Enabled"}}), "has no Autotune"),
        (request(top={"TrainingJobDefinitions": [definition()]}), "several TrainingJobDefinitions"),
        (
            request(TuningJobCompletionCriteria={"ConvergenceDetected": {"CompleteOnConvergence": "Enabled"}}),
            "has no ConvergenceDetected",
        ),
        (request(training={"OutputDataConfig": {"S3OutputPath": "https://example.com"}}), "not a location in S3"),
        ({k: v for k, v in request().items() if k != "TrainingJobDefinition"}, "A TrainingJobDefinition is required"),
    ],
)
def test_a_request_that_cannot_work_is_refused_and_leaves_no_job(
    sagemaker: SageMaker, changed: dict[str, Any], message: str
) -> None:
    error = refusal(lambda: sagemaker.call("CreateHyperParameterTuningJob", changed, CALLER))
    assert error.code == "ValidationException"
    assert message in error.message
    assert sagemaker.call("ListHyperParameterTuningJobs", {}, CALLER)["HyperParameterTuningJobSummaries"] == []
    assert sagemaker.call("ListTrainingJobs", {}, CALLER)["TrainingJobSummaries"] == []


def test_quotas_are_kept(sagemaker: SageMaker) -> None:
    given = request(**limits(MaxNumberOfTrainingJobs=751))
    error = refusal(lambda: sagemaker.call("CreateHyperParameterTuningJob", given, CALLER))
    assert error.code == "ResourceLimitExceeded"


def test_hyperband_reads_its_epochs_from_the_hyperparameters() -> None:
    for name, text in (("epochs", "9"), ("num_epochs", '"9"')):
        rule = TuningDefinition(request(Strategy="Hyperband", training={"StaticHyperParameters": {name: text}}))
        running = Trial("a", {}, None, ended=False, series=(1.0,) * 9)
        assert rule.stopping_rule("name").hopeless([running]) == ["a"]


PARENT, NOBODY = ({"HyperParameterTuningJobName": name} for name in ("a", "nobody"))
WARM: dict[str, Any] = {
    "WarmStartConfig": {"WarmStartType": "IdenticalDataAndAlgorithm", "ParentHyperParameterTuningJobs": [PARENT]}
}
OTHER_IMAGE = {"AlgorithmSpecification": {**definition()["AlgorithmSpecification"], "TrainingImage": f"{IMAGE}1"}}


@pytest.mark.parametrize(
    ("changed", "status", "message"),
    [
        (request(top=WARM), "InProgress", "has not ended yet"),
        (request(top=WARM, training={"StaticHyperParameters": {"x": "1"}}), "Completed", "must be the same as in the"),
        (request(top=WARM, training=OTHER_IMAGE), "Completed", "The training image must be the same"),
        (
            request(top=WARM, HyperParameterTuningJobObjective={"Type": "Maximize", "MetricName": "loss"}),
            "Completed",
            "has another objective",
        ),
    ],
)
def test_a_warm_start_needs_a_parent_that_fits(changed: dict[str, Any], status: str, message: str) -> None:
    parent = {**request("a"), "HyperParameterTuningJobStatus": status}
    error = refusal(lambda: TuningDefinition(changed).check_parent(parent, "IdenticalDataAndAlgorithm"))
    assert message in error.message


def test_a_fitting_parent_is_taken_and_the_same_one_twice_is_not(sagemaker: SageMaker) -> None:
    parent = {**request("a"), "HyperParameterTuningJobStatus": "Stopped"}
    # What was tuned may be static now: only their number has to stay the same.
    for changed in (request(top=WARM), request(top=WARM, ParameterRanges=SIZES)):
        TuningDefinition(changed).check_parent(parent, "IdenticalDataAndAlgorithm")
    sagemaker.call("CreateHyperParameterTuningJob", request("a"), CALLER)
    for parents, message in (([PARENT, PARENT], "must be different ones"), ([NOBODY], "can't find a tuning job")):
        warm = {"WarmStartConfig": {**WARM["WarmStartConfig"], "ParentHyperParameterTuningJobs": parents}}
        error = refusal(lambda warm=warm: sagemaker.call("CreateHyperParameterTuningJob", request(top=warm), CALLER))
        assert message in error.message


def job(name: str, status: str, loss: float | None = None, ended: float = 0.0) -> dict[str, Any]:
    metrics = [] if loss is None else [{"MetricName": "loss", "Value": loss}, {"MetricName": "other", "Value": -9.0}]
    return {
        "TrainingJobName": name,
        "TrainingJobStatus": status,
        "TunedHyperParameters": {"lr": "0.1"},
        "FinalMetricDataList": metrics,
        "TrainingEndTime": ended,
    }


def test_counters_and_the_best_job_follow_from_the_training_jobs() -> None:
    jobs = [
        job("a", "Completed", 0.5),
        job("b", "Stopped", 0.4),
        job("c", "Completed"),
        job("d", "Failed", 0.1),  # what it printed before it failed does not count
        job("e", "InProgress", 0.2),
        job("f", "Stopping", 0.2),
    ]
    defined = TuningDefinition(request())
    assert counters(jobs, defined) == {
        "TrainingJobStatusCounters": {
            "Completed": 2, "InProgress": 2, "RetryableError": 0, "NonRetryableError": 1, "Stopped": 1,
        },
        "ObjectiveStatusCounters": {"Succeeded": 2, "Pending": 2, "Failed": 2},
    }  # fmt: skip
    maximising = TuningDefinition(request(HyperParameterTuningJobObjective={"Type": "Maximize", "MetricName": "loss"}))
    found = [best(jobs, defined), best(jobs, maximising), best([], defined)]
    assert [each and each["TrainingJobName"] for each in found] == ["b", "a", None]
