"""SageMaker's own SDK, version 3, runs the bundle of the training program on the local AWS, unchanged."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from typing import Any

import pytest
from emulator_fixtures import untar
from sagemaker_local import BUCKET, LocalSageMaker
from training_fixtures import write_data_set

from cli.training.sagemaker import SOURCE_DIR, source_bundle
from model.training.loop.metrics import METRIC_DEFINITIONS

pytestmark = pytest.mark.slow

# What somebody writes who follows the SDK's documentation. In a process of its own: the import takes seconds, and the
# SDK finds credentials and addresses as a user's program does, in the environment.
PROGRAM = """
import json, sys
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.parameter import CategoricalParameter, ContinuousParameter
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, OutputDataConfig, SourceCode, StoppingCondition
from sagemaker.train.distributed import Torchrun
from sagemaker.train.tuner import HyperparameterTuner

bucket, role, source_dir, metric_definitions = sys.argv[1:]
session = Session(default_bucket=bucket)
data = InputData(channel_name="training", data_source=f"s3://{bucket}/datasets/shapes")


def trainer(name, instances, distributed=None):
    return ModelTrainer(
        sagemaker_session=session,
        role=role,
        training_image="763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:2.13-cpu-amzn2023-sagemaker",
        base_job_name=name,  # the SDK adds the time, in whole seconds
        source_code=SourceCode(source_dir=source_dir, entry_script="train.py", requirements="requirements.txt"),
        distributed=distributed,
        compute=Compute(instance_type="ml.m5.xlarge", instance_count=instances, volume_size_in_gb=30),
        hyperparameters={"epochs": 1, "input-size": 32, "precision": "fp32"},
        output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/training"),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=600),
    )


jobs = {}
for each in (trainer("basic", 2), trainer("torchrun", 2, Torchrun())):
    each.train(input_data_config=[data], wait=False, logs=False)
    jobs[each.base_job_name] = each._latest_training_job
tuner = HyperparameterTuner(
    trainer("tuned", 1),
    objective_metric_name="valid:loss",
    objective_type="Minimize",
    metric_definitions=json.loads(metric_definitions),
    hyperparameter_ranges={
        "lr": ContinuousParameter(0.001, 0.1, scaling_type="Logarithmic"),
        "batch-size": CategoricalParameter([16, 32]),
    },
    max_jobs=2,
    max_parallel_jobs=2,
    base_tuning_job_name="tuning",
)
tuner.tune(inputs=[data], wait=False)
for job in [*jobs.values(), tuner.latest_tuning_job]:
    job.wait(poll=1)
names = {name: job.training_job_name for name, job in jobs.items()}
names |= {"tuning": tuner.latest_tuning_job.hyper_parameter_tuning_job_name, "best": tuner.best_training_job()}
print(json.dumps(names))
"""


@pytest.fixture(scope="module")
def started(aws: LocalSageMaker, role: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The names of the completed jobs, by what they are to show."""
    aws.upload(write_data_set(tmp_path_factory.mktemp("shapes")), "datasets/shapes")
    source = tmp_path_factory.mktemp("source")
    with tarfile.open(fileobj=io.BytesIO(source_bundle(SOURCE_DIR))) as bundle:
        bundle.extractall(source, filter="data")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SAGEMAKER_"))}
    # The SDK wants of a role what only jobs in a VPC need; with this documented variable it takes a scoped one.
    own = {"HOME": str(tmp_path_factory.mktemp("home")), "SAGEMAKER_VALIDATE_ROLE": "false"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, BUCKET, role, str(source), json.dumps(METRIC_DEFINITIONS)],
        env={**inherited, **aws.environment, **own},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    names: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return names


def completed(aws: LocalSageMaker, job: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A completed training job's description and its metrics.json, once its model is found to be ours."""
    described = aws.job(job)
    assert described["TrainingJobStatus"] == "Completed"
    bucket, key = described["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").split("/", 1)
    files = untar(aws.s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    assert json.loads(files["model.json"])["training_job"] == job
    return described, json.loads(files["metrics.json"])


@pytest.mark.parametrize("driver", ["basic", "torchrun"])
def test_model_trainer_trains_the_programs_folder_on_two_instances(
    aws: LocalSageMaker, started: dict[str, str], driver: str
) -> None:
    """The workers are started by train.py itself with the SDK's basic driver, and by the SDK with its torchrun."""
    described, metrics = completed(aws, started[driver])
    assert described["AlgorithmSpecification"]["ContainerEntrypoint"], "it was to be the SDK's own entry point"
    assert described["ResourceConfig"]["InstanceCount"] == metrics["workers"] == 2


def test_hyperparameter_tuner_finds_the_best_values_for_the_programs_folder(
    aws: LocalSageMaker, started: dict[str, str]
) -> None:
    name = {"HyperParameterTuningJobName": started["tuning"]}
    tuning = aws.sagemaker.describe_hyper_parameter_tuning_job(**name)
    assert tuning["HyperParameterTuningJobStatus"] == "Completed"
    losses: dict[str, float] = {}
    for job in aws.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(**name)["TrainingJobSummaries"]:
        _, metrics = completed(aws, job["TrainingJobName"])
        losses[job["TrainingJobName"]] = job["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
        assert losses[job["TrainingJobName"]] == pytest.approx(metrics["epochs"][0]["valid_loss"], abs=6e-5)
        tuned, arguments = job["TunedHyperParameters"], metrics["arguments"]
        assert (arguments["lr"], arguments["batch_size"]) == (float(tuned["lr"]), int(tuned["batch-size"]))
    assert len(losses) == 2
    assert started["best"] == min(losses, key=losses.__getitem__) == tuning["BestTrainingJob"]["TrainingJobName"]
