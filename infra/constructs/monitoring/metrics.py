"""The metrics of the endpoint, as SageMaker publishes them; alarms and dashboard name them here only."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch

MINUTE = Duration.minutes(1)


class EndpointMetrics:
    """Metrics of the only variant of an endpoint, by the minute, as SageMaker sends them.

    They name the endpoint by text: alarms exist before the endpoint that goes back by them.

    References
    ----------
    SageMaker guide, "Amazon SageMaker AI metrics in Amazon CloudWatch".
    """

    def __init__(self, endpoint_name: str, variant_name: str) -> None:
        self._dimensions = {"EndpointName": endpoint_name, "VariantName": variant_name}

    def of(
        self, name: str, statistic: str, label: str | None = None, namespace: str = "AWS/SageMaker"
    ) -> cloudwatch.Metric:
        """Return a metric, for example ModelLatency (microseconds) with the statistic p95."""
        return cloudwatch.Metric(
            namespace=namespace,
            metric_name=name,
            dimensions_map=self._dimensions,
            statistic=statistic,
            period=MINUTE,
            label=label,
        )

    def instances(self) -> cloudwatch.Metric:
        """Return how many instances run.

        SageMaker publishes no such number. Each instance sends one value of its CPU a minute, so there are as many
        instances as values, with traffic or without. AWS says the same: SageMaker guide, "Asynchronous inference,
        Troubleshooting".
        """
        return self.of("CPUUtilization", "SampleCount", "running", "/aws/sagemaker/Endpoints")
