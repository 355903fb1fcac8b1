"""One screen that says in ten seconds whether a stage is well, and what it costs at the moment."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra import prices
from infra.constructs.monitoring.metrics import MINUTE, EndpointMetrics
from infra.settings import Settings
from infra.tables.serving import ServerlessSettings, ServingSettings

_COST = "Endpoint, USD per hour (list price)"


class Dashboard(Construct):
    """Alarms, traffic, errors, latency, instances, concurrency and cost of a stage; named after it, to be found."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        metrics: EndpointMetrics,
        function: lambda_.IFunction,
        alarms: Sequence[cloudwatch.IAlarm],
    ) -> None:
        super().__init__(scope, construct_id)
        self._of, self._metrics, self._function = metrics.of, metrics, function
        serving = settings.serving
        dashboard = cloudwatch.Dashboard(self, "Dashboard", dashboard_name=f"{settings.project}-{settings.stage}")
        if alarms:
            dashboard.add_widgets(cloudwatch.AlarmStatusWidget(title="Alarms", alarms=alarms, width=24, height=3))
        dashboard.add_widgets(*self._what_callers_see())
        dashboard.add_widgets(
            *(self._instances(serving) if serving.kind == "instance" else self._containers(serving.serverless))
        )

    def _what_callers_see(self) -> list[cloudwatch.IWidget]:
        requests = {"endpoint": self._of("Invocations", "Sum"), "function": self._called("Invocations")}
        errors = [
            self._of("Invocation4XXErrors", "Sum", "model 4xx"),
            self._of("Invocation5XXErrors", "Sum", "model 5xx"),
            self._called("Errors", label="function failed"),
            self._called("Throttles", label="function refused (429)"),
        ]
        shares = {share: self._of("ModelLatency", share) for share in ("p50", "p95", "p99")}
        return [
            _graph("Requests per second", [_math(f"{of} / 60", {of: sums}, of) for of, sums in requests.items()]),
            _graph("Errors per minute", errors),
            _graph("Latency of the model, ms", [_math(f"{p} / 1000", {p: each}, p) for p, each in shares.items()]),
        ]

    def _instances(self, serving: ServingSettings) -> list[cloudwatch.IWidget]:
        """Graph instances, concurrency and cost.

        SageMaker publishes nowhere what scaling wants: what the load needs is computed as its policy on invocations
        does.
        """
        running, scaling = self._metrics.instances(), serving.scaling
        lines: list[cloudwatch.IMetric] = [running]
        if scaling:
            needed = f"CEIL(FILL(invocations, 0) / {scaling.max_rps_per_instance * scaling.safety_factor * 60:.4f})"
            low, high = scaling.min_instances, scaling.max_instances
            wanted = f"IF({needed} < {low}, {low}, IF({needed} > {high}, {high}, {needed}))"
            lines.append(_math(wanted, {"invocations": self._of("Invocations", "Sum")}, "wanted by the load"))
        busy = [self._of("ConcurrentRequestsPerModel", "Maximum", "endpoint"), self._executions()]
        kind, price = serving.instance_type, prices.endpoint_usd_per_hour(serving.instance_type)
        cost = [_math(f"running * {price:.4f}", {"running": running}, prices.price_note(kind) or kind)] if price else []
        return [_graph("Instances", lines), _graph("Requests at a time", busy), _graph(_COST, cost)]

    def _containers(self, serverless: ServerlessSettings) -> list[cloudwatch.IWidget]:
        """Graph what there is of a serverless endpoint; it bills the time in which it works."""
        used = self._of("ServerlessConcurrentExecutionsUtilization", "Maximum")
        busy = _math(f"used * {serverless.max_concurrency}", {"used": used}, "endpoint")
        price = prices.serverless_usd_per_second(serverless.memory_mb)
        # The price of what is kept warm is not in the table.
        kept_warm = ", and what is provisioned" if serverless.provisioned_concurrency else ""
        label = f"{serverless.memory_mb} MB{kept_warm}"
        cost = f"FILL(microseconds, 0) / 1000000 * 60 * {price:.9f}"
        return [
            _graph("Cold starts per minute", [self._of("ModelSetupTime", "SampleCount", "cold starts")]),
            _graph("Requests at a time", [busy, self._executions()]),
            _graph(_COST, [_math(cost, {"microseconds": self._of("ModelLatency", "Sum")}, label)]),
        ]

    def _executions(self) -> cloudwatch.Metric:
        return self._called("ConcurrentExecutions", "Maximum", "function")

    def _called(self, name: str, statistic: str = "Sum", label: str | None = None) -> cloudwatch.Metric:
        return self._function.metric(name, statistic=statistic, period=MINUTE, label=label)


def _math(expression: str, using: dict[str, cloudwatch.Metric], label: str) -> cloudwatch.MathExpression:
    return cloudwatch.MathExpression(expression=expression, using_metrics=using, label=label, period=MINUTE)


def _graph(title: str, lines: Sequence[cloudwatch.IMetric]) -> cloudwatch.IWidget:
    return cloudwatch.GraphWidget(title=title, left=lines, width=8, left_y_axis=cloudwatch.YAxisProps(min=0))
