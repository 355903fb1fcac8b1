"""Quotas: their table, what can be set, and how the command takes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from emulator_fixtures import ACCOUNT, CALLER, ROLE, make_host, refusal, training_job
from typer.testing import CliRunner

from cli.local.commands import app
from emulator.platform.awsapi import Payload
from emulator.platform.store import Store
from emulator.quotas.service import QuotaError, Quotas, parse
from emulator.sagemaker import SageMaker


def test_every_quota_has_a_name_and_a_code_of_its_own() -> None:
    quotas = [quota for service in ("lambda", "codebuild", "sagemaker") for quota in Quotas().of(service)]
    assert len({quota.code for quota in quotas}) == len({quota.name for quota in quotas}) == len(quotas)


def test_what_is_given_holds_and_the_rest_is_as_it_was() -> None:
    quotas = Quotas({"ml.m5.large for endpoint usage": 0})
    limits = [quotas.limit(f"{kind} for endpoint usage") for kind in ("ml.m5.large", "ml.m5.xlarge", "ml.x99.large")]
    assert limits == [0, 20, 20]


def test_a_name_may_hold_anything_but_the_value_is_a_whole_number() -> None:
    assert parse("a=b=3") == ("a=b", 3)
    for text in ("a", "a=", "a=-1", "a=1.5"):
        with pytest.raises(QuotaError, match="is not NAME=VALUE"):
            parse(text)


@pytest.mark.parametrize(
    ("quota", "status", "message"),
    [
        ("nonsense", 2, "is not NAME=VALUE"),
        ("nonsense=1", 3, 'There is no quota named "nonsense". There are: "'),
        ("Concurrent executions=0", 3, "must be 1 or more, not 0"),
    ],
)
def test_the_command_refuses_a_quota_that_is_none(tmp_path: Path, quota: str, status: int, message: str) -> None:
    answer = CliRunner().invoke(app, ["up", "--state-dir", str(tmp_path), "--quota", quota])
    assert getattr(answer.exception, "exit_code", None) == status
    assert message in str(answer.exception)


LARGE = {"InstanceType": "ml.m5.large", "InstanceCount": 2}
VARIANT = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
TRAINING = {name: value for name, value in training_job(ResourceConfig=LARGE).items() if name != "TrainingJobName"}
SEARCH = {
    "Strategy": "Random",
    "ResourceLimits": {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 2},
    "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
}
TRANSFORM = {
    "ModelName": "m",
    "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/in"}}},
    "TransformOutput": {"S3OutputPath": "s3://b/out"},
    "TransformResources": LARGE,
}
DESIRED = {"EndpointName": "e", "DesiredWeightsAndCapacities": [{"VariantName": "v", "DesiredInstanceCount": 3}]}


TUNING = {"HyperParameterTuningJobConfig": SEARCH, "TrainingJobDefinition": TRAINING}
NOTEBOOK = {"NotebookInstanceName": "x", "InstanceType": "ml.t3.medium", "RoleArn": ROLE}
NEW, EXISTING = ({"EndpointName": name, "EndpointConfigName": "c"} for name in "xe")


@pytest.mark.parametrize(
    ("operation", "request_", "quota", "used", "delta"),
    [
        ("CreateTrainingJob", {"TrainingJobName": "x", **TRAINING}, "ml.m5.large for training job usage", 0, 2),
        (
            "CreateHyperParameterTuningJob",
            {"HyperParameterTuningJobName": "x", **TUNING},
            *("ml.m5.large for training job usage", 0, 4),
        ),
        ("CreateTransformJob", {"TransformJobName": "x", **TRANSFORM}, "ml.m5.large for transform job usage", 0, 2),
        ("CreateNotebookInstance", NOTEBOOK, "ml.t3.medium for notebook instance usage", 0, 1),
        ("CreateEndpoint", NEW, "ml.m5.large for endpoint usage", 1, 1),
        ("CreateEndpoint", NEW, "Number of instances across active endpoints", 1, 1),
        # Blue/green: the old and the new fleet count.
        ("UpdateEndpoint", EXISTING, "ml.m5.large for endpoint usage", 1, 1),
        (
            "UpdateEndpointWeightsAndCapacities",
            DESIRED,
            "ml.m5.large for endpoint usage",
            1,
            2,
        ),
    ],
)
def test_instances_beyond_a_quota_are_refused_in_the_words_of_aws(
    tmp_path: Path, operation: str, request_: Payload, quota: str, used: int, delta: int
) -> None:
    store = Store(tmp_path)
    fleet = {"Variants": [{"VariantName": "v", "InstanceCount": 1, "Variant": VARIANT}]}
    for kind, name, record in (
        ("endpoint", "e", {"EndpointName": "e", "Fleet": fleet}),
        ("endpoint-config", "c", {"EndpointConfigName": "c", "ProductionVariants": [VARIANT]}),
    ):
        store.table("sagemaker", kind).put(f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:{kind}/{name}", record)
    sagemaker = SageMaker(dataclasses.replace(make_host(tmp_path), quotas=Quotas({quota: used})))
    error = refusal(lambda: sagemaker.call(operation, request_, CALLER))
    assert error.code == "ResourceLimitExceeded"
    assert error.message.startswith(
        f"The account-level service limit '{quota}' is {used} Instances, with current utilization of {used} Instances "
        f"and a request delta of {delta} Instances."
    )
