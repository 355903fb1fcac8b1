"""The Lambda function in front of the endpoint, its alias and its URL."""

from typing import cast

from aws_cdk import Aws, CfnResource, Duration, IgnoreMode, RemovalPolicy, TimeZone
from aws_cdk import aws_applicationautoscaling as autoscaling
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct, IConstruct

from infra.constructs.inline_role import WRITE_LOG, InlineRole
from infra.constructs.log_group import log_group
from infra.gate.compliance import acknowledge, acknowledge_caller
from infra.settings import ROOT
from infra.tables.function import ConcurrencyScalingSettings, FunctionSettings

PACKAGE = "lambda_fn"


class ClassifierFunction(Construct):
    """A function that may write its own log, called through its alias only; the endpoint grants itself to its role.

    Every change of code or configuration publishes a new version, and the alias moves to it.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: FunctionSettings,
        endpoint_name: str,
        metrics_namespace: str,
        retain_logs: bool,
    ) -> None:
        super().__init__(scope, construct_id)
        log = log_group(self, "Logs", days=settings.log_retention_days, retain=retain_logs)
        self.role = InlineRole(self, "Role", service="lambda", description="Classifier function")
        self.role.allow("Logs", WRITE_LOG, [log.log_group_arn])
        self.function = lambda_.Function(
            self,
            "Function",
            description="Classifies an image: checks the request, asks the endpoint, shapes the answer",
            runtime=lambda_.Runtime.PYTHON_3_14,
            architecture=lambda_.Architecture.ARM_64,
            handler=f"{PACKAGE}.handler.handler",
            # Only its Python files and its description: nothing is built, and the same sources give the same hash.
            code=lambda_.Code.from_asset(
                str(ROOT),
                exclude=["*", *(f"!/{PACKAGE}{kept}" for kept in ("", "/*/", "/**/*.py", "/openapi.json"))],
                ignore_mode=IgnoreMode.GIT,
            ),
            role=self.role,
            memory_size=settings.memory_mb,
            timeout=Duration.seconds(settings.timeout_seconds),
            reserved_concurrent_executions=settings.reserved_concurrency,
            environment={
                "ENDPOINT_NAME": endpoint_name,
                "ENDPOINT_TIMEOUT_SECONDS": str(settings.endpoint_timeout_seconds),
                "FETCH_TIMEOUT_SECONDS": str(settings.fetch_timeout_seconds),
                "METRICS_NAMESPACE": metrics_namespace,
                "URL_SUFFIX": Aws.URL_SUFFIX,
                **({"CONTACT": settings.contact} if settings.contact else {}),
            },
            log_group=log,
            logging_format=lambda_.LoggingFormat.JSON,
        )
        if settings.caller_requests_per_minute:
            self._limit_callers(settings.caller_requests_per_minute)
        self.alias = lambda_.Alias(
            self,
            "Live",
            alias_name="live",
            version=self.function.current_version,
            # On the alias, never on the version: a version's would stay behind, billed, when the alias moves on.
            provisioned_concurrent_executions=settings.provisioned_concurrency or None,
        )
        if settings.scaling:
            self._scale(settings.scaling)
        self.url = self.alias.add_function_url(auth_type=lambda_.FunctionUrlAuthType[settings.url_auth])
        if settings.public_reason:
            self._acknowledge_public(settings.public_reason)
        for index, invoker in enumerate(settings.invokers):
            self._allow_to_call(f"Invoker{index}", invoker, settings.organization)
        self.callers = self._callers_policy(settings)

    def _limit_callers(self, requests_per_minute: int) -> None:
        """Give the function a table in which it counts, and nothing but counting."""
        table = dynamodb.Table(
            self,
            "CallerCounts",
            partition_key=dynamodb.Attribute(name="caller_and_minute", type=dynamodb.AttributeType.STRING),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            time_to_live_attribute="expires",
            removal_policy=RemovalPolicy.DESTROY,
        )
        reason = "Its counters are of no use after a minute: there is nothing to restore."
        acknowledge(cast(CfnResource, table.node.default_child), "AwsSolutions-DDB3", reason)
        self.role.allow("Callers", ["dynamodb:UpdateItem"], [table.table_arn])
        self.function.add_environment("CALLER_TABLE", table.table_name)
        self.function.add_environment("CALLER_REQUESTS_PER_MINUTE", str(requests_per_minute))

    def _scale(self, settings: ConcurrencyScalingSettings) -> None:
        """Scale what the alias keeps warm, under the service-linked role; no role of ours is made."""
        capacity = self.alias.add_auto_scaling(
            min_capacity=settings.min_provisioned, max_capacity=settings.max_provisioned
        )
        capacity.scale_on_utilization(utilization_target=settings.target_utilization)
        for schedule in settings.schedules:
            capacity.scale_on_schedule(
                schedule.name,
                schedule=autoscaling.Schedule.expression(f"cron({schedule.cron})"),
                time_zone=TimeZone.of(schedule.timezone),
                min_capacity=schedule.min_provisioned,
                max_capacity=schedule.max_provisioned,
            )

    def _acknowledge_public(self, reason: str) -> None:
        for path, rule in (
            (("FunctionUrl", "Resource"), "FUNCTION_URL_IS_SIGNED"),
            (("invoke-function-url",), "PRINCIPAL_IS_NAMED[*]"),
            (("invoke-function",), "PRINCIPAL_IS_NAMED[*]"),
        ):
            construct: IConstruct = self.alias
            for name in path:
                construct = construct.node.find_child(name)
            acknowledge(cast(CfnResource, construct), rule, reason)

    def _callers_policy(self, settings: FunctionSettings) -> iam.ManagedPolicy:
        """Make the policy to attach to callers: it allows this alias, through the URL only."""
        alias = [self.alias.function_arn]
        by_url = {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}
        statements = [
            iam.PolicyStatement(actions=["lambda:InvokeFunctionUrl"], resources=alias),
            iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=alias, conditions=by_url),
        ]
        if settings.source_ips:
            # A denial: it holds whatever else the caller is allowed.
            elsewhere = {"NotIpAddress": {"aws:SourceIp": list(settings.source_ips)}}
            actions = ["lambda:InvokeFunctionUrl", "lambda:InvokeFunction"]
            deny = iam.Effect.DENY
            statements.append(iam.PolicyStatement(effect=deny, actions=actions, resources=alias, conditions=elsewhere))
        return iam.ManagedPolicy(self, "Callers", description="Calls the classifier's URL", statements=statements)

    def _allow_to_call(self, name: str, invoker: str, organization: str | None) -> None:
        """Give what a signed call of the URL needs: since October 2025 these are two actions."""
        principal = iam.ArnPrincipal(invoker)
        self.alias.add_permission(
            f"{name}Url",
            principal=principal,
            action="lambda:InvokeFunctionUrl",
            function_url_auth_type=lambda_.FunctionUrlAuthType.AWS_IAM,
            organization_id=organization,
        )
        self.alias.add_permission(
            f"{name}Function",
            principal=principal,
            action="lambda:InvokeFunction",
            invoked_via_function_url=True,
            organization_id=organization,
        )
        for permission in (f"{name}Url", f"{name}Function"):
            resource = cast(CfnResource, self.alias.node.find_child(permission))
            because = "The settings name this caller (function.invokers), and every call is signed."
            acknowledge_caller(resource, invoker, because)
