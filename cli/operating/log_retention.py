"""How long CloudWatch keeps what SageMaker logs.

SageMaker makes its log groups itself, and they never expire: one for each endpoint, and for each kind of job one that
the whole account shares. No stack can own them: those of the jobs may be there already, and the name of an endpoint,
which is in its group's, is generated. So they are limited once a deployment is done.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import botocore.exceptions

from cli.aws import Stage
from cli.batch.job import LOG_GROUP as TRANSFORM_LOGS
from cli.console import console
from cli.errors import aws_errors
from cli.training.sagemaker import LOG_GROUP as TRAINING_LOGS

ENDPOINT_LOGS = "/aws/sagemaker/Endpoints"
_NOTEBOOK_LOGS = "/aws/sagemaker/NotebookInstances"


def limit_logs(stage: Stage, kinds: Iterable[str]) -> None:
    """Make SageMaker's logs for stacks of these kinds expire, unless somebody has given them a retention."""
    logs = stage.client("logs")
    with aws_errors():
        for group, days in sagemaker_log_groups(stage, kinds).items():
            try:
                with suppress(logs.exceptions.ResourceAlreadyExistsException):
                    logs.create_log_group(logGroupName=group)  # before SageMaker writes the first line
                # Sorted by name: the group itself comes before all whose names only begin like it.
                (found,) = logs.describe_log_groups(logGroupNamePrefix=group, limit=1)["logGroups"]
                if "retentionInDays" not in found:
                    logs.put_retention_policy(logGroupName=group, retentionInDays=days)
            except botocore.exceptions.ClientError as error:
                if error.response["Error"]["Code"] != "AccessDeniedException":
                    raise
                console.print(f"The log group {group} may never expire: {error.response['Error']['Message']}")


def sagemaker_log_groups(stage: Stage, kinds: Iterable[str]) -> dict[str, int]:
    """Return the groups that SageMaker makes for stacks of these kinds, and the days that the settings say."""
    settings, groups = stage.settings, dict[str, int]()
    if "training" in kinds:
        groups[TRAINING_LOGS] = settings.training.log_retention_days
        if settings.notebook:
            groups[_NOTEBOOK_LOGS] = settings.training.log_retention_days
    if "inference" in kinds:
        groups[TRANSFORM_LOGS] = settings.serving.log_retention_days
        groups[f"{ENDPOINT_LOGS}/{stage.output('inference', 'EndpointName')}"] = settings.serving.log_retention_days
    return groups
