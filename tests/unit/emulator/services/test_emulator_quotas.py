"""Quotas: their table, what can be set, and how the command takes it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from emulator_fixtures import ACCOUNT, CALLER, IMAGE, ROLE, make_host, refusal, training_job
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
DESIRED = {"DesiredWeightsAndCapacities": [{"VariantName": "v", "DesiredInstanceCount": 3}]}


@pytest.mark.parametrize(
    ("operation", "request_", "purpose", "used", "delta"),
    [
        ("CreateTrainingJob", training_job("x", ResourceConfig=LARGE), "training job", 0, 2),
        (
            "CreateHyperParameterTuningJob",
            {
                "HyperParameterTuningJobName": "x",
                "HyperParameterTuningJobConfig": SEARCH,
                "TrainingJobDefinition": TRAINING,
            },
            *("training job", 0, 4),
        ),
        ("CreateTransformJob", {"TransformJobName": "x", **TRANSFORM}, "transform job", 0, 2),
        ("CreateEndpoint", {"EndpointName": "x", "EndpointConfigName": "c"}, "endpoint", 1, 1),
        # Blue/green: the old and the new fleet count.
        ("UpdateEndpoint", {"EndpointName": "e", "EndpointConfigName": "c"}, "endpoint", 1, 1),
        ("UpdateEndpointWeightsAndCapacities", {"EndpointName": "e", **DESIRED}, "endpoint", 1, 2),
    ],
)
def test_instances_beyond_a_quota_are_refused_in_the_words_of_aws(
    tmp_path: Path, operation: str, request_: Payload, purpose: str, used: int, delta: int
) -> None:
    quota = f"ml.m5.large for {purpose} usage"
    store = Store(tmp_path)
    fleet = {"Variants": [{"VariantName": "v", "InstanceCount": 1, "Variant": VARIANT}]}
    for kind, name, record in (
        ("endpoint", "e", {"EndpointName": "e", "Fleet": fleet}),
        ("endpoint-config", "c", {"EndpointConfigName": "c", "ProductionVariants": [VARIANT]}),
    ):
        store.table("sagemaker", kind).put(f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:{kind}/{name}", record)
    sagemaker = SageMaker(dataclasses.replace(make_host(tmp_path), quotas=Quotas({quota: 1})))
    error = refusal(lambda: sagemaker.call(operation, request_, CALLER))
    assert error.code == "ResourceLimitExceeded"
    assert error.message.startswith(
        f"The account-level service limit '{quota}' is 1 Instances, with current utilization of {used} Instances and a "
        f"request delta of {delta} Instances."
    )


def test_all_endpoints_together_and_notebooks_have_quotas(tmp_path: Path) -> None:
    hosts, notebooks = "Number of instances across active endpoints", "ml.t3.medium for notebook instance usage"
    host = dataclasses.replace(make_host(tmp_path), quotas=Quotas({hosts: 0, notebooks: 0}))
    sagemaker = SageMaker(host)
    container = {"Image": IMAGE, "ModelDataUrl": "s3://b/k"}
    sagemaker.call("CreateModel", {"ModelName": "m", "ExecutionRoleArn": ROLE, "PrimaryContainer": container}, CALLER)
    sagemaker.call("CreateEndpointConfig", {"EndpointConfigName": "c", "ProductionVariants": [VARIANT]}, CALLER)
    for operation, request, quota in (
        ("CreateEndpoint", {"EndpointName": "e", "EndpointConfigName": "c"}, hosts),
        (
            "CreateNotebookInstance",
            {"NotebookInstanceName": "n", "InstanceType": "ml.t3.medium", "RoleArn": ROLE},
            notebooks,
        ),
    ):
        error = refusal(lambda operation=operation, request=request: sagemaker.call(operation, request, CALLER))
        assert f"limit '{quota}' is 0 Instances" in error.message
