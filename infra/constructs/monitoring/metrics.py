"""The metrics of the endpoint, as SageMaker publishes them; alarms and dashboard name them here only."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch

MINUTE = Duration.minutes(1)
#: Of an endpoint's instances; everything else is in AWS/SageMaker.
_OF_INSTANCES = "/aws/sagemaker/Endpoints"


class EndpointMetrics:
    """Metrics of the only variant of an endpoint, by the minute, as SageMaker sends them.

    They name the endpoint by text: alarms exist before the endpoint that goes back by them.

    References
    ----------
    SageMaker guide, "Amazon SageMaker AI metrics in Amazon CloudWatch".
    """

    def __init__(self, endpoint_name: str, variant_name: str) -> None:
        self._dimensions = {"EndpointName": endpoint_name, "VariantName": variant_name}

    def of(self, name: str, statistic: str, label: str | None = None) -> cloudwatch.Metric:
        """Return a metric of the invocations, for example ModelLatency (microseconds) with statistic p95."""
        return self._metric("AWS/SageMaker", name, statistic, label)

    def instances(self) -> cloudwatch.Metric:
        """Return how many instances run.

        SageMaker publishes no such number. Each instance sends one value of its CPU a minute, so there are as many
        instances as values, with traffic or without. AWS says the same: SageMaker guide, "Asynchronous inference,
        Troubleshooting".
        """
        return self._metric(_OF_INSTANCES, "CPUUtilization", "SampleCount", "running")

    def _metric(self, namespace: str, name: str, statistic: str, label: str | None) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=namespace,
            metric_name=name,
            dimensions_map=self._dimensions,
            statistic=statistic,
            period=MINUTE,
            label=label,
        )
