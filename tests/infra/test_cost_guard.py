"""The budget and the cost guard in the templates."""

from dataclasses import replace
from pathlib import Path

import pytest
from templates import SynthesisedStage, allowed, condition, role_for

from infra import application
from infra.settings import Settings
from infra.tables.cost_guard import CostGuardSettings


def test_the_budget_counts_this_stage_and_tells_before_and_after(stage):
    budget = stage.properties("inference", "AWS::Budgets::Budget")
    tags = {each["Tags"]["Key"]: each["Tags"]["Values"] for each in budget["Budget"]["FilterExpression"]["And"]}
    assert tags == {"project": ["kennel"], "stage": [stage.settings.stage]}
    alerts = [each["Notification"] for each in budget["NotificationsWithSubscribers"]]
    told = [(alert["NotificationType"], alert["Threshold"]) for alert in alerts]
    assert told == [("ACTUAL", 80), ("ACTUAL", 100), ("FORECASTED", 100)]
    assert all(each["Subscribers"] for each in budget["NotificationsWithSubscribers"])


def test_a_guard_that_stops_nothing_is_no_function(stages):
    assert not stages["prod"].settings.cost_guard.stops_something
    names = [name for _, name, _ in stages["prod"].all_resources() if name.startswith("CostGuard")]
    assert names == ["CostGuardBudget860F4418"]


@pytest.mark.parametrize(
    ("guard", "actions"),
    [
        ({"idle_endpoint": "minimum"}, {"sagemaker:UpdateEndpointWeightsAndCapacities"}),
        ({"idle_endpoint": "delete"}, {"sagemaker:DeleteEndpoint", "application-autoscaling:DeregisterScalableTarget"}),
        ({"training_hours": 24}, {"ec2:TerminateInstances"}),
    ],
)
def test_its_role_may_stop_what_the_settings_name_and_nothing_else(synthesise, stages, guard, actions):
    settings = replace(stages["prod"].settings, cost_guard=CostGuardSettings(monthly_usd=1, **guard))
    role = role_for(synthesise(settings), "inference", "Cost guard")
    may = allowed(role)
    own = {"aws:ResourceTag/project": "kennel", "aws:ResourceTag/stage": "prod"}
    for action in {action for action in actions if any(resource.endswith("/*") for resource in may[action])}:
        assert condition(role, action) == {"StringEquals": own}
    looking = ("Describe", "Get")
    assert {action for action in may if not action.split(":")[1].startswith(looking)} == actions | {
        "logs:CreateLogStream", "logs:PutLogEvents", "sns:Publish", "kms:Decrypt", "kms:GenerateDataKey",
    }  # fmt: skip


def test_a_deleted_endpoint_is_taken_out_without_touching_the_function(make_app, stages):
    settings: Settings = stages["dev"].settings
    app = make_app()
    app.node.set_context("endpoint", "deleted")
    found = SynthesisedStage(settings, application.synthesise(app, settings, Path("does-not-exist.tar.gz")))
    with_endpoint, without = (each.template("inference")["Resources"] for each in (stages["dev"], found))
    gone = {with_endpoint[name]["Type"] for name in with_endpoint.keys() - without.keys()}
    assert gone == {
        "AWS::SageMaker::Endpoint", "AWS::ApplicationAutoScaling::ScalableTarget",
        "AWS::ApplicationAutoScaling::ScalingPolicy",
    }  # fmt: skip
    # The function no longer waits for it, which is an order and no property.
    assert all(
        resource.get("Properties") == with_endpoint[name].get("Properties") for name, resource in without.items()
    )
