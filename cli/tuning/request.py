"""The request for a tuning job: the ranges of the settings around the same training definition as `kennel train`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cli.aws import Stage
from cli.errors import UsageError
from cli.training.hyperparameters import encode, refuse_shell_syntax
from cli.training.sagemaker import TrainingRequest, training_definition, training_hyperparameters, upload_source
from cli.tuning.jobs import read_tuning
from infra.tables.tuning import ChoiceRange, NumberRange, TuningSettings
from model.training.arguments import canonical, parse_arguments
from model.training.config import Recipe, TrainingConfig
from model.training.defaults import defaults_for
from model.training.loop.metrics import annealed_metrics, objective
from model.training.loop.stopping import hot_epochs

#: The log has the objective once an epoch and the best one again at the end; and one more, because Hyperband ends a job
#: that has reached its last line, which here still has to save its model.
_LINES_AFTER_EPOCHS = 2

Ranges = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class TuningRequest:
    """What to search (the ranges and limits of `settings`), with which trainings, going on from which searches."""

    training: TrainingRequest
    settings: TuningSettings
    seed: int | None = None
    warm_start: Sequence[str] = ()


def tuning_job_request(stage: Stage, request: TuningRequest, job: str) -> dict[str, Any]:
    """Return what CreateHyperParameterTuningJob takes."""
    if len(request.warm_start) > 5:
        raise UsageError("A tuning job goes on from at most five earlier ones.")
    settings = request.settings
    configured = {canonical(name): str(value) for name, value in stage.settings.training.hyperparameters.items()}
    ranges = parameter_ranges(settings, request.training.hyperparameters, configured)
    searched = _tried(ranges)
    if not searched:
        raise UsageError("Nothing is left to search: --set fixes every hyperparameter that has a range.")
    hyperband = settings.strategy == "hyperband"  # ends hopeless trainings in its own way
    if "epochs" in searched[0] and (hyperband or settings.early_stopping):
        raise UsageError(
            "Hyperband and early stopping compare trainings at the same epoch, so all of them need as many: "
            "fix them with --set epochs=N."
        )
    values = training_hyperparameters(stage, request.training, searched=searched)
    definition = training_definition(stage, request.training, job)
    warm = {"WarmStartConfig": _warm_start(stage, request.warm_start, definition)} if request.warm_start else {}
    # A tuning job has no place for an entry point of its own: SageMaker's toolkit finds the program by these.
    program: dict[str, object] = {
        **values,
        "sagemaker_program": "train.py",
        "sagemaker_submit_directory": upload_source(stage),
        "sagemaker_region": stage.region,
        "sagemaker_container_log_level": 20,
    }
    machines = definition["ResourceConfig"]
    if machines["InstanceCount"] > 1 or machines["InstanceType"].startswith(("ml.g", "ml.p")):
        program["sagemaker_torch_distributed_enabled"] = True  # the toolkit then runs torchrun, a process for each GPU
    static = {name: value for name, value in program.items() if name not in searched[0]}
    recipe = _recipe(static)
    goal = objective(recipe.select)
    if early_stopping := settings.early_stopping and not hyperband:
        # SageMaker compares the n-th values from the first one on.
        definition["AlgorithmSpecification"]["MetricDefinitions"] = annealed_metrics(goal["MetricName"])
    config: dict[str, Any] = {
        "Strategy": settings.strategy.capitalize(),
        "HyperParameterTuningJobObjective": goal,
        "ResourceLimits": {
            "MaxNumberOfTrainingJobs": settings.max_jobs,
            "MaxParallelTrainingJobs": min(settings.parallel_jobs, settings.max_jobs),
        },
        "ParameterRanges": ranges,
        "TrainingJobEarlyStoppingType": "Auto" if early_stopping else "Off",
    }
    if hyperband:
        # After how many lines of the objective it judges a training job for the first time, and ends it.
        resources = {"MinResource": hot_epochs(recipe.epochs), "MaxResource": recipe.epochs + _LINES_AFTER_EPOCHS}
        config["StrategyConfig"] = {"HyperbandStrategyConfig": resources}
    if request.seed is not None:
        config["RandomSeed"] = request.seed
    return {
        "HyperParameterTuningJobName": job,
        "HyperParameterTuningJobConfig": config,
        "TrainingJobDefinition": {**definition, "StaticHyperParameters": encode(static)},
        **warm,
    }


def parameter_ranges(
    settings: TuningSettings, fixed: Mapping[str, str], configured: Mapping[str, str] | None = None
) -> Ranges:
    """Return the settings' ranges as SageMaker takes them, without the hyperparameters that are fixed.

    Learning rates that the settings leave open are those of all networks that the search may train; `configured` are
    the hyperparameters of the settings, which `fixed` ones and searched ones replace.
    """
    low, high = settings.learning_rate_min, settings.learning_rate_max
    if low is None or high is None:
        given: dict[str, tuple[str, ...]] = {name: (value,) for name, value in (configured or {}).items()}
        given |= {canonical(choice.name): choice.values for choice in settings.choices}
        given |= {name: (value,) for name, value in fixed.items()}
        networks = [given.get(name, (getattr(TrainingConfig, name),)) for name in ("architecture", "weights", "mode")]
        lows, highs = zip(*(defaults_for(*each).search_lr for each in itertools.product(*networks)), strict=True)
        low, high = min(lows), max(highs)
    numbers = [NumberRange(name="lr", min=low, max=high, scale="logarithmic"), *settings.numbers]
    choices = [ChoiceRange(name="batch-size", values=tuple(map(str, settings.batch_sizes))), *settings.choices]
    ranges: Ranges = {
        "ContinuousParameterRanges": [],
        "IntegerParameterRanges": [],
        "CategoricalParameterRanges": [],
    }
    for number in numbers:
        kind = "IntegerParameterRanges" if number.integer else "ContinuousParameterRanges"
        least, most = (str(int(end)) if number.integer else repr(end) for end in (number.min, number.max))
        scale = {"ScalingType": number.scale.capitalize()}
        ranges[kind].append({"Name": canonical(number.name), "MinValue": least, "MaxValue": most, **scale})
    for choice in choices:
        for value in choice.values:
            refuse_shell_syntax({canonical(choice.name): value})
        ranges["CategoricalParameterRanges"].append({"Name": canonical(choice.name), "Values": list(choice.values)})
    return {kind: [each for each in found if each["Name"] not in fixed] for kind, found in ranges.items()}


def _tried(ranges: Ranges) -> list[dict[str, str]]:
    """Return values that a search may combine: each end and choice beside the first and the last ones of the others."""
    all_of_them = {
        found["Name"]: found["Values"] if "Values" in found else [found["MinValue"], found["MaxValue"]]
        for kind in ranges.values()
        for found in kind
    }
    ends = [{name: values[end] for name, values in all_of_them.items()} for end in (0, -1)]
    return [{**end, name: value} for end in ends for name, values in all_of_them.items() for value in values]


def _recipe(static: Mapping[str, object]) -> Recipe:
    """Return the recipe of every training job; the program itself knows what it does where nobody says it."""
    given = [f"--{name}={static[name]}" for name in ("epochs", "select") if name in static]
    return parse_arguments(["--data-dir", ".", *given], {}).recipe


def _warm_start(stage: Stage, parents: Sequence[str], definition: Mapping[str, Any]) -> dict[str, Any]:
    """Results count as they are where all parents trained on the same data with the same image, else as a hint."""
    identical = all(
        _trained_on(read_tuning(stage, parent).description.get("TrainingJobDefinition", {})) == _trained_on(definition)
        for parent in parents
    )
    return {
        "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": parent} for parent in parents],
        "WarmStartType": "IdenticalDataAndAlgorithm" if identical else "TransferLearning",
    }


def _trained_on(definition: Mapping[str, Any]) -> tuple[list[str | None], str | None]:
    """Return data and image of a training definition, which somebody else may have written."""
    sources = [channel["DataSource"].get("S3DataSource", {}) for channel in definition.get("InputDataConfig", [])]
    image = definition.get("AlgorithmSpecification", {}).get("TrainingImage")
    return [source.get("S3Uri") for source in sources], image
