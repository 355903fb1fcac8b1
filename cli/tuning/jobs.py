"""What SageMaker says of this stage's tuning jobs: the newest one, how far it has come, its best values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cli.aws import Stage
from cli.console import console
from cli.errors import NotReadyError, aws_errors
from cli.training.hyperparameters import chosen
from cli.training.job_names import list_jobs
from infra.job_names import tuning_prefix

ENDED = ("Completed", "Failed", "Stopped")


@dataclass(frozen=True)
class Tuning:
    """A tuning job and its training jobs, as SageMaker describes them."""

    description: dict[str, Any]
    jobs: list[dict[str, Any]]  # in the order in which they were started

    @property
    def name(self) -> str:
        """The tuning job's name."""
        return str(self.description["HyperParameterTuningJobName"])

    @property
    def status(self) -> str:
        """InProgress, Stopping, Completed, Failed or Stopped."""
        return str(self.description["HyperParameterTuningJobStatus"])

    @property
    def config(self) -> dict[str, Any]:
        """Objective, limits and ranges."""
        return dict(self.description["HyperParameterTuningJobConfig"])

    @property
    def metric(self) -> str:
        """Name of the objective metric."""
        return str(self.config["HyperParameterTuningJobObjective"]["MetricName"])

    @property
    def best(self) -> dict[str, Any] | None:
        """The training job with the best objective so far; None where there is none, or it has none yet."""
        found = self.description.get("BestTrainingJob")
        return found if found is not None and objective(found) is not None else None

    @property
    def static(self) -> dict[str, str]:
        """The hyperparameters that are the same for all training jobs, as SageMaker has them."""
        return dict(self.description.get("TrainingJobDefinition", {}).get("StaticHyperParameters", {}))


def objective(job: dict[str, Any]) -> float | None:
    """Return the objective of a training job's summary; None while it has none."""
    metric = job.get("FinalHyperParameterTuningJobObjectiveMetric")
    return None if metric is None else float(metric["Value"])


def read_tuning(stage: Stage, job: str) -> Tuning:
    """Ask SageMaker about a tuning job; raise NotReadyError when there is none of that name."""
    named = {"HyperParameterTuningJobName": job}
    with aws_errors(missing=NotReadyError(f"There is no tuning job {job!r}.", "The newest one: kennel tune status")):
        description = stage.client("sagemaker").describe_hyper_parameter_tuning_job(**named)
    listing = "list_training_jobs_for_hyper_parameter_tuning_job"
    order = {"SortBy": "Name", "SortOrder": "Ascending"}
    return Tuning(description, list(stage.listed("sagemaker", listing, "TrainingJobSummaries", **named, **order)))


def latest_tuning_job(stage: Stage, status: str | None = None) -> str:
    """Return the name of this stage's newest tuning job, or of the newest with this status."""
    for summary in list_jobs(stage, "hyper_parameter_tuning", tuning_prefix(stage.settings), status):
        return str(summary["HyperParameterTuningJobName"])
    what = f"tuning job in status {status}" if status else "tuning job"
    raise NotReadyError(f"There is no {what} of this stage.", "Start one: kennel tune")


def best_hyperparameters(stage: Stage, job: str | None) -> dict[str, str]:
    """Return the best values of a tuning job, by default the newest completed one, with its fixed ones."""
    tuning = read_tuning(stage, job or latest_tuning_job(stage, "Completed"))
    if tuning.best is None:
        raise NotReadyError(
            f"The tuning job {tuning.name} has no result (status {tuning.status}).",
            f"What it is doing: kennel tune status {tuning.name}",
        )
    values = {**chosen(tuning.static), **chosen(tuning.best["TunedHyperParameters"])}
    console.print(f"The best values of {tuning.name}: {assignments(values)}")
    return values


def assignments(values: dict[str, str]) -> str:
    """Return values as a person reads them."""
    return ", ".join(f"{name}={value}" for name, value in values.items())
