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
from cli.costs.planned import STACKS, million_images, planned_costs
from cli.costs.running import running_costs
from cli.costs.table import Cost, Total, print_costs
from infra import settings
from infra.tables.serving import EndpointScalingSettings, InstanceSchedule, ServerlessSettings, ServingSettings

DEV = settings.load("dev")
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


def test_a_schedule_widens_what_a_day_can_cost():
    night = InstanceSchedule(name="night", cron="0 22 * * ? *", timezone="UTC", min_instances=1, max_instances=9)
    (endpoint,) = [cost for cost in planned_costs(scaled(2, 4, schedules=(night,))) if "endpoint" in cost.what]
    assert (endpoint.rest, endpoint.most) == pytest.approx((0.115, 9 * 0.115))


def test_a_serverless_endpoint_costs_nothing_at_rest_and_all_its_requests_at_most():
    serving = ServingSettings(kind="serverless", serverless=ServerlessSettings(memory_mb=2048, max_concurrency=5))
    costs = planned_costs(replace(DEV, serving=serving))
    (endpoint,) = [cost for cost in costs if "serverless" in cost.what]
    assert (endpoint.rest, endpoint.most) == pytest.approx((0, 5 * 0.00004 * 3600))


def test_an_unknown_price_is_called_unknown_and_the_sum_at_least(capsys):
    costs = planned_costs(scaled(1, 2, "ml.r7i.48xlarge"))
    print_costs("Costs", costs)
    printed = capsys.readouterr().out
    assert "unknown" in printed and "≥ " in printed and "see aws.amazon.com/sagemaker/pricing" in printed
    assert "not known" in million_images(scaled(1, 2, "ml.r7i.48xlarge"))


def test_a_million_images_cost_what_fully_used_instances_cost():
    assert million_images(scaled(1, 4)).startswith("endpoint: 1.60 USD at 20 images/s on each instance")


def deployed(instances: int) -> FakeStage:
    aws = FakeAccount()
    aws.add_stack("kennel-dev-storage")
    aws.add_stack("kennel-dev-inference", FunctionName="f")
    aws.add_endpoint("dogs", "ml.m5.large", instances, project="kennel", stage="dev")
    aws.answers["list_provisioned_concurrency_configs"] = {
        "ProvisionedConcurrencyConfigs": [{"RequestedProvisionedConcurrentExecutions": 1}]
    }
    return FakeStage("dev", aws)


def test_a_stage_that_is_deployed_as_its_settings_say_costs_no_more_afterwards():
    assert compare(deployed(1), STACKS).difference == pytest.approx(0, abs=1e-9)


def test_the_difference_is_what_comes_less_what_runs_and_jobs_go_on():
    stage = deployed(3)
    stage.client("sagemaker").jobs = {"training": {"kennel-dev-1": ["InProgress"]}}
    comparison = compare(stage, STACKS)
    assert comparison.difference == pytest.approx(-2 * 0.115, abs=1e-9)
    assert Total.of(comparison.after).usd - Total.of(comparison.planned).usd == pytest.approx(2 * 0.23)
    assert json.dumps(comparison.as_json())


def test_what_aws_does_not_say_is_not_known_and_the_settings_count_all_the_same(capsys):
    stage = deployed(1)
    stage.client("lambda").refused = {"list_endpoints"}
    compare(stage, STACKS).tell()
    printed = capsys.readouterr().out
    assert "ml.m5.large" in printed and "What runs now is not known: AWS refused" in printed


def test_what_runs_is_listed_with_its_price():
    rows = {cost.what: cost.rest for cost in running_costs(deployed(2))}
    assert rows["endpoint dogs, 2 × ml.m5.large"] == pytest.approx(0.23)
    assert rows["function, 1 kept warm"] == pytest.approx(0.006, rel=0.01)
