"""The alarms of a stage, defined once: rollouts go back by those of the endpoint, all are on the dashboard and page."""

from __future__ import annotations

from typing import NamedTuple

from aws_cdk import Aws
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infra.constructs.monitoring.metrics import MINUTE, EndpointMetrics
from infra.tables.alarms import AlarmSettings


class Limit(NamedTuple):
    """What a metric must not exceed for 2 of 3 minutes."""

    name: str
    metric: cloudwatch.Metric
    threshold: float
    what: str


def endpoint_limits(settings: AlarmSettings, metrics: EndpointMetrics, *, serverless: bool) -> list[Limit]:
    """Return what an endpoint must keep. Its errors are 0 or 1 for each request, so that their average is a share."""
    share, others, p95 = settings.error_percent, settings.invocation_error_percent, settings.p95_ms
    errors, failed = metrics.of("Invocation5XXErrors", "Average"), metrics.of("InvocationModelErrors", "Average")
    latency = metrics.of("ModelLatency", "p95")
    limits = [
        Limit("ServerErrors", errors, share / 100, f"More than {share:g}% of the model's answers are 5xx"),
        Limit("Latency", latency, p95 * 1000, f"More than 5% of the model's answers take longer than {p95} ms"),
        Limit(
            "InvocationErrors", failed, others / 100, f"More than {others:g}% of the requests get no 2xx of the model"
        ),
    ]
    # Serverless endpoints do not publish the last: SageMaker guide, "Alarms and logs … from serverless endpoints".
    return limits[:2] if serverless else limits


def function_limits(settings: AlarmSettings, function: lambda_.IFunction) -> list[Limit]:
    """Return what the function must keep."""
    failed, refused = settings.function_errors, settings.function_throttles
    errors = function.metric_errors(statistic="Sum", period=MINUTE)
    throttles = function.metric_throttles(statistic="Sum", period=MINUTE)
    return [
        Limit("FunctionErrors", errors, failed, f"More than {failed} calls of the function a minute fail"),
        Limit("FunctionThrottles", throttles, refused, f"More than {refused} calls of the function a minute get 429"),
    ]


class Alarms(Construct):
    """The alarms, and the topic that they page through.

    Attributes
    ----------
    of_endpoint, all : list of aws_cloudwatch.Alarm
        Those by which a rollout goes back; and with those of the function, once it is there (`watch`).
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: AlarmSettings,
        metrics: EndpointMetrics,
        serverless: bool,
        key: kms.IKey,
    ) -> None:
        super().__init__(scope, construct_id)
        self._settings = settings
        self.topic = self._topic(key)
        self.of_endpoint = [self._alarm(limit) for limit in endpoint_limits(settings, metrics, serverless=serverless)]
        self.all = list(self.of_endpoint)

    def watch(self, function: lambda_.IFunction) -> None:
        """Add the alarms of the function."""
        self.all += [self._alarm(limit) for limit in function_limits(self._settings, function)]

    def _alarm(self, limit: Limit) -> cloudwatch.Alarm:
        alarm = cloudwatch.Alarm(
            self,
            limit.name,
            alarm_description=limit.what,
            metric=limit.metric,
            threshold=limit.threshold,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=3,
            datapoints_to_alarm=2,
            # Before the first deployment is through, and whenever nobody calls, there is no metric at all.
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        page = actions.SnsAction(self.topic)
        alarm.add_alarm_action(page)
        alarm.add_ok_action(page)
        return alarm

    def _topic(self, key: kms.IKey) -> sns.Topic:
        """Make a topic that the stage's key encrypts and that only takes TLS, of this account's alarms and budgets.

        A policy of a topic takes the place of SNS's own, which lets alarms in.
        """
        topic = sns.Topic(self, "Topic", display_name="Alarms", master_key=key, enforce_ssl=True)
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal(f"{service}.amazonaws.com") for service in ("budgets", "cloudwatch")],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}},
            )
        )
        if self._settings.email:
            topic.add_subscription(subscriptions.EmailSubscription(self._settings.email))
        return topic
