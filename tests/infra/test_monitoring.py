"""What is watched, who is told, what goes back by it; the budget and the cost guard."""

from dataclasses import replace
from pathlib import Path

import pytest
from templates import SynthesisedStage, allowed, role_for, statements, text

from cli.costs.planned import ALARMS
from infra import application
from infra.settings import Settings
from infra.tables.alarms import AlarmSettings, DriftSettings
from infra.tables.cost_guard import CostGuardSettings
from infra.tables.serving import CaptureSettings, EndpointScalingSettings, InstanceSchedule, RolloutSettings

ALARM, TOPIC = "AWS::CloudWatch::Alarm", "AWS::SNS::Topic"
PUBLISHERS = ["budgets.amazonaws.com", "cloudwatch.amazonaws.com"]


def test_every_alarm_pages_through_the_one_topic_and_stays_quiet_without_traffic(stage):
    ((topic, _),) = stage.resources("inference", TOPIC).items()
    for alarm in stage.resources("inference", ALARM).values():
        properties = alarm["Properties"]
        assert properties["AlarmActions"] == properties["OKActions"] == [{"Ref": topic}]
        assert properties["TreatMissingData"] == "notBreaching"
        assert (properties["DatapointsToAlarm"], properties["EvaluationPeriods"], properties["Period"]) == (2, 3, 60)


def test_the_topic_is_encrypted_with_the_stages_key_which_lets_alarms_and_budgets_publish_to_it(stage):
    assert "DataKey" in text(stage.properties("inference", TOPIC)["KmsMasterKeyId"])
    key = stage.properties("storage", "AWS::KMS::Key")["KeyPolicy"]["Statement"]
    (statement,) = (s for s in key if s["Principal"].get("Service") == PUBLISHERS)
    assert statement["Action"] == ["kms:Decrypt", "kms:GenerateDataKey*"]
    assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
    topics = text(statement["Condition"]["ArnLike"]["kms:EncryptionContext:aws:sns:topicArn"])
    assert topics.endswith(f":<AWS::AccountId>:{stage.settings.stack_name('inference')}-*")


def test_the_topic_takes_tls_only_and_only_alarms_and_budgets_of_this_account(stage):
    deny, allow = stage.properties("inference", "AWS::SNS::TopicPolicy")["PolicyDocument"]["Statement"]
    assert (deny["Effect"], deny["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    assert allow["Principal"] == {"Service": PUBLISHERS}
    assert allow["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_an_endpoint_goes_back_by_what_the_model_of_its_new_configuration_does_and_not_its_callers(stage):
    endpoint = stage.properties("inference", "AWS::SageMaker::Endpoint")
    alarms = {name: alarm["Properties"] for name, alarm in stage.resources("inference", ALARM).items()}
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


@pytest.fixture(scope="module")
def full(synthesise, stages) -> SynthesisedStage:
    """A production that has what no stage of the repository has."""
    limits = {"min_instances": 4, "max_instances": 9}
    morning = InstanceSchedule(name="morning", cron="0 7 ? * MON-FRI *", timezone="Europe/Berlin", **limits)
    limits = {"min_instances": 2, "max_instances": 8, "metric": "concurrency", "concurrent_requests_per_instance": 6}
    scaling = EndpointScalingSettings(**limits, max_rps_per_instance=20, schedules=(morning,))
    rollout = RolloutSettings(strategy="linear", percent=25, wait_seconds=600, bake_seconds=60)
    capture = CaptureSettings(sampling_percent=5, days=9)
    prod = stages["prod"].settings
    serving = replace(prod.serving, scaling=scaling, rollout=rollout, capture=capture)
    alarms, drift = AlarmSettings(email="a@example.org"), DriftSettings()
    return synthesise(replace(prod, serving=serving, alarms=alarms, drift=drift))


def test_one_figure_that_has_drifted_pages_and_the_alarm_stays_until_the_next_run(full):
    alarms = [each["Properties"] for each in full.resources("inference", ALARM).values()]
    (alarm,) = (each for each in alarms if each["MetricName"] == "DriftedFigures")
    assert (alarm["Namespace"], alarm["Threshold"], alarm["Statistic"]) == ("Kennel", 0, "Maximum")
    assert (alarm["EvaluationPeriods"], alarm["DatapointsToAlarm"], alarm["TreatMissingData"]) == (1, 1, "ignore")
    assert [each["Name"] for each in alarm["Dimensions"]] == ["EndpointName", "VariantName"]
    assert alarm["AlarmActions"] == alarms[0]["AlarmActions"]


def test_somebody_gets_an_e_mail_if_the_settings_say_who(full):
    assert full.properties("inference", "AWS::SNS::Subscription")["Endpoint"] == "a@example.org"


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


def test_scaling_may_go_by_requests_at_a_time_and_by_the_clock(full):
    policy = full.properties("inference", "AWS::ApplicationAutoScaling::ScalingPolicy")
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    metric = "SageMakerVariantConcurrentRequestsPerModelHighResolution"
    assert tracking["PredefinedMetricSpecification"] == {"PredefinedMetricType": metric}
    assert tracking["TargetValue"] == 6 * 0.5
    target = full.properties("inference", "AWS::ApplicationAutoScaling::ScalableTarget")
    (action,) = target["ScheduledActions"]
    assert (action["Schedule"], action["Timezone"]) == ("cron(0 7 ? * MON-FRI *)", "Europe/Berlin")
    assert action["ScalableTargetAction"] == {"MinCapacity": 4, "MaxCapacity": 9}


def test_what_is_captured_is_encrypted_and_expires(full):
    capture = full.properties("inference", "AWS::SageMaker::EndpointConfig")["DataCaptureConfig"]
    assert "DataKey" in text(capture["KmsKeyId"])
    assert text(capture["DestinationS3Uri"]).endswith("/captured")
    assert capture["InitialSamplingPercentage"] == 5
    bucket = full.resources("storage", "AWS::S3::Bucket")["DataBucketE6B0FAA8"]["Properties"]
    (rule,) = (rule for rule in bucket["LifecycleConfiguration"]["Rules"] if rule["Id"] == "expire-captured")
    assert (rule["Prefix"], rule["ExpirationInDays"]) == ("captured/", 9)
    # Else a deployment would keep the capturing of the configuration before.
    excluded = full.properties("inference", "AWS::SageMaker::Endpoint")["ExcludeRetainedVariantProperties"]
    assert excluded == [{"VariantPropertyType": "DataCaptureConfig"}]


def test_a_serverless_endpoint_costs_nothing_while_idle(stages):
    stage = stages["serverless"]
    (variant,) = stage.properties("inference", "AWS::SageMaker::EndpointConfig")["ProductionVariants"]
    assert variant["ServerlessConfig"] == {"MemorySizeInMB": 3072, "MaxConcurrency": 5}
    assert "InstanceType" not in variant
    assert "ProvisionedConcurrencyConfig" not in stage.properties("inference", "AWS::Lambda::Alias")
    assert ALARM not in {resource["Type"] for _, _, resource in stage.all_resources()}


@pytest.mark.parametrize(("name", "price"), [("dev", "running * 0.1208"), ("serverless", "* 60 * 0.000060000")])
def test_the_dashboard_says_what_the_endpoint_costs(stages, name, price):
    assert price in text(stages[name].properties("inference", "AWS::CloudWatch::Dashboard")["DashboardBody"])


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
