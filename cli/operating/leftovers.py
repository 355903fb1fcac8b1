"""What is left of a stage that has been destroyed, found by its tags and by names, and what that goes on costing.

AWS's list of tagged resources is up to hours late, so each thing is looked for in its own service before it is named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain

import botocore.exceptions

from cli.aws import Stage
from cli.costs.running import endpoint_costs, job_costs
from cli.costs.table import Total
from cli.operating.endpoints import stage_endpoints
from cli.operating.log_retention import ENDPOINT_LOGS
from infra.prices import UNIT

#: What AWS's codes for "there is none" have in common; SageMaker says ValidationException.
_GONE = ("NotFound", "NoSuch", "404", "ValidationException")
_PER_GB = " for each GB"
#: What is billed by the month: what fails where there is none of the name, and the price.
_BY_THE_MONTH = {
    "s3:bucket": ("head_bucket", "Bucket", "s3_gb_month", _PER_GB),
    "ecr:repository": ("list_images", "repositoryName", "ecr_gb_month", _PER_GB),
    "kms:key": ("describe_key", "KeyId", "key_month", ""),
    "logs:log-group": ("describe_log_streams", "logGroupName", "logs_gb_month", _PER_GB),
    "cloudwatch:alarm": ("describe_alarms", "AlarmNamePrefix", "alarm_month", ""),
    "cloudwatch:dashboard": ("get_dashboard", "DashboardName", "dashboard_month", ""),
    "sagemaker:notebook-instance": (
        *("describe_notebook_instance", "NotebookInstanceName", "sagemaker_volume_gb_month"),
        f"{_PER_GB} of its volume, and more while it runs",
    ),
}


@dataclass(frozen=True)
class Leftover:
    """A thing that is billed although its stage was destroyed; `kept` where the settings want it to stay."""

    what: str
    price: str
    kept: bool = False


def find_leftovers(stage: Stage, kept: Collection[str]) -> list[Leftover]:
    """Return what of a stage is still billed, called or not; `kept` are the names of what shall stay."""
    running = chain(job_costs(stage), endpoint_costs(stage, stage_endpoints(stage)))
    left = [Leftover(cost.what, str(Total.of([cost]))) for cost in running]
    for kind, name in sorted({*tagged(stage), *_named(stage)}):
        if kind in _BY_THE_MONTH and (price := _price(stage, kind, name)):
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
    """Yield what carries no tags: the log groups that SageMaker makes, the alarms of scaling, and dashboards."""
    own = f"{stage.settings.project}-{stage.name}"
    for group in chain(log_groups(stage, f"{own}-"), log_groups(stage, f"{ENDPOINT_LOGS}/{own}-")):
        yield "logs:log-group", group
    for begin in ("", "TargetTracking-endpoint/", "TargetTracking-function:"):
        for alarm in stage.listed("cloudwatch", "describe_alarms", "MetricAlarms", AlarmNamePrefix=f"{begin}{own}-"):
            yield "cloudwatch:alarm", alarm["AlarmName"]
    for entry in stage.listed("cloudwatch", "list_dashboards", "DashboardEntries", DashboardNamePrefix=own):
        if f"{entry['DashboardName']}-".startswith(f"{own}-"):
            yield "cloudwatch:dashboard", entry["DashboardName"]


def _price(stage: Stage, kind: str, name: str) -> str | None:
    """Return what a thing costs; None where that is nothing, or where its own service does not have it any more."""
    operation, parameter, unit, each = _BY_THE_MONTH[kind]
    try:
        answer = getattr(stage.client(kind.partition(":")[0]), operation)(**{parameter: name})
    except botocore.exceptions.ClientError as error:
        if any(part in error.response["Error"]["Code"] for part in _GONE):
            return None
        raise
    if "DeletionDate" in answer.get("KeyMetadata", ()) or answer.get("MetricAlarms") == []:
        return None  # a key that waits for its deletion costs nothing
    return f"{UNIT[unit]:g} USD a month{each}"
