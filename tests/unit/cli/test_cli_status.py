"""`kennel status`: what is deployed and running, and nothing that was not read."""

from __future__ import annotations

import pytest
from sound_stage import ENDPOINT, STACK, nothing, sound_account, sound_stage

from cli import main
from cli.operating.status import read_status


def test_the_facts_are_those_that_aws_gives():
    aws = sound_account()
    found = read_status(sound_stage(aws))
    assert found["stacks"] == dict.fromkeys(("storage", "training", "inference"), "UPDATE_COMPLETE")
    assert list(found["endpoint"].values()) == [ENDPOINT, "InService", "ml.m5.large", 1, 1]
    assert found["model"] == {"version": 3, "status": "Approved", "digest": "sha256:" + 12 * "1"}
    assert found["traffic"]["requests_per_s"] == pytest.approx(10000 / 300) and found["traffic"]["worst_p95_ms"] == 6.0
    assert found["function"]["version"] == "4" and found["function"]["warm"] == 1
    assert len(aws.requests["get_metric_data"]) == 1


def test_a_serverless_endpoint_has_memory_and_concurrency():
    aws = sound_account()
    (variant,) = aws.endpoints[ENDPOINT]["ProductionVariants"]
    del variant["InstanceType"]
    variant["ServerlessConfig"] = {"MemorySizeInMB": 2048, "MaxConcurrency": 5}
    facts = read_status(sound_stage(aws))["endpoint"]
    assert (facts["memory_mb"], facts["max_concurrency"]) == (2048, 5)


@pytest.mark.parametrize(
    ("section", "operation", "reason"),
    [
        ("traffic", "get_metric_data", "AWS refused"),
        ("cost", "list_provisioned_concurrency_configs", "AWS refused"),
        ("endpoint", None, f"there is no endpoint {ENDPOINT}"),
    ],
)
def test_what_cannot_be_read_says_why_and_is_never_a_figure(section, operation, reason):
    aws = sound_account()
    aws.refused.add(operation)
    if operation is None:
        aws.answers["describe_endpoint"] = nothing
    found = read_status(sound_stage(aws))
    assert found[section].startswith("not known: ") and reason in found[section]
    assert isinstance(found["stacks"], dict)


def test_without_values_there_is_no_latency():
    aws = sound_account()
    aws.answers["get_metric_data"] = lambda MetricDataQueries, **_: {
        "MetricDataResults": [{"Id": each["Id"], "Values": []} for each in MetricDataQueries]
    }
    traffic = read_status(sound_stage(aws))["traffic"]
    assert traffic["worst_p95_ms"] is None and traffic["requests_per_s"] == 0


@pytest.mark.parametrize("deployed", [True, False])
def test_a_screen_and_exit_code_3_where_nothing_answers(kennel, monkeypatch, deployed):
    aws = sound_account()
    if not deployed:
        del aws.stacks[STACK]
    monkeypatch.setattr(main, "Stage", lambda *_: sound_stage(aws))
    code, output = kennel("status")
    assert code == (0 if deployed else 3)
    assert f"inference {'UPDATE_COMPLETE' if deployed else 'not deployed'}" in " ".join(output.split())
    assert len(output.splitlines()) < 24
