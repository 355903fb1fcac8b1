"""What is left of a stage that has been destroyed, found by its tags and by names, and what that goes on costing.

AWS's list of tagged resources is up to hours late, so each thing is looked for in its own service before it is named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import botocore.exceptions

from cli.aws import Stage
from cli.costs.running import endpoint_costs, job_costs
from cli.costs.table import Total
from cli.operating.log_retention import ENDPOINT_LOGS
from cli.prices import UNIT

#: What AWS's codes for "there is none" have in common; SageMaker says ValidationException.
_GONE = ("NotFound", "NoSuch", "404", "ValidationException")
#: What is billed by the month; of types that are not here nothing is, called or not.
_BY_THE_MONTH = {
    "s3:bucket": ("s3_gb_month", " for each GB"),
    "ecr:repository": ("ecr_gb_month", " for each GB"),
    "kms:key": ("key_month", ""),
    "logs:log-group": ("logs_gb_month", " for each GB"),
    "cloudwatch:alarm": ("alarm_month", ""),
    "cloudwatch:dashboard": ("dashboard_month", ""),
    "sagemaker:notebook-instance": ("sagemaker_volume_gb_month", " for each GB of its volume, and more while it runs"),
}


@dataclass(frozen=True)
class Leftover:
    """A thing that is billed although its stage was destroyed; `kept` where the settings want it to stay."""

    what: str
    price: str
    kept: bool = False


def find_leftovers(stage: Stage, kept: Collection[str]) -> list[Leftover]:
    """Return what of a stage is still billed, called or not; `kept` are the names of what shall stay."""
    left = [Leftover(cost.what, str(Total.of([cost]))) for cost in job_costs(stage)]
    for kind, name in sorted({*tagged(stage), *_named(stage)}):
        if price := _price(stage, kind, name):
            left.append(Leftover(f"{kind.rpartition(':')[2].replace('-', ' ')} {name}", price, name in kept))
    return left


def log_groups(stage: Stage, prefix: str) -> list[str]:
    """Return the names of the log groups that begin so."""
    found = stage.listed("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=prefix)
    return [group["logGroupName"] for group in found]


def tagged(stage: Stage) -> Iterator[tuple[str, str]]:
    """Yield service and type, and the name, of all that AWS lists with the stage's tags."""
    filters = [{"Key": key, "Values": [value]} for key, value in stage.tags.items()]
    listing = ("resourcegroupstaggingapi", "get_resources", "ResourceTagMappingList")
    for resource in stage.listed(*listing, TagFilters=filters):
        service, _, _, rest = resource["ResourceARN"].split(":", 5)[2:]
        kind, _, name = rest.partition(":" if service in ("cloudwatch", "logs") else "/")
        yield ("s3:bucket", kind) if service == "s3" else (f"{service}:{kind}", name)


def _named(stage: Stage) -> Iterator[tuple[str, str]]:
    """Yield what carries no tags: the log groups that SageMaker makes, and dashboards."""
    prefix = f"{stage.settings.project}-{stage.name}-"
    for group in chain(log_groups(stage, prefix), log_groups(stage, f"{ENDPOINT_LOGS}/{prefix}")):
        yield "logs:log-group", group
    for entry in stage.listed("cloudwatch", "list_dashboards", "DashboardEntries", DashboardNamePrefix=prefix):
        yield "cloudwatch:dashboard", entry["DashboardName"]


def _price(stage: Stage, kind: str, name: str) -> str | None:
    """Return what a thing costs; None where that is nothing, or where its own service does not have it any more."""
    try:
        if kind == "sagemaker:endpoint":
            costs = list(endpoint_costs(stage, [name]))
            return str(Total.of(costs)) if costs else None
        if kind in _BY_THE_MONTH and _is_there(stage.client(kind.partition(":")[0]), kind, name):
            unit, each = _BY_THE_MONTH[kind]
            return f"{UNIT[unit]:g} USD a month{each}"
    except botocore.exceptions.ClientError as error:
        if not any(part in error.response["Error"]["Code"] for part in _GONE):
            raise
    return None


def _is_there(client: Any, kind: str, name: str) -> bool:
    """Ask the thing's own service; some answer with an error that there is none."""
    match kind:
        case "s3:bucket":
            client.head_bucket(Bucket=name)
        case "ecr:repository":
            client.describe_repositories(repositoryNames=[name])
        case "kms:key":  # one that waits for its deletion costs nothing
            return "DeletionDate" not in client.describe_key(KeyId=name)["KeyMetadata"]
        case "sagemaker:notebook-instance":
            client.describe_notebook_instance(NotebookInstanceName=name)
        case "logs:log-group":
            found = client.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
            return name in [group["logGroupName"] for group in found]
        case "cloudwatch:alarm":
            found = client.describe_alarms(AlarmNames=[name], AlarmTypes=["MetricAlarm", "CompositeAlarm"])
            return bool(found.get("MetricAlarms") or found.get("CompositeAlarms"))
    return True
