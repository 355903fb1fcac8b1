"""What a rollout goes back by, and the cost guard."""

from dataclasses import replace
from pathlib import Path

import pytest
from templates import SynthesisedStage, allowed, role_for, statements

from cli.costs.planned import ALARMS
from infra import application
from infra.settings import Settings
from infra.tables.cost_guard import CostGuardSettings


def test_an_endpoint_goes_back_by_what_the_model_of_its_new_configuration_does_and_not_its_callers(stage):
    endpoint = stage.properties("inference", "AWS::SageMaker::Endpoint")
    found = stage.resources("inference", "AWS::CloudWatch::Alarm")
    alarms = {name: alarm["Properties"] for name, alarm in found.items()}
    named = [alarm["AlarmName"]["Ref"] for alarm in endpoint["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]]
    assert len(alarms) == ALARMS["instance"], "as many as `kennel cost` counts"
    metrics = {(alarm := alarms[name])["MetricName"]: alarm["Threshold"] for name in named}
    assert metrics == {"Invocation5XXErrors": 0.05, "ModelLatency": 1_000_000}  # share, microseconds
    for name in named:
        dimensions = {each["Name"]: each["Value"] for each in alarms[name]["Dimensions"]}
        assert dimensions == {
            "EndpointName": endpoint["EndpointName"],  # text: there is no endpoint yet
            "VariantName": "main",
            "EndpointConfigName": endpoint["EndpointConfigName"],
        }


@pytest.mark.parametrize(("name", "size", "steps"), [("prod", "CanarySize", 2), ("full", "LinearStepSize", 4)])
def test_traffic_moves_as_the_settings_say(stages, full, name, size, steps):
    stage = {**stages, "full": full}[name]
    policy = stage.properties("inference", "AWS::SageMaker::Endpoint")["DeploymentConfig"]["BlueGreenUpdatePolicy"]
    rollout = stage.settings.serving.rollout
    routing = {"Type": rollout.strategy.upper(), "WaitIntervalInSeconds": 600}
    share = {size: {"Type": "CAPACITY_PERCENT", "Value": rollout.percent}}
    assert policy["TrafficRoutingConfiguration"] == routing | share
    assert policy["TerminationWaitInSeconds"] == rollout.bake_seconds
    assert policy["MaximumExecutionTimeoutInSeconds"] == steps * 600 + rollout.bake_seconds + 2 * 600 + 600


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
        (statement,) = (it for it in statements(role) if action in it["Action"])
        assert statement["Condition"] == {"StringEquals": own}
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
