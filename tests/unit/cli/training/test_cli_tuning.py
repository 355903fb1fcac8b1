"""Starting trainings and tuning jobs: what is sent to SageMaker, what is refused before, what a person is told."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_account import FakeAccount, refusal
from fake_s3 import NoSuchKey
from fake_stage import FakeStage

from cli.aws import ROOT
from cli.errors import NotReadyError, UsageError
from cli.training import sagemaker as training
from cli.training.hyperparameters import parse_hyperparameters
from cli.training.sagemaker import TrainingRequest, start_training
from cli.tuning.commands import start_tuning
from cli.tuning.jobs import Tuning, best_hyperparameters
from cli.tuning.plot import draw_tuning
from cli.tuning.request import TuningRequest, parameter_ranges, tuning_job_request
from infra.tables.tuning import ChoiceRange, NumberRange, TuningSettings
from model.training.loop.metrics import METRIC_DEFINITIONS, annealed_metrics

EPOCHS = (NumberRange(name="epochs", min=5.0, max=50.0, integer=True),)
VIEWS = (NumberRange(name="views", min=1.0, max=9.0, integer=True),)
AUGMENTED = (ChoiceRange(name="augment", values=("standard", "none")),)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stage with one data set and a SageMaker that remembers what it was asked; `tunings` are its tuning jobs.

    `pushed` is what the last push has noted of the data set.
    """
    monkeypatch.setattr(training, "SOURCE_DIR", tmp_path)
    aws, tunings, pushed = FakeAccount(), dict[str, dict[str, Any]](), list[str]()
    aws.exceptions.NoSuchKey = NoSuchKey

    def describe(*, HyperParameterTuningJobName: str) -> dict[str, Any]:
        if HyperParameterTuningJobName not in tunings:
            raise refusal("ResourceNotFound")
        named = {"HyperParameterTuningJobName": HyperParameterTuningJobName, "HyperParameterTuningJobStatus": "Stopped"}
        return {**named, **tunings[HyperParameterTuningJobName]}

    aws.answers |= {
        "put_object": {},
        "get_object": lambda **_: {"Body": io.BytesIO(json.dumps({place: ["", ""] for place in pushed}).encode())},
        "list_objects_v2": lambda Prefix, **_: {"Contents": [Prefix]} if Prefix == "datasets/dogs/" else {},
        "create_training_job": {},
        "create_hyper_parameter_tuning_job": {},
        "describe_hyper_parameter_tuning_job": describe,
        "list_hyper_parameter_tuning_jobs": {},
        "list_training_jobs_for_hyper_parameter_tuning_job": {},
    }
    return FakeStage("local", aws=aws, tunings=tunings, pushed=pushed)


def request(hyperparameters: dict[str, str] | None = None, data_set: str = "dogs", **changes: Any) -> TuningRequest:
    members = {name: changes.pop(name) for name in ("seed", "warm_start") if name in changes}
    return TuningRequest(TrainingRequest(data_set, hyperparameters or {}), TuningSettings(**changes), **members)


def sent(stage: Any, asked: TuningRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    made = tuning_job_request(stage, asked, "job")
    return made["HyperParameterTuningJobConfig"], made["TrainingJobDefinition"]


def trained(stage: Any, asked: TrainingRequest) -> dict[str, Any]:
    start_training(stage, asked)
    made = stage.aws.requests["create_training_job"][-1]
    assert made["Tags"] == stage.tag_list  # by which its costs are counted
    return made


def started(stage: Any) -> int:
    return sum(len(requests) for name, requests in stage.aws.requests.items() if name.startswith(("create_", "put_")))


def static(definition: dict[str, Any]) -> dict[str, Any]:
    return {name: json.loads(value) for name, value in definition["StaticHyperParameters"].items()}


def test_the_search_is_over_learning_rate_and_batch_size_for_the_validation_loss(stage):
    config, definition = sent(stage, request())
    rates = {"Name": "lr", "MinValue": "0.001", "MaxValue": "0.1", "ScalingType": "Logarithmic"}
    assert config == {
        "Strategy": "Bayesian",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "valid:loss"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 20, "MaxParallelTrainingJobs": 2},
        "ParameterRanges": {
            "ContinuousParameterRanges": [rates],
            "IntegerParameterRanges": [],
            "CategoricalParameterRanges": [{"Name": "batch-size", "Values": ["32", "64", "128", "256", "512"]}],
        },
        "TrainingJobEarlyStoppingType": "Off",
    }
    assert static(definition)["sagemaker_program"] == "train.py"


def test_a_tuned_job_is_defined_like_a_single_one(stage):
    _, definition = sent(stage, request())
    single = trained(stage, TrainingRequest("dogs"))
    assert definition["OutputDataConfig"] == {"S3OutputPath": "s3://bucket/training", "KmsKeyId": "DataKeyArn"}
    assert definition["ResourceConfig"]["VolumeKmsKeyId"] == "DataKeyArn"
    for member in ("RoleArn", "OutputDataConfig", "ResourceConfig", "StoppingCondition"):
        assert definition[member] == single[member]
    # CreateHyperParameterTuningJob has no place for an entry point.
    assert single["AlgorithmSpecification"] == {**definition["AlgorithmSpecification"], **training.ENTRY_POINT}
    assert single["InputDataConfig"][:-1] == definition["InputDataConfig"]
    for made, job in ((single, single["TrainingJobName"]), (definition, "job")):
        assert made["CheckpointConfig"] == {"S3Uri": f"s3://bucket/checkpoints/{job}/"}
    given = definition["StaticHyperParameters"].items()
    assert {name: value for name, value in given if not name.startswith("sagemaker_")} == single["HyperParameters"]


@pytest.mark.parametrize("machines", [{}, {"instances": 2}, {"instance_type": "ml.g4dn.12xlarge"}])
def test_the_toolkit_runs_torchrun_where_there_may_be_several_processes(stage, machines):
    _, definition = sent(stage, TuningRequest(TrainingRequest("dogs", **machines), TuningSettings()))
    assert static(definition).get("sagemaker_torch_distributed_enabled", False) == bool(machines)
    assert ("VolumeKmsKeyId" in definition["ResourceConfig"]) == ("instance_type" not in machines)  # disks of its own


def test_what_is_fixed_is_not_searched_and_what_is_searched_is_not_fixed_by_the_settings(stage):
    stage.configure("training", hyperparameters={"batch_size": 16, "lr": 0.5, "epochs": 9})
    config, definition = sent(stage, request({"lr": "0.02"}, max_jobs=1, seed=3))
    assert config["ParameterRanges"]["ContinuousParameterRanges"] == []
    values = static(definition)
    assert (values["lr"], values["epochs"], "batch-size" in values) == ("0.02", "9", False)
    assert config["ResourceLimits"] == {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1}
    assert config["RandomSeed"] == 3


def test_learning_rates_are_those_of_the_network_and_a_person_is_told(stage, capsys):
    stage.configure("training", hyperparameters={"architecture": "resnet50", "weights": "default"})
    start_tuning(stage, request())
    asked = stage.aws.requests["create_hyper_parameter_tuning_job"][-1]
    assert asked["Tags"] == stage.tag_list
    made = asked["HyperParameterTuningJobConfig"]
    (found,) = made["ParameterRanges"]["ContinuousParameterRanges"]
    assert (found["MinValue"], found["MaxValue"]) == ("5e-05", "0.005")
    assert "Searched: lr 5e-05 to 0.005; batch-size 32, 64, 128, 256, 512" in capsys.readouterr().out


def test_hyperband_gives_every_job_the_time_to_save_its_model_and_stops_in_its_own_way(stage):
    config, _ = sent(stage, request({"epochs": "18"}, strategy="hyperband", early_stopping=True))
    assert config["StrategyConfig"] == {"HyperbandStrategyConfig": {"MinResource": 12, "MaxResource": 20}}
    assert config["TrainingJobEarlyStoppingType"] == "Off"
    config, _ = sent(stage, request(strategy="hyperband"))  # the program itself knows its epochs
    assert config["StrategyConfig"]["HyperbandStrategyConfig"]["MaxResource"] > 3


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize(("select", "goal"), [("loss", "loss"), ("accuracy", "accuracy"), ("macro-f1", "macro_f1")])
def test_the_objective_is_what_the_trainings_select_by_and_early_stopping_reads_no_hot_epochs(
    stage, select, goal, early_stopping
):
    config, definition = sent(stage, request({"select": select}, early_stopping=early_stopping))
    expected = {"Type": "Minimize" if goal == "loss" else "Maximize", "MetricName": f"valid:{goal}"}
    assert config["HyperParameterTuningJobObjective"] == expected
    assert config["TrainingJobEarlyStoppingType"] == ("Auto" if early_stopping else "Off")
    read = annealed_metrics(f"valid:{goal}") if early_stopping else METRIC_DEFINITIONS
    assert definition["AlgorithmSpecification"]["MetricDefinitions"] == read


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (request(strategy="hyperband", numbers=EPOCHS), "all of them need as many"),
        (request(early_stopping=True, numbers=EPOCHS), "all of them need as many"),
        (request(warm_start=("gone",)), "There is no tuning job 'gone'"),
        (request(warm_start=tuple("abcdef")), "at most five"),
        (request({"lr": "0.02", "batch-size": "32"}), "Nothing is left to search"),
        (request(data_set="cats"), "There is no data set 'cats' in the bucket"),
        (request(choices=(ChoiceRange(name="weights", values=("none", "$HOME")),)), "a shell reads it"),
        (request(choices=(ChoiceRange(name="augment", values=("none", "trival")),)), "--augment: invalid .*'trival'"),
        (request(numbers=(NumberRange(name="lr_decay", min=0.5, max=3.0),)), "--lr-decay: '3.0' is not a number"),
        (request(numbers=(NumberRange(name="patience", min=1.0, max=9.0),)), "'1.0' is not a whole number"),
        (request({"views": "3"}, choices=(ChoiceRange(name="mode", values=("head", "finetune")),)), "means nothing"),
        (request({"mode": "head"}, numbers=VIEWS, choices=AUGMENTED), "means nothing"),
        (request(choices=(ChoiceRange(name="master_port", values=("1", "2")),)), "A job sets master-port itself"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(stage, asked, message):
    with pytest.raises((NotReadyError, UsageError), match=message):
        start_tuning(stage, asked)
    assert started(stage) == 0


SHELL_SYNTAX = ["$HOME", "`id`", *"""&;|<>()"'*?[]{}~!#\\ \né""", ""]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        *(({"weights": f"a{value}b" if value else ""}, "a shell reads it") for value in SHELL_SYNTAX),
        ({"epochz": "3"}, "unrecognized arguments: --epochz=3; did you mean --epochs?"),
        ({"Epochs": "3"}, r"arguments: --Epochs=3; did you mean --epochs\?"),
        ({"foo": "1"}, "arguments: --foo=1; python -m"),
        ({"label_smoothing": "abc"}, "--label-smoothing: 'abc' is not a number from"),
        ({"weights": "build/resnet18.pt"}, "A job has no file 'build/resnet18.pt'"),
        ({"data_dir": "elsewhere"}, "A job sets data-dir itself"),
        ({"epochs": "0"}, "epochs"),
        ({"compile": "true"}, "compile"),
        ({"views": "3"}, "means nothing to --mode finetune"),
        ({"architecture": "resnet5"}, "unknown architecture 'resnet5'; did you mean resnet"),
        ({"weights": "default"}, "nobody publishes weights of resnet9"),
        ({"architecture": "vit_b_32", "input-size": "100"}, "does not take images of 100 x 100 pixels"),
        ({"train-stages": "99"}, "stages; --train-stages 99 asks for more"),
        *(({"weights": f"s3://{key}"}, "A job may not read") for key in ("bucket", "other", "bucket/training/x.pt")),
        ({"weights": "s3://bucket/weights/x.pt"}, "There is nothing at s3://bucket/weights/x.pt"),
    ],
)
@pytest.mark.parametrize("place", ["command line", "settings"])
def test_hyperparameters_that_do_not_reach_the_program_start_nothing(stage, values, complaint, place):
    if place == "settings":
        stage.configure("training", hyperparameters=values)
        values = {}
    with pytest.raises(UsageError, match=complaint):
        start_training(stage, TrainingRequest("dogs", values))
    with pytest.raises(UsageError, match=complaint):
        start_tuning(stage, request(values))
    assert started(stage) == 0


def test_fixed_values_may_need_what_is_searched_and_names_may_have_underscores(stage):
    start_tuning(stage, request({"views": "3"}, choices=(ChoiceRange(name="mode", values=("head",)),)))
    assert started(stage) == 2  # the program, and the job
    config, definition = sent(stage, request({"batch_size": "16"}))
    assert (config["ParameterRanges"]["CategoricalParameterRanges"], static(definition)["batch-size"]) == ([], "16")
    with pytest.raises(UsageError, match="--set gives batch-size twice"):
        parse_hyperparameters(["batch-size=3", "batch_size=4"])


TWO_CLASSES = [f"{split}/{label}/{number}.jpg" for split in ("train", "valid") for label in "ab" for number in "1234"]


@pytest.mark.parametrize(
    ("pushed", "instances", "given", "complaint"),
    [
        (TWO_CLASSES, 4, {}, ""),
        (TWO_CLASSES, 5, {}, "Batches of 8 images are for at most 4 workers, and these are 5"),
        (TWO_CLASSES, 1, {"processes-per-host": "5"}, "for at most 4 workers, and these are 5"),
        (TWO_CLASSES, 9, {"mode": "head", "batch-size": "2"}, ""),  # one instance trains the head
        (TWO_CLASSES[:8], 1, {}, "has no images in valid/"),  # a push that was killed
        ([*TWO_CLASSES, "valid/c/1.jpg"], 1, {}, "valid/ has classes that train/ lacks: 'c'"),
        (["train/a/1.jpg", "valid/a/2.jpg"], 1, {}, "one class only"),
        (["1.jpg"], 1, {}, ""),  # not what a push notes
        ([], 17, {"batch-size": "32"}, "Batches of 32 images are for at most 16 workers"),
    ],
)
def test_a_data_set_that_will_not_do_starts_nothing(stage, pushed, instances, given, complaint):
    stage.pushed += pushed
    asked = TrainingRequest("dogs", given, instances=instances)
    for start, request in ((start_training, asked), (start_tuning, TuningRequest(asked, TuningSettings()))):
        with pytest.raises((NotReadyError, UsageError), match=complaint) if complaint else contextlib.nullcontext():
            start(stage, request)
    assert bool(started(stage)) != bool(complaint)


def test_a_training_knows_its_time_less_what_passes_before_it(stage):
    for seconds, known in ((3600, "3300"), (100, "90")):
        stage.configure("training", max_runtime_seconds=seconds)
        assert static(sent(stage, request())[1])["max-runtime"] == known


def test_spot_capacity_is_a_setting_of_all_trainings(stage):
    stage.configure("training", spot=True, max_wait_seconds=5000)
    for made in (sent(stage, request())[1], trained(stage, TrainingRequest("dogs"))):
        assert made["EnableManagedSpotTraining"] is True
        assert made["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 5000}


@pytest.mark.parametrize(("instances", "wanted", "encrypted"), [(1, True, False), (2, True, True), (2, False, False)])
def test_instances_talk_to_each_other_encrypted(stage, instances, wanted, encrypted):
    stage.configure("training", encrypt_traffic=wanted)
    made = trained(stage, TrainingRequest("dogs", instances=instances))
    assert made["EnableInterContainerTrafficEncryption"] is encrypted


def test_a_warm_start_counts_results_only_where_data_and_image_are_the_same(stage):
    _, definition = sent(stage, request())
    other = copy.deepcopy(definition)
    other["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] = "s3://bucket/datasets/cats/"
    # Somebody else's may have other channels, or several definitions.
    channels = {**definition, "InputDataConfig": definition["InputDataConfig"] * 2}
    for name, trained_on in {"a": definition, "b": other, "c": channels, "d": {}}.items():
        stage.tunings[name] = {"TrainingJobDefinition": trained_on}
    for parents in ("a", "b", "c", "d", "ab"):
        made = tuning_job_request(stage, request(warm_start=parents), "job")
        kind = "IdenticalDataAndAlgorithm" if parents == "a" else "TransferLearning"
        assert made["WarmStartConfig"]["WarmStartType"] == kind


def test_the_best_values_come_with_the_fixed_ones_that_they_belong_to(stage):
    stage.tunings["search"] = {
        "TrainingJobDefinition": {"StaticHyperParameters": {"model-name": '"dogs"', "epochs": '"9"'}},
        "BestTrainingJob": {
            "TunedHyperParameters": {"lr": "0.0123456789", "batch-size": "64"},
            "FinalHyperParameterTuningJobObjectiveMetric": {"Value": 0.3},
        },
    }
    assert best_hyperparameters(stage, "search") == {"epochs": "9", "lr": "0.0123456789", "batch-size": "64"}


def test_a_search_without_a_result_has_no_best_values(stage):
    stage.tunings["search"] = {"BestTrainingJob": {"TunedHyperParameters": {}}}
    with pytest.raises(NotReadyError, match="has no result"):
        best_hyperparameters(stage, "search")
    with pytest.raises(NotReadyError, match="There is no tuning job in status Completed of this stage"):
        best_hyperparameters(stage, None)


@pytest.mark.parametrize(
    "searched", [{"ParameterRanges": parameter_ranges(TuningSettings(), {})}, {}], ids=["", "none"]
)
@pytest.mark.parametrize("losses", [[0.5], [0.5, 0.5], [None, 0.1, 0.2]], ids=str)
def test_charts_can_be_drawn_of_any_search_with_a_result(tmp_path, losses, searched):
    jobs = [{"TunedHyperParameters": {"lr": f"0.0{number}1", "batch-size": "64"}} for number in range(len(losses))]
    for job, loss in zip(jobs, losses, strict=True):
        if loss is not None:
            job["FinalHyperParameterTuningJobObjectiveMetric"] = {"Value": loss}
    # Metric and name are text, and no formula.
    goal = {"Type": "Minimize", "MetricName": r"$\frac{1$"}
    config = {"HyperParameterTuningJobObjective": goal, **searched}
    description = {"HyperParameterTuningJobName": "search", "HyperParameterTuningJobConfig": config}
    charts = tmp_path / "tried.svg", tmp_path / "history.svg"
    draw_tuning(Tuning(description, jobs), *charts)
    assert all("</svg>" in chart.read_text() for chart in charts)


def test_the_command_line_starts_without_what_only_some_commands_need():
    heavy = "{'numpy', 'PIL', 'matplotlib', 'torch', 'boto3', 'optuna', 'cloudsplaining', 'policy_sentry'}"
    program = f"import sys, cli.main; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
