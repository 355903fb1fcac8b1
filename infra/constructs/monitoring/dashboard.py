"""One screen that says in ten seconds whether a stage is well, and what it costs at the moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra import prices
from infra.constructs.monitoring.metrics import MINUTE, EndpointMetrics
from infra.settings import Settings
from infra.tables.serving import EndpointScalingSettings

_THIRD = 8  # of the 24 columns
Lines = Sequence[cloudwatch.IMetric]


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
        self._metrics, self._function = metrics, function
        serving = settings.serving
        dashboard = cloudwatch.Dashboard(self, "Dashboard", dashboard_name=f"{settings.project}-{settings.stage}")
        if alarms:
            dashboard.add_widgets(cloudwatch.AlarmStatusWidget(title="Alarms", alarms=alarms, width=24, height=3))
        dashboard.add_widgets(*self._what_callers_see())
        if serving.kind == "instance":
            dashboard.add_widgets(*self._instances(serving.scaling), *self._cost_of_instances(serving.instance_type))
        else:
            dashboard.add_widgets(*self._containers(), *self._cost_of_containers(serving.serverless.memory_mb))

    def _what_callers_see(self) -> list[cloudwatch.IWidget]:
        of, function = self._metrics.of, self._function
        latency = [
            _math(f"{share} / 1000", {share: of("ModelLatency", share)}, f"{share}, ms")
            for share in ("p50", "p95", "p99")
        ]
        errors = [
            of("Invocation4XXErrors", "Sum", "model 4xx"),
            of("Invocation5XXErrors", "Sum", "model 5xx"),
            function.metric_errors(statistic="Sum", period=MINUTE, label="function failed"),
            function.metric_throttles(statistic="Sum", period=MINUTE, label="function refused (429)"),
        ]
        rate = _math("invocations / PERIOD(invocations)", {"invocations": of("Invocations", "Sum")}, "endpoint")
        calls = function.metric_invocations(statistic="Sum", period=MINUTE)
        through = _math("calls / PERIOD(calls)", {"calls": calls}, "function")
        return [
            _graph("Requests per second", [rate, through]),
            _graph("Errors per minute", errors),
            _graph("Latency of the model", latency),
        ]

    def _instances(self, scaling: EndpointScalingSettings | None) -> list[cloudwatch.IWidget]:
        """Graph instances and concurrency.

        What scaling wants is published nowhere. What the load needs is computed as its policy on invocations does.
        """
        lines: list[cloudwatch.IMetric] = [self._metrics.instances()]
        bounds = {}
        if scaling:
            per_minute = scaling.max_rps_per_instance * scaling.safety_factor * 60
            needed = f"CEIL(FILL(invocations, 0) / {per_minute:.4f})"
            lines.append(
                _math(
                    f"IF({needed} < {scaling.min_instances}, {scaling.min_instances}, {needed})",
                    {"invocations": self._metrics.of("Invocations", "Sum")},
                    "wanted",
                )
            )
            bounds = {"maximum": scaling.max_instances}
        concurrency = self._metrics.of("ConcurrentRequestsPerModel", "Maximum", "endpoint")
        return [_graph("Instances", lines, **bounds), _graph("Requests at a time", [concurrency, self._executions()])]

    def _containers(self) -> list[cloudwatch.IWidget]:
        """Graph what there is of a serverless endpoint, which has no instances."""
        of = self._metrics.of
        return [
            _graph("Cold starts per minute", [of("ModelSetupTime", "SampleCount", "cold starts")]),
            _graph(
                "Requests at a time",
                [
                    of("ServerlessConcurrentExecutionsUtilization", "Maximum", "share of max_concurrency"),
                    self._executions(),
                ],
            ),
        ]

    def _executions(self) -> cloudwatch.Metric:
        return self._function.metric("ConcurrentExecutions", statistic="Maximum", period=MINUTE, label="function")

    def _cost_of_instances(self, instance_type: str) -> list[cloudwatch.IWidget]:
        price = prices.usd_per_hour(instance_type)
        if price is None:
            return []
        return [
            _cost(_math(f"running * {price}", {"running": self._metrics.instances()}, f"endpoint, {instance_type}"))
        ]

    def _cost_of_containers(self, memory_mb: int) -> list[cloudwatch.IWidget]:
        """Graph what a serverless endpoint bills: the time in which it works, without that of its starts."""
        price = prices.serverless_usd_per_second(memory_mb)
        busy = {"microseconds": self._metrics.of("ModelLatency", "Sum")}
        return [_cost(_math(f"FILL(microseconds, 0) / 1000000 * 60 * {price:.9f}", busy, f"endpoint, {memory_mb} MB"))]


def _math(expression: str, using: Mapping[str, cloudwatch.IMetric], label: str) -> cloudwatch.MathExpression:
    return cloudwatch.MathExpression(expression=expression, using_metrics=dict(using), label=label, period=MINUTE)


def _cost(line: cloudwatch.IMetric) -> cloudwatch.IWidget:
    return _graph("USD per hour, by the list price", [line])


def _graph(title: str, lines: Lines, **bounds: float) -> cloudwatch.IWidget:
    annotations = [cloudwatch.HorizontalAnnotation(value=value, label=name) for name, value in bounds.items()]
    options: dict[str, Any] = {"left_annotations": annotations} if annotations else {}
    return cloudwatch.GraphWidget(
        title=title, left=lines, width=_THIRD, left_y_axis=cloudwatch.YAxisProps(min=0), **options
    )
