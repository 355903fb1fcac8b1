"""The alarms of a stage, defined once: rollouts go back by some, all are on the dashboard and page."""

from __future__ import annotations

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


class Alarms(Construct):
    """The alarms of an endpoint and of a function, all in `all`, and the topic that they page through."""

    def __init__(self, scope: Construct, construct_id: str, *, settings: AlarmSettings, key: kms.IKey) -> None:
        super().__init__(scope, construct_id)
        self._settings = settings
        self.topic = self._topic(key)
        self.all: list[cloudwatch.IAlarm] = []

    def watch_endpoint(self, metrics: EndpointMetrics, config_name: str | None) -> list[cloudwatch.IAlarm]:
        """Watch an endpoint, and return the alarms by which a rollout goes back.

        They look at the instances of the newest configuration only (SageMaker guide, "Auto-rollback configuration and
        monitoring", on the new fleet), so that neither the traffic of the old ones hides what a new model does, nor an
        alarm of the old model stops the one that replaces it. A caller's mistake (4xx) is no reason to go back.

        Errors are 0 or 1 for each request, so that their average is a share.
        """
        settings = self._settings
        share, others, p95 = settings.error_percent, settings.invocation_error_percent, settings.p95_ms
        errors = metrics.of("Invocation5XXErrors", "Average", config_name=config_name)
        latency = metrics.of("ModelLatency", "p95", config_name=config_name)  # microseconds
        going_back = [
            self._alarm("ServerErrors", errors, share / 100, f"More than {share:g}% of the model's answers are 5xx"),
            self._alarm("Latency", latency, p95 * 1000, f"More than 5% of its answers take longer than {p95} ms"),
        ]
        # Serverless endpoints do not publish it: SageMaker guide, "Alarms and logs … from serverless endpoints".
        if config_name:
            failed = metrics.of("InvocationModelErrors", "Average")
            what = f"More than {others:g}% of the requests get no 2xx of the model"
            self._alarm("InvocationErrors", failed, others / 100, what)
        return going_back

    def watch_function(self, function: lambda_.IFunction) -> None:
        """Watch a function."""
        failed, refused = self._settings.function_errors, self._settings.function_throttles
        errors = function.metric_errors(statistic="Sum", period=MINUTE)
        throttles = function.metric_throttles(statistic="Sum", period=MINUTE)
        self._alarm("FunctionErrors", errors, failed, f"More than {failed} calls of the function a minute fail")
        self._alarm("FunctionThrottles", throttles, refused, f"More than {refused} calls of it a minute get 429")

    def watch_drift(self, metrics: EndpointMetrics, namespace: str) -> None:
        """Watch what `kennel drift --publish` sends; the state stays until it sends another value."""
        drifted = metrics.of("DriftedFigures", "Maximum", namespace=namespace)
        what = "Callers' images, or the answers to them, are no longer like those of the training: kennel drift"
        self._alarm("Drift", drifted, 0, what, once=True)

    def _alarm(
        self, name: str, metric: cloudwatch.IMetric, threshold: float, what: str, *, once: bool = False
    ) -> cloudwatch.IAlarm:
        """Make an alarm on what a metric must not exceed for 2 of 3 minutes, or `once`, until its next value."""
        missing = cloudwatch.TreatMissingData
        alarm = cloudwatch.Alarm(
            self,
            name,
            alarm_description=what,
            metric=metric,
            threshold=threshold,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=1 if once else 3,
            datapoints_to_alarm=1 if once else 2,
            # Before the first deployment is through, and whenever nobody calls, there is no metric at all.
            treat_missing_data=missing.IGNORE if once else missing.NOT_BREACHING,
        )
        page = actions.SnsAction(self.topic)
        alarm.add_alarm_action(page)
        alarm.add_ok_action(page)
        self.all.append(alarm)
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
