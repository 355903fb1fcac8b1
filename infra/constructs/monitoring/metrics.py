"""The metrics of the endpoint, as SageMaker publishes them; alarms and dashboard name them here only."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch

MINUTE = Duration.minutes(1)


class EndpointMetrics:
    """Metrics of the only variant of an endpoint, by the minute, as SageMaker sends them.

    Source: SageMaker guide, "Amazon SageMaker AI metrics in Amazon CloudWatch".
    """

    def __init__(self, endpoint_name: str, variant_name: str) -> None:
        self._dimensions = {"EndpointName": endpoint_name, "VariantName": variant_name}

    def of(
        self,
        name: str,
        statistic: str,
        label: str | None = None,
        *,
        namespace: str = "AWS/SageMaker",
        config_name: str | None = None,
    ) -> cloudwatch.Metric:
        """Return a metric; `config_name`: of the instances of this configuration only."""
        return cloudwatch.Metric(
            namespace=namespace,
            metric_name=name,
            dimensions_map=self._dimensions | ({"EndpointConfigName": config_name} if config_name else {}),
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
        return self.of("CPUUtilization", "SampleCount", "running", namespace="/aws/sagemaker/Endpoints")
