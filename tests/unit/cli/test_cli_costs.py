"""What a stage costs: by its settings, as it runs, and the difference."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fake_account import FakeAccount
from fake_stage import FakeStage
from hypothesis import given
from hypothesis import strategies as st

from cli.costs.command import compare
from cli.costs.planned import FUNCTION_METRICS, STACKS, million_images, planned_costs
from cli.costs.table import Cost, Total, print_costs
from infra import settings
from infra.prices import endpoint_usd_per_hour
from infra.tables.serving import EndpointScalingSettings, InstanceSchedule, ServerlessSettings, ServingSettings
from lambda_fn.errors import ServiceError

DEV = settings.load("dev")
INSTANCE = endpoint_usd_per_hour("ml.m5.large")
COUNTS = st.integers(1, 100)
COSTS = st.lists(st.builds(Cost, st.sampled_from(STACKS), st.text(), st.none() | st.floats(0, 99), st.just(0.0)))


def scaled(low: int, high: int, instance_type: str = "ml.m5.large", **scaling) -> settings.Settings:
    limits = EndpointScalingSettings(min_instances=low, max_instances=high, max_rps_per_instance=20, **scaling)
    serving = ServingSettings(instance_type=instance_type, initial_instances=low, scaling=limits)
    return replace(DEV, serving=serving)


@given(COSTS)
def test_a_sum_has_every_price_and_says_when_one_is_unknown(costs):
    total, known = Total.of(costs), [cost.rest for cost in costs if cost.rest is not None]
    assert total.usd == pytest.approx(sum(known)) and total.complete == (len(known) == len(costs))
    assert str(total).startswith("at least") == (len(known) < len(costs))


@given(COUNTS, COUNTS, COUNTS)
def test_full_load_costs_no_less_than_rest_and_more_instances_no_less_than_fewer(low, more, most):
    fewer, larger = (planned_costs(scaled(low, low + high)) for high in (more, more + most))
    assert all(cost.rest <= cost.most for cost in fewer)
    assert Total.of(fewer, "most").usd < Total.of(larger, "most").usd
    assert Total.of(fewer).usd == Total.of(larger).usd


NIGHT = InstanceSchedule(name="night", cron="0 22 * * ? *", timezone="UTC", min_instances=1, max_instances=9)
SERVERLESS = ServingSettings(kind="serverless", serverless=ServerlessSettings(memory_mb=2048, max_concurrency=5))


@pytest.mark.parametrize(
    ("stage", "rest", "most"),
    [(scaled(2, 4, schedules=(NIGHT,)), INSTANCE, 9 * INSTANCE), (replace(DEV, serving=SERVERLESS), 0, 0.72)],
)
def test_an_endpoint_costs_the_least_of_a_day_at_rest_and_the_most_at_most(stage, rest, most):
    (endpoint,) = [cost for cost in planned_costs(stage) if "endpoint" in cost.what]
    assert (endpoint.rest, endpoint.most) == pytest.approx((rest, most))


@pytest.mark.parametrize(
    ("instance_type", "words", "million"),
    [
        ("ml.r7i.48xlarge", ("unknown", "≥ ", "see aws.amazon.com/sagemaker/pricing"), "not known"),
        ("ml.c7g.large", ("computed: EC2's plus 20%",), "USD at 20 images/s on each instance"),
    ],
)
def test_a_price_that_is_not_published_says_so_and_is_never_0(capsys, instance_type, words, million):
    stage = scaled(1, 2, instance_type)
    print_costs("Costs", planned_costs(stage))
    printed = capsys.readouterr().out
    assert all(each in printed for each in words) and million in million_images(stage)


def test_each_code_of_an_error_is_a_metric_that_counts():
    assert 4 + len({error.code for error in ServiceError.__subclasses__()}) == FUNCTION_METRICS


def deployed(instances: int) -> FakeStage:
    aws = FakeAccount()
    aws.add_stack("kennel-dev-storage", DataBucketName="data")
    aws.add_stack("kennel-dev-training")  # was rolled back: nothing of it is there
    aws.add_stack("kennel-dev-inference", FunctionName="f", EndpointName="dogs")
    aws.add_endpoint("dogs", "ml.m5.large", instances, project="kennel", stage="dev")
    aws.answers["list_provisioned_concurrency_configs"] = {
        "ProvisionedConcurrencyConfigs": [{"RequestedProvisionedConcurrentExecutions": 1}]
    }
    return FakeStage("dev", aws)


@pytest.mark.parametrize("instances", [1, 3])
def test_the_difference_is_what_comes_less_what_runs_and_what_no_stack_has_goes_on(instances):
    stage = deployed(instances)
    stage.client("sagemaker").jobs = {"training": {"kennel-dev-1": ["InProgress"]}}
    stage.client("sagemaker").add_endpoint("forgotten", "ml.m5.large", 1, project="kennel", stage="dev")
    comparison = compare(stage, STACKS)
    assert comparison.difference == pytest.approx((1 - instances) * INSTANCE, abs=1e-6)
    rows = {cost.what: cost.rest for cost in comparison.now}
    assert rows[f"endpoint dogs, {instances} × ml.m5.large"] == pytest.approx(instances * INSTANCE)
    assert rows["function, 1 kept warm"] == pytest.approx(0.006, rel=0.01)
    more = Total.of(comparison.after).usd - Total.of(comparison.planned).usd
    assert more == pytest.approx(2 * 0.23 + INSTANCE)
    assert json.loads(json.dumps(comparison.as_json()))["totals"]["after"]["complete"]


def test_what_aws_does_not_say_is_not_known_and_the_settings_count_all_the_same(capsys):
    stage = deployed(1)
    stage.client("lambda").refused = {"list_endpoints"}
    comparison = compare(stage, STACKS)
    comparison.tell()
    assert comparison.as_json()["now"] is comparison.as_json()["totals"]["after"] is None
    printed = capsys.readouterr().out
    assert "ml.m5.large" in printed and "What runs now is not known: AWS refused" in printed
