"""Quotas: how the command takes them, and requests beyond them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from emulator_fixtures import ACCOUNT, CALLER, make_host, refusal, training_job, tuning_job
from examples import changed, examples
from typer.testing import CliRunner

from cli.local.commands import app
from emulator.platform.awsapi import Payload
from emulator.platform.store import Store
from emulator.quotas.service import CONCURRENT_EXECUTIONS, SERVERLESS_CONCURRENCY, Quotas, ServiceQuotas
from emulator.sagemaker import SageMaker


@pytest.mark.parametrize(
    ("option", "given", "status", "message"),
    [
        ("--quota", "nonsense", 2, "is not NAME=VALUE"),
        ("--quota", "nonsense=1", 3, 'There is no quota named "nonsense". There are: "'),
        ("--quota", "Concurrent executions=0", 3, "must be 1 or more, not 0"),
        ("--access-log-delay", "inf", 2, "access_log_seconds is inf: Input should be a finite number"),
        ("--interrupt-spot-after", "inf", 2, "after_seconds is inf: Input should be a finite number"),
    ],
)
def test_the_command_refuses_what_is_no_condition(
    tmp_path: Path, option: str, given: str, status: int, message: str
) -> None:
    answer = CliRunner().invoke(app, ["up", "--state-dir", str(tmp_path), option, given])
    assert getattr(answer.exception, "exit_code", None) == status
    assert message in str(answer.exception)


def test_a_list_of_quotas_can_be_one_quota() -> None:
    service, one = ServiceQuotas(ACCOUNT, Quotas()), {"ServiceCode": "lambda", "QuotaCode": "L-B99A9384"}
    [found] = service.call("ListServiceQuotas", one, CALLER)["Quotas"]
    assert (found, found["QuotaName"]) == (service.call("GetServiceQuota", one, CALLER)["Quota"], CONCURRENT_EXECUTIONS)


VARIANT = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
REQUESTS = {"CreateTrainingJob": training_job(), "CreateHyperParameterTuningJob": tuning_job()}


@pytest.mark.parametrize(("operation", "change", "quota", "used", "delta"), examples(__file__, "beyond"))
def test_instances_beyond_a_quota_are_refused_in_the_words_of_aws(
    tmp_path: Path, operation: str, change: Payload, quota: str, used: int, delta: int
) -> None:
    store = Store(tmp_path)
    now = then = VARIANT
    if quota == SERVERLESS_CONCURRENCY:
        now, then = (
            {"VariantName": "v", "ServerlessConfig": {"MaxConcurrency": most}} for most in (used, used + delta)
        )
    fleet = {"Variants": [{"VariantName": "v", "InstanceCount": 1, "Variant": now}]}
    for kind, name, record in (
        ("endpoint", "e", {"EndpointName": "e", "Fleet": fleet}),
        ("endpoint-config", "c", {"EndpointConfigName": "c", "ProductionVariants": [then]}),
    ):
        store.table("sagemaker", kind).put(f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:{kind}/{name}", record)
    sagemaker = SageMaker(dataclasses.replace(make_host(tmp_path), quotas=Quotas({quota: used})))
    request = changed(REQUESTS.get(operation, {}), change)
    error = refusal(lambda: sagemaker.call(operation, request, CALLER))
    assert error.code == "ResourceLimitExceeded"
    unit = "" if quota == SERVERLESS_CONCURRENCY else " Instances"
    assert error.message.startswith(
        f"The account-level service limit '{quota}' is {used}{unit}, with current utilization of {used}{unit} and a "
        f"request delta of {delta}{unit}."
    )
