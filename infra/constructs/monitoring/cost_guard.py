"""The stage's budget, and the function that stops what was forgotten."""

from pathlib import Path

from aws_cdk import Duration, IgnoreMode
from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from constructs import Construct

from infra.constructs.inline_role import WRITE_LOG, InlineRole, arn_here
from infra.constructs.log_group import log_group
from infra.constructs.notebook_instance import notebook_name
from infra.settings import Settings
from infra.tables.cost_guard import CostGuardSettings
from programs.cost_guard import cost_guard

#: Kinds of alert, in percent of the budget. What is forecast comes weeks before what is spent.
ALERTS = (("ACTUAL", 80), ("ACTUAL", 100), ("FORECASTED", 100))


class CostGuard(Construct):
    """Tells of costs, and stops what the settings say; `topic`, encrypted with `key`, hears of both."""

    def __init__(
        self, scope: Construct, construct_id: str, *, settings: Settings, topic: sns.ITopic | None, key: kms.IKey
    ) -> None:
        super().__init__(scope, construct_id)
        assert settings.cost_guard is not None
        self._settings = settings
        self._tags = {"project": settings.project, "stage": settings.stage}
        self._budget(settings.cost_guard, topic)
        if settings.cost_guard.stops_something:
            events.Rule(
                self,
                "Schedule",
                description="Stops what was forgotten",
                schedule=events.Schedule.rate(Duration.hours(1)),
                targets=[targets.LambdaFunction(self._function(settings.cost_guard, topic, key))],
            )

    def _budget(self, guard: CostGuardSettings, topic: sns.ITopic | None) -> None:
        """A budget over all that carries the stage's tags; AWS makes two for nothing."""
        heard_by = (("EMAIL", guard.email), ("SNS", topic and topic.topic_arn))
        subscribers = [{"subscriptionType": kind, "address": address} for kind, address in heard_by if address]
        alert = {"comparisonOperator": "GREATER_THAN", "thresholdType": "PERCENTAGE"}
        budgets.CfnBudget(
            self,
            "Budget",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=guard.monthly_usd, unit="USD"),
                # A filter, and not `CostFilters`, where values of two tags would be alternatives.
                filter_expression={"and": [{"tags": {"key": key, "values": [tag]}} for key, tag in self._tags.items()]},
                metrics=["UnblendedCost"],
            ),
            notifications_with_subscribers=[
                {
                    "notification": {**alert, "notificationType": kind, "threshold": percent},
                    "subscribers": subscribers,
                }
                for kind, percent in ALERTS
            ],
            resource_tags=[{"key": key, "value": tag} for key, tag in self._tags.items()],
        )

    def _function(self, guard: CostGuardSettings, topic: sns.ITopic | None, key: kms.IKey) -> lambda_.Function:
        settings = self._settings
        log = log_group(self, "Log", days=settings.function.log_retention_days, retain=settings.storage.retain)
        role = InlineRole(self, "Role", service="lambda", description="Cost guard")
        role.allow("Log", WRITE_LOG, [log.log_group_arn])
        environment = {name.upper(): value for name, value in self._tags.items()}
        if guard.idle_endpoint != "keep":
            named = {"ENDPOINT": settings.endpoint_name, "IDLE_ENDPOINT": guard.idle_endpoint}
            environment |= {**named, "IDLE_HOURS": str(guard.idle_hours)}
            self._may_stop_the_endpoint(role, guard)
        if guard.notebook_hours:
            name = notebook_name(settings)
            environment |= {"NOTEBOOK_NAME": name, "NOTEBOOK_HOURS": str(guard.notebook_hours)}
            actions = ["sagemaker:DescribeNotebookInstance", "sagemaker:StopNotebookInstance"]
            role.allow("Notebook", actions, [arn_here("sagemaker", f"notebook-instance/{name}")])
        if guard.training_hours:
            environment["TRAINING_HOURS"] = str(guard.training_hours)
            role.allow_any("Training", ["ec2:DescribeInstances"])
            self._allow_on_own(role, "Training", "ec2:TerminateInstances", arn_here("ec2", "instance/*"))
        if topic:
            environment["TOPIC_ARN"] = topic.topic_arn
            role.allow("Topic", ["sns:Publish"], [topic.topic_arn])
            by_sns = {"StringEquals": {"kms:EncryptionContext:aws:sns:topicArn": topic.topic_arn}}
            role.allow("Topic", ["kms:Decrypt", "kms:GenerateDataKey"], [key.key_arn], by_sns)
        return lambda_.Function(
            self,
            "Function",
            description="Stops what the stage has forgotten",
            runtime=lambda_.Runtime.PYTHON_3_14,
            architecture=lambda_.Architecture.ARM_64,
            handler="cost_guard.handler",
            code=lambda_.Code.from_asset(
                str(Path(cost_guard.__file__).parent), exclude=["*", "!/cost_guard.py"], ignore_mode=IgnoreMode.GIT
            ),
            role=role,
            environment=environment,
            timeout=Duration.minutes(2),
            log_group=log,
            logging_format=lambda_.LoggingFormat.JSON,
        )

    def _may_stop_the_endpoint(self, role: InlineRole, guard: CostGuardSettings) -> None:
        stop = {"minimum": "UpdateEndpointWeightsAndCapacities", "delete": "DeleteEndpoint"}[guard.idle_endpoint]
        endpoint = arn_here("sagemaker", f"endpoint/{self._settings.endpoint_name}")
        role.allow("Endpoint", ["sagemaker:DescribeEndpoint", f"sagemaker:{stop}"], [endpoint])
        role.allow_any("Endpoint", ["cloudwatch:GetMetricStatistics"])
        if guard.idle_endpoint == "minimum":
            role.allow_any("Endpoint", ["application-autoscaling:DescribeScalableTargets"])
        elif self._settings.serving.scaling:
            # Deleting an endpoint deregisters its scaling, for which SageMaker asks its caller.
            target = arn_here("application-autoscaling", "scalable-target/*")
            self._allow_on_own(role, "Endpoint", "application-autoscaling:DeregisterScalableTarget", target)

    def _allow_on_own(self, role: InlineRole, policy: str, action: str, any_of_them: str) -> None:
        own = {"StringEquals": {f"aws:ResourceTag/{name}": tag for name, tag in self._tags.items()}}
        because = "AWS makes up its name; the tags of this stage keep all others out."
        role.allow(policy, [action], [any_of_them], own, because=because)
