"""The alarms of a stage, defined once: rollouts go back by those of the endpoint, all are on the dashboard and page."""

from __future__ import annotations

from dataclasses import dataclass

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
from infra.settings import Settings
from infra.tables.alarms import AlarmSettings


@dataclass(frozen=True)
class Limit:
    """What a metric must not exceed for 2 of 3 minutes."""

    name: str
    what: str
    metric: cloudwatch.Metric
    threshold: float


def endpoint_limits(settings: AlarmSettings, metrics: EndpointMetrics, *, serverless: bool) -> list[Limit]:
    """Return what an endpoint must keep. Its errors are 0 or 1 for each request, so that their average is a share."""
    limits = [
        Limit(
            "ServerErrors",
            f"More than {settings.error_percent:g}% of the model's answers have a status of 5xx",
            metrics.of("Invocation5XXErrors", "Average"),
            settings.error_percent / 100,
        ),
        Limit(
            "Latency",
            f"5% of the model's answers take longer than {settings.p95_ms} ms",
            metrics.of("ModelLatency", "p95"),
            settings.p95_ms * 1000,
        ),
    ]
    if not serverless:  # which do not publish it; SageMaker guide, "Alarms and logs for … serverless endpoints"
        limits.append(
            Limit(
                "InvocationErrors",
                f"More than {settings.invocation_error_percent:g}% of the requests get no answer of 2xx from the model",
                metrics.of("InvocationModelErrors", "Average"),
                settings.invocation_error_percent / 100,
            )
        )
    return limits


def function_limits(settings: AlarmSettings, function: lambda_.IFunction) -> list[Limit]:
    """Return what the function must keep."""
    return [
        Limit(
            "FunctionErrors",
            f"More than {settings.function_errors} calls of the function a minute end in an error of its own",
            function.metric_errors(statistic="Sum", period=MINUTE),
            settings.function_errors,
        ),
        Limit(
            "FunctionThrottles",
            f"More than {settings.function_throttles} calls of the function a minute are refused with 429",
            function.metric_throttles(statistic="Sum", period=MINUTE),
            settings.function_throttles,
        ),
    ]


class Alarms(Construct):
    """The alarms, and the topic that they page through.

    Attributes
    ----------
    of_endpoint : list of aws_cloudwatch.Alarm
        Those by which a rollout goes back.
    all : list of aws_cloudwatch.Alarm
        With those of the function, once it is there (`watch`).
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, settings: Settings, metrics: EndpointMetrics, key: kms.IKey
    ) -> None:
        super().__init__(scope, construct_id)
        assert settings.alarms is not None
        self._settings = settings.alarms
        self.topic = self._topic(key)
        serverless = settings.serving.kind == "serverless"
        self.of_endpoint = [
            self._alarm(limit) for limit in endpoint_limits(settings.alarms, metrics, serverless=serverless)
        ]
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
        alarm.add_alarm_action(actions.SnsAction(self.topic))
        alarm.add_ok_action(actions.SnsAction(self.topic))
        return alarm

    def _topic(self, key: kms.IKey) -> sns.Topic:
        """Make a topic that is encrypted with the stage's key and only takes TLS; alarms of this account may publish.

        A policy of a topic takes the place of SNS's own, which lets alarms in.
        """
        topic = sns.Topic(self, "Topic", display_name="Alarms", master_key=key, enforce_ssl=True)
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}},
            )
        )
        if self._settings.email:
            topic.add_subscription(subscriptions.EmailSubscription(self._settings.email))
        return topic
