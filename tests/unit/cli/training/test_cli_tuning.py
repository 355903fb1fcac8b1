"""Starting a tuning job: what is sent to SageMaker, what is refused before, and what a person is told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from fake_stage import FakeStage
from rich.console import Console

from cli.aws import ROOT
from cli.errors import NotReadyError, UsageError, WorkFailedError
from cli.local import demo
from cli.training import sagemaker as training
from cli.training.job_names import job_prefix, new_tuning_job, tuning_prefix
from cli.training.sagemaker import TrainingRequest, start_training
from cli.tuning import watching as tuning
from cli.tuning.commands import start_tuning
from cli.tuning.jobs import Tuning, best_hyperparameters, latest_tuning_job
from cli.tuning.plot import draw_tuning
from cli.tuning.request import TuningRequest, parameter_ranges, tuning_job_request
from cli.tuning.watching import tuning_table, watch_tuning
from infra.tuning_settings import ChoiceRange, NumberRange, TuningSettings
from model.training.arguments import parse_arguments


class FakeAws:
    """A bucket with one data set, and a SageMaker that remembers what it was asked."""

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.trained: list[dict[str, Any]] = []
        self.tunings: dict[str, Tuning] = {}
        self.summaries: list[dict[str, Any]] = []

    def put_object(self, **_: Any) -> None: ...

    def list_objects_v2(self, *, Bucket: str, Prefix: str, MaxKeys: int) -> dict[str, Any]:
        return {"Contents": [{"Key": Prefix}]} if Prefix == "datasets/dogs/" else {}

    def create_training_job(self, **request: Any) -> None:
        self.trained.append(request)

    def create_hyper_parameter_tuning_job(self, **request: Any) -> None:
        self.created.append(request)

    def describe_hyper_parameter_tuning_job(self, *, HyperParameterTuningJobName: str) -> dict[str, Any]:
        if HyperParameterTuningJobName not in self.tunings:
            error = {"Error": {"Code": "ResourceNotFound", "Message": "no such job"}}
            raise botocore.exceptions.ClientError(error, "Describe")  # type: ignore[arg-type]
        return self.tunings[HyperParameterTuningJobName].description

    def get_paginator(self, operation: str) -> FakeAws:
        self._listed = operation
        return self

    def paginate(self, **wanted: Any) -> list[dict[str, Any]]:
        if self._listed == "list_hyper_parameter_tuning_jobs":
            status = wanted.get("StatusEquals")
            found = [item for item in self.summaries if status in (None, item.get("HyperParameterTuningJobStatus"))]
            return [{"HyperParameterTuningJobSummaries": found}]
        return [{"TrainingJobSummaries": self.tunings[wanted["HyperParameterTuningJobName"]].jobs}]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(training, "SOURCE_DIR", tmp_path)
    monkeypatch.setattr(tuning, "CHARTS", tmp_path)
    monkeypatch.setattr(tuning, "_POLL_SECONDS", 0.0)
    return FakeStage("local", aws=FakeAws())


def request(hyperparameters: dict[str, str] | None = None, **members: Any) -> TuningRequest:
    return TuningRequest(TrainingRequest("dogs", hyperparameters or {}), **members)


def sent(stage: Any, asked: TuningRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and training definition of a request."""
    made = tuning_job_request(stage, asked, "job")
    return made["HyperParameterTuningJobConfig"], made["TrainingJobDefinition"]


def test_the_search_is_over_learning_rate_and_batch_size_for_the_validation_loss(stage: Any) -> None:
    config, definition = sent(stage, request())
    assert config == {
        "Strategy": "Bayesian",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "valid:loss"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 20, "MaxParallelTrainingJobs": 2},
        "ParameterRanges": {
            "ContinuousParameterRanges": [
                {"Name": "lr", "MinValue": "0.001", "MaxValue": "0.1", "ScalingType": "Logarithmic"}
            ],
            "IntegerParameterRanges": [],
            "CategoricalParameterRanges": [{"Name": "batch-size", "Values": ["32", "64", "128", "256", "512"]}],
        },
        "TrainingJobEarlyStoppingType": "Off",
    }
    assert definition["CheckpointConfig"] == {"S3Uri": "s3://bucket/checkpoints/job/"}
    static = {name: json.loads(value) for name, value in definition["StaticHyperParameters"].items()}
    assert static["sagemaker_program"] == "train.py"
    assert static["model-name"] == "dogs"


def test_a_tuned_job_is_defined_like_a_single_one(stage: Any) -> None:
    _, definition = sent(stage, request())
    start_training(stage, TrainingRequest("dogs"))
    (single,) = stage.aws.trained
    for member in ("RoleArn", "OutputDataConfig", "ResourceConfig", "StoppingCondition"):
        assert definition[member] == single[member]
    # CreateHyperParameterTuningJob has no place for an entry point.
    assert single["AlgorithmSpecification"] == {**definition["AlgorithmSpecification"], **training.ENTRY_POINT}
    assert single["InputDataConfig"][:-1] == definition["InputDataConfig"]
    assert single["CheckpointConfig"] == {"S3Uri": f"s3://bucket/checkpoints/{single['TrainingJobName']}/"}
    static = definition["StaticHyperParameters"].items()
    assert {name: value for name, value in static if not name.startswith("sagemaker_")} == single["HyperParameters"]


@pytest.mark.parametrize(
    ("machines", "torchrun"),
    [({}, None), ({"instances": 2}, "true"), ({"instance_type": "ml.g4dn.12xlarge"}, "true")],
    ids=str,
)
def test_the_toolkit_runs_torchrun_where_there_may_be_several_processes(
    stage: Any, machines: Any, torchrun: Any
) -> None:
    _, definition = sent(stage, TuningRequest(TrainingRequest("dogs", **machines)))
    assert definition["StaticHyperParameters"].get("sagemaker_torch_distributed_enabled") == torchrun


def test_what_is_fixed_is_not_searched_and_what_is_searched_is_not_fixed_by_the_settings(stage: Any) -> None:
    stage.configure("training", hyperparameters={"batch_size": 16, "lr": 0.5, "epochs": 9})
    config, definition = sent(stage, request({"lr": "0.02"}))
    assert config["ParameterRanges"]["ContinuousParameterRanges"] == []
    static = {name: json.loads(value) for name, value in definition["StaticHyperParameters"].items()}
    assert (static["lr"], static["epochs"]) == ("0.02", "9")
    assert "batch-size" not in static
    few, _ = sent(stage, request(max_jobs=1, seed=3))
    assert few["ResourceLimits"] == {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1}
    assert few["RandomSeed"] == 3
    with pytest.raises(UsageError, match="Nothing is left to search"):
        sent(stage, request({"lr": "0.02", "batch-size": "32"}))


def test_the_demo_searches_learning_rates_from_the_programs_default_on_and_keeps_its_batch_size(stage: Any) -> None:
    config, definition = sent(stage, demo.search_request(stage, "dogs"))
    defaults = parse_arguments(["--data-dir", "."], {})
    ((rates,), *others) = config["ParameterRanges"].values()
    assert others == [[], []]
    assert float(rates["MinValue"]) == defaults.recipe.lr
    assert json.loads(definition["StaticHyperParameters"]["batch-size"]) == str(defaults.recipe.batch_size)


def test_the_settings_can_add_ranges() -> None:
    settings = TuningSettings(
        batch_sizes=(8,),
        numbers=(
            NumberRange(name="weight_decay", min=0.01, max=1.0, scale="logarithmic"),
            NumberRange(name="patience", min=1.0, max=9.0, integer=True),
        ),
        choices=(ChoiceRange(name="architecture", values=("resnet9", "resnet18")),),
    )
    ranges = parameter_ranges(settings, {})
    assert ranges["ContinuousParameterRanges"][1:] == [
        {"Name": "weight-decay", "MinValue": "0.01", "MaxValue": "1.0", "ScalingType": "Logarithmic"}
    ]
    assert ranges["IntegerParameterRanges"] == [
        {"Name": "patience", "MinValue": "1", "MaxValue": "9", "ScalingType": "Linear"}
    ]
    assert ranges["CategoricalParameterRanges"] == [
        {"Name": "batch-size", "Values": ["8"]},
        {"Name": "architecture", "Values": ["resnet9", "resnet18"]},
    ]


def test_hyperband_gives_every_job_the_time_to_save_its_model(stage: Any) -> None:
    config, _ = sent(stage, request({"epochs": "18"}, strategy="hyperband"))
    assert config["StrategyConfig"] == {"HyperbandStrategyConfig": {"MinResource": 2, "MaxResource": 20}}
    # Without --set it is the program itself that knows.
    config, _ = sent(stage, request(strategy="hyperband"))
    assert config["StrategyConfig"]["HyperbandStrategyConfig"]["MaxResource"] > 3
    stage.configure("training", tuning=TuningSettings(early_stopping=True))
    assert sent(stage, request(strategy="hyperband"))[0]["TrainingJobEarlyStoppingType"] == "Off"
    assert sent(stage, request())[0]["TrainingJobEarlyStoppingType"] == "Auto"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (request(strategy="hyperband", early_stopping=True), "does not go with --strategy hyperband"),
        (request(max_jobs=2, parallel_jobs=3), "--parallel 3 is more than the 2 training jobs"),
        (request(warm_start=("gone",)), "There is no tuning job 'gone'"),
        (request(warm_start=tuple("abcdef")), "at most five"),
        (TuningRequest(TrainingRequest("cats")), "There is no data set 'cats' in the bucket"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(stage: Any, asked: TuningRequest, message: str) -> None:
    with pytest.raises((NotReadyError, UsageError), match=message):
        start_tuning(stage, asked)
    assert stage.aws.created == []


def test_the_price_is_said_before_the_job_is_started(
    stage: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("the job would begin here")

    monkeypatch.setattr(stage.aws, "create_hyper_parameter_tuning_job", refuse)
    with pytest.raises(RuntimeError):
        start_tuning(stage, TuningRequest(TrainingRequest("dogs", instances=3), max_jobs=10, parallel_jobs=2))
    # Six ml.m5.xlarge at 0.23, at most 10 x 3 of them for the hour that the settings allow a job.
    captured = capsys.readouterr()
    assert captured.err.startswith("Stage local: account 123456789012, region us-east-1")
    first, second = captured.out.splitlines()
    assert first.endswith(": 10 training jobs, at most 2 at once, each on 3 × ml.m5.xlarge.")
    assert second.startswith("Upper bound with 2 at once: 1.380 USD per hour")
    assert second.endswith("The whole search: at most 30.0 instance-hours, 6.90 USD.")
    monkeypatch.setattr(stage.aws, "create_training_job", refuse)
    with pytest.raises(RuntimeError):
        start_training(stage, TrainingRequest("dogs", instances=2))
    assert "2 × ml.m5.xlarge (0.460 USD per hour" in capsys.readouterr().out


def test_spot_capacity_is_a_setting_of_all_trainings(stage: Any) -> None:
    stage.configure("training", spot=True, max_wait_seconds=5000)
    start_training(stage, TrainingRequest("dogs"))
    for made in (sent(stage, request())[1], *stage.aws.trained):
        assert made["EnableManagedSpotTraining"] is True
        assert made["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 5000}


def test_a_warm_start_counts_results_only_where_data_and_image_are_the_same(stage: Any) -> None:
    _, definition = sent(stage, request())
    stage.aws.tunings["a"] = tuning_of(definition=definition)
    other = json.loads(json.dumps(definition))
    other["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] = "s3://bucket/datasets/cats/"
    stage.aws.tunings["b"] = tuning_of(definition=other)

    def kind(*parents: str) -> str:
        made = tuning_job_request(stage, request(warm_start=parents), "job")
        return made["WarmStartConfig"]["WarmStartType"]

    assert kind("a") == "IdenticalDataAndAlgorithm"
    # Somebody else's may have other channels, or several definitions.
    stage.aws.tunings["c"] = tuning_of(definition={**definition, "InputDataConfig": definition["InputDataConfig"] * 2})
    stage.aws.tunings["d"] = tuning_of()
    del stage.aws.tunings["d"].description["TrainingJobDefinition"]
    assert {kind(*parents) for parents in ("b", "c", "d", "ab")} == {"TransferLearning"}


def job(number: int, loss: float | None, lr: str = "0.01", **members: Any) -> dict[str, Any]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    result = {} if loss is None else {"FinalHyperParameterTuningJobObjectiveMetric": {"Value": loss}}
    return {
        "TrainingJobName": f"search-{number:03d}-0a1b2c3d",
        "TrainingJobStatus": "Failed" if loss is None else "Completed",
        "TunedHyperParameters": {"lr": lr, "batch-size": "64"},
        "TrainingStartTime": start,
        "TrainingEndTime": start + timedelta(seconds=number),
        **result,
        **members,
    }


def tuning_of(
    *jobs: dict[str, Any], status: str = "Completed", definition: dict[str, Any] | None = None, **members: Any
) -> Tuning:
    finished = [found for found in jobs if "FinalHyperParameterTuningJobObjectiveMetric" in found]
    best = min(finished, key=lambda found: found["FinalHyperParameterTuningJobObjectiveMetric"]["Value"], default=None)
    static = {"model-name": '"dogs"', "epochs": '"9"', "sagemaker_program": '"train.py"'}
    description = {
        "HyperParameterTuningJobName": "search",
        "HyperParameterTuningJobStatus": status,
        "HyperParameterTuningJobConfig": {
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "valid:loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 9, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": parameter_ranges(TuningSettings(), {}),
        },
        "TrainingJobDefinition": definition or {"StaticHyperParameters": static},
        **({} if best is None else {"BestTrainingJob": best}),
        **members,
    }
    return Tuning(description, list(jobs))


def test_the_best_values_come_with_the_fixed_ones_that_they_belong_to(stage: Any) -> None:
    stage.aws.tunings["search"] = tuning_of(job(1, 0.5), job(2, 0.3, "0.0123456789"))
    stage.aws.summaries = [
        {"HyperParameterTuningJobName": "somebody-kennel-local-tune-else"},
        {"HyperParameterTuningJobName": f"{tuning_prefix(stage)}1"},
    ]
    assert latest_tuning_job(stage) == f"{tuning_prefix(stage)}1"
    expected = {"epochs": "9", "lr": "0.0123456789", "batch-size": "64"}
    assert best_hyperparameters(stage, "search") == expected
    stage.aws.tunings["search"] = tuning_of(job(1, None), status="InProgress")
    with pytest.raises(NotReadyError, match="has no result"):
        best_hyperparameters(stage, "search")
    stage.aws.summaries = []
    with pytest.raises(NotReadyError, match="There is no tuning job in status Completed of this stage"):
        best_hyperparameters(stage, None)


def test_values_of_the_search_that_it_went_on_from_are_not_passed_over_in_silence(
    stage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    of_parent = {**job(7, 0.2), "TuningJobName": "earlier"}
    stage.aws.tunings["search"] = tuning_of(job(1, 0.5), OverallBestTrainingJob=of_parent)
    assert best_hyperparameters(stage, "search")["lr"] == "0.01"
    watch_tuning(stage, "search")
    assert capsys.readouterr().out.count("earlier, which it went on from, has done better: valid:loss 0.2000.") == 2
    own = {**job(1, 0.5), "TuningJobName": "search"}
    stage.aws.tunings["search"] = tuning_of(job(1, 0.5), OverallBestTrainingJob=own)
    watch_tuning(stage, "search")
    assert "has done better" not in capsys.readouterr().out


@pytest.mark.parametrize("minimize", [True, False])
def test_charts_can_be_drawn_of_any_search_with_a_result(tmp_path: Path, minimize: bool) -> None:
    for number, jobs in enumerate(
        ([job(1, 0.5)], [job(1, 0.5), job(2, 0.5)], [job(1, None), job(2, 0.1, "0.1"), job(3, 0.2, "0.001")])
    ):
        found = tuning_of(*jobs)
        objective = found.description["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
        objective["Type"] = "Minimize" if minimize else "Maximize"
        objective["MetricName"] = r"$\frac{1$"  # text, and no formula
        charts = tmp_path / f"{number}.svg", tmp_path / f"{number}-history.svg"
        draw_tuning(found, *charts)
        assert all("</svg>" in chart.read_text() for chart in charts)


def test_the_table_shows_numbers_values_results_and_the_best() -> None:
    output = StringIO()
    shown = tuning_of(job(1, 0.5), job(2, 0.25, "0.012345678"), job(3, None), status="InProgress")
    Console(file=output, width=120).print(tuning_table(shown))
    printed = output.getvalue()
    assert "search: InProgress, 3 of 9 training jobs started, best valid:loss 0.2500" in printed
    assert "│ 002 │ Completed │ 0.01235 │         64 │     0.2500 │       2 │" in printed


def test_a_search_that_was_stopped_at_once_has_nothing_to_show(stage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    stage.aws.tunings["search"] = tuning_of(status="Stopped")
    watch_tuning(stage, "search")
    assert "ended as Stopped before a training job had a result" in capsys.readouterr().out


def test_a_failed_search_shows_the_first_reason(stage: Any) -> None:
    failed = job(1, None, FailureReason="AlgorithmError: no pictures")
    stage.aws.tunings["search"] = tuning_of(failed, status="Failed", FailureReason="No training job succeeded")
    with pytest.raises(WorkFailedError, match="No training job succeeded") as error:
        watch_tuning(stage, "search")
    assert "search-001-0a1b2c3d: AlgorithmError: no pictures" in error.value.hint


def test_ctrl_c_leaves_the_search_running_and_says_how_to_go_on(
    stage: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    stage.aws.tunings["search"] = tuning_of(job(1, 0.5), status="InProgress")
    monkeypatch.setattr(tuning.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        watch_tuning(stage, "search")
    printed = capsys.readouterr().out
    assert "001  Completed, valid:loss 0.5000: lr=0.01, batch-size=64" in printed
    assert "kennel tune status search" in printed
    assert "kennel tune stop search" in printed


def test_the_command_line_starts_without_what_only_some_commands_need() -> None:
    heavy = "{'numpy', 'PIL', 'matplotlib', 'torch', 'boto3', 'optuna'}"
    program = f"import sys, cli.main; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_names_of_tuning_jobs_fit_and_are_told_from_those_of_trainings() -> None:
    make = FakeStage
    for name in ("dev", "local", "prod"):
        assert len(new_tuning_job(make(name))) <= 32
        assert tuning_prefix(make(name)).startswith(job_prefix(make(name)))
    long = make("local")
    object.__setattr__(long, "settings", replace(long.settings, project="a" * 24))
    assert len(new_tuning_job(long)) <= 32
    other = make("local")
    object.__setattr__(other, "settings", replace(other.settings, project="a" * 23))
    assert tuning_prefix(long) != tuning_prefix(other)


def test_outputs_are_encrypted_with_the_key_of_the_data_bucket(stage: Any) -> None:
    _, definition = sent(stage, request())
    assert definition["OutputDataConfig"] == {"S3OutputPath": "s3://bucket/training", "KmsKeyId": "DataKeyArn"}


@pytest.mark.parametrize(("instances", "wanted", "encrypted"), [(1, True, False), (2, True, True), (2, False, False)])
def test_instances_talk_to_each_other_encrypted(stage: Any, instances: int, wanted: bool, encrypted: bool) -> None:
    stage.configure("training", encrypt_traffic=wanted)
    start_training(stage, TrainingRequest("dogs", instances=instances))
    _, definition = sent(stage, TuningRequest(TrainingRequest("dogs", instances=instances)))
    (single,) = stage.aws.trained
    for made in (definition, single):
        assert made["EnableInterContainerTrafficEncryption"] is encrypted


def test_a_training_is_the_first_process_of_its_container(stage: Any) -> None:
    start_training(stage, TrainingRequest("dogs"))
    (single,) = stage.aws.trained
    algorithm = single["AlgorithmSpecification"]
    assert algorithm["ContainerEntrypoint"] == ["/bin/bash", "-c"]
    (line,) = algorithm["ContainerArguments"]
    assert line.endswith("&& exec python /opt/ml/code/container_start.py")
    code = single["InputDataConfig"][-1]
    assert code["ChannelName"] == "code"
    assert re.fullmatch(r"s3://bucket/code/[0-9a-f]{16}/", code["DataSource"]["S3DataSource"]["S3Uri"])
    assert not [name for name in single["HyperParameters"] if name.startswith("sagemaker_")]


def test_a_training_knows_its_time_less_what_passes_before_it(stage: Any) -> None:
    for seconds, known in ((3600, "3300"), (100, "90")):
        stage.configure("training", max_runtime_seconds=seconds)
        start_training(stage, TrainingRequest("dogs"))
        _, definition = sent(stage, request())
        for parameters in (stage.aws.trained[-1]["HyperParameters"], definition["StaticHyperParameters"]):
            assert json.loads(parameters["max-runtime"]) == known


SHELL_SYNTAX = [
    "$HOME", "`id`", "a;b", "a&b", "a|b", "a<b", "a>b", "(a)", '"', "'", "a\nb", "a b", "*", "?", "[a]", "~", "{a,b}",
    "!", "#", "\\", "é", "",
]  # fmt: skip


@pytest.mark.parametrize("value", SHELL_SYNTAX)
def test_a_value_that_a_shell_would_change_starts_nothing(stage: Any, value: str) -> None:
    with pytest.raises(UsageError, match="a shell reads it"):
        start_training(stage, TrainingRequest("dogs", {"weights": value}))
    with pytest.raises(UsageError, match="a shell reads it"):
        start_tuning(stage, request({"weights": value}))
    stage.configure("training", hyperparameters={"weights": value})
    with pytest.raises(UsageError, match="a shell reads it"):
        start_training(stage, TrainingRequest("dogs"))
    choice = ChoiceRange(name="weights", values=("none", value))
    stage.configure("training", hyperparameters={}, tuning=replace(stage.settings.training.tuning, choices=(choice,)))
    with pytest.raises(UsageError, match="a shell reads it"):
        start_tuning(stage, request())
    assert not stage.aws.trained
    assert not stage.aws.created


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"epochz": "3"}, "epochz"),
        ({"epochs": "0"}, "epochs"),
        ({"compile": "true"}, "compile"),
        ({"views": "3"}, "means nothing to --mode finetune"),
    ],
    ids=str,
)
def test_what_the_program_would_not_take_starts_nothing(stage: Any, values: dict[str, str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        start_training(stage, TrainingRequest("dogs", values))
    with pytest.raises(UsageError, match=complaint):
        start_tuning(stage, request(values))
    stage.configure("training", hyperparameters=values)
    with pytest.raises(UsageError, match=complaint):
        start_training(stage, TrainingRequest("dogs"))
    with pytest.raises(UsageError, match=complaint):
        start_tuning(stage, request())
    assert not stage.aws.trained
    assert not stage.aws.created


def test_what_the_job_has_and_this_machine_lacks_is_no_reason_to_refuse(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)  # optuna
    start_training(stage, TrainingRequest("dogs", {"mode": "head", "search": "4"}))
    start_training(stage, TrainingRequest("dogs", {"checkpoint-minutes": "3"}))
    assert len(stage.aws.trained) == 2


def test_fixed_values_may_need_what_is_searched(stage: Any) -> None:
    choice = ChoiceRange(name="mode", values=("head",))
    stage.configure("training", tuning=replace(stage.settings.training.tuning, choices=(choice,)))
    start_tuning(stage, request({"views": "3"}))
    assert len(stage.aws.created) == 1


def test_a_value_that_a_shell_leaves_alone_is_passed_on(stage: Any) -> None:
    values = {"weights": "s3://bucket/a_b-c/1.5.pt", "search-lr": "0.001,0.1", "lr": "1e-05"}
    start_training(stage, TrainingRequest("dogs", values))
    parameters = {name: json.loads(value) for name, value in stage.aws.trained[0]["HyperParameters"].items()}
    assert values.items() <= parameters.items()
