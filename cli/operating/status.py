"""`kennel status`: a stage on one screen."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import typer
from rich.table import Table

from cli.aws import Stage
from cli.console import AsJson, show
from cli.costs.planned import STACKS
from cli.costs.running import running_costs
from cli.costs.table import Total
from cli.errors import AwsError, NotReadyError, aws_errors
from cli.models import registry
from cli.operating.endpoints import endpoint_variants, environments
from cli.operating.stopping import running_jobs
from cli.training.ec2_instances import training_instances
from cli.training.job_names import JOB_KINDS

Facts = dict[str, Any]
_MINUTES = 5
#: Namespace, metric and statistic of what is said of the traffic.
_TRAFFIC = {
    "requests": ("AWS/SageMaker", "Invocations", "Sum"),
    "4xx": ("AWS/SageMaker", "Invocation4XXErrors", "Sum"),
    "5xx": ("AWS/SageMaker", "Invocation5XXErrors", "Sum"),
    "worst_p50_ms": ("AWS/SageMaker", "ModelLatency", "p50"),
    "worst_p95_ms": ("AWS/SageMaker", "ModelLatency", "p95"),
    "failed_calls": ("AWS/Lambda", "Errors", "Sum"),
    "throttled_calls": ("AWS/Lambda", "Throttles", "Sum"),
}


def read_status(stage: Stage) -> dict[str, Facts | str]:
    """Return the facts by section; a section that cannot be read is a text that says why."""
    sections: dict[str, Callable[[Stage], Facts]] = {"stacks": _stacks, "running": _running, "cost": _cost}
    if stage.find_outputs("inference"):
        sections |= {"endpoint": _endpoint, "model": _model, "traffic": _traffic, "alarms": _alarms}
        sections |= {"function": _function}
    return {name: _known(read, stage) for name, read in sections.items()}


def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show what is deployed, traffic, cost (exit code 3: nothing)."""
    stage: Stage = context.obj
    found = read_status(stage)
    table = Table.grid("", "", padding=(0, 2))
    for section, facts in found.items():
        table.add_row(section, facts if isinstance(facts, str) else ", ".join(map(_phrase, facts.items())))
    place = {"stage": stage.name, "account": stage.account, "region": stage.region}
    show({**place, **found}, f"Stage {stage.name}: {stage.place}", table)
    if "endpoint" not in found:
        text = f"The stack {stage.stack_name('inference')} is not deployed, so nothing answers."
        raise NotReadyError(text, f"Deploy it: {stage.kennel} deploy")


def _known(read: Callable[[Stage], Facts], stage: Stage) -> Facts | str:
    try:
        with aws_errors():
            return read(stage)
    except (AwsError, NotReadyError) as error:
        return f"not known: {error}"


def _phrase(fact: tuple[str, Any]) -> str:
    name, value = fact
    text = " ".join(value) if isinstance(value, list) else f"{value:.4g}" if isinstance(value, float) else value
    return f"{name.replace('_', ' ')} {'none' if text in (None, '') else text}"


def _stacks(stage: Stage) -> Facts:
    found = {kind: stage.find_stack(stage.stack_name(kind)) for kind in STACKS}
    return {kind: stack["StackStatus"] if stack else "not deployed" for kind, stack in found.items()}


def _running(stage: Stage) -> Facts:
    jobs = [f"{name} ({status})" for kind in JOB_KINDS for name, status in running_jobs(stage, kind)]
    return {"jobs": jobs, "instances": [instance["InstanceId"] for instance in training_instances(stage)]}


def _cost(stage: Stage) -> Facts:
    total = Total.of(running_costs(stage))
    return {"usd_an_hour": total.usd} | ({} if total.complete else {"prices": "some are not known: at least that"})


def _endpoint(stage: Stage) -> Facts:
    name, sagemaker = stage.output("inference", "EndpointName"), stage.client("sagemaker")
    with aws_errors(missing=NotReadyError(f"there is no endpoint {name}; deploy it: {stage.kennel} deploy")):
        facts: Facts = {"name": name, "status": sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"]}
        for variant in endpoint_variants(stage, [name]):
            if serverless := variant.get("ServerlessConfig"):
                memory, most = serverless["MemorySizeInMB"], serverless["MaxConcurrency"]
                facts |= {"kind": "serverless", "memory_mb": memory, "max_concurrency": most}
            else:
                wanted, running = variant.get("DesiredInstanceCount"), variant.get("CurrentInstanceCount")
                facts |= {"kind": variant["InstanceType"], "wanted": wanted, "running": running}
    return facts


def _model(stage: Stage) -> Facts:
    digest, version = registry.deployed_version(stage)
    known = {"version": version.number, "status": version.status} if version else {"version": "not registered"}
    return {**known, "digest": digest[:19]}


def _traffic(stage: Stage) -> Facts:
    """Ask for all metrics in one request; latencies are those of the worst minute, by which the alarms go."""
    variant = stage.settings.serving.variant_name
    dimensions = {
        "AWS/SageMaker": {"EndpointName": stage.output("inference", "EndpointName"), "VariantName": variant},
        "AWS/Lambda": {"FunctionName": stage.output("inference", "FunctionName")},
    }
    queries = []
    for number, (namespace, metric, statistic) in enumerate(_TRAFFIC.values()):
        named = [{"Name": name, "Value": value} for name, value in dimensions[namespace].items()]
        of = {"Namespace": namespace, "MetricName": metric, "Dimensions": named}
        queries.append({"Id": f"m{number}", "MetricStat": {"Metric": of, "Period": 60, "Stat": statistic}})
    end = datetime.now(UTC).replace(second=0, microsecond=0)
    request = {"StartTime": end - timedelta(minutes=_MINUTES), "EndTime": end, "MetricDataQueries": queries}
    results = stage.client("cloudwatch").get_metric_data(**request)["MetricDataResults"]
    values = {result["Id"]: result["Values"] for result in results}
    facts: Facts = {"minutes": _MINUTES}
    for number, name in enumerate(_TRAFFIC):
        points = values[f"m{number}"]
        facts[name] = (max(points) / 1000 if points else None) if name.endswith("_ms") else int(sum(points))
    return {**facts, "requests_per_s": facts["requests"] / _MINUTES / 60}


def _alarms(stage: Stage) -> Facts:
    wanted = {"AlarmNamePrefix": f"{stage.stack_name('inference')}-", "StateValue": "ALARM"}
    alarms = stage.listed("cloudwatch", "describe_alarms", "MetricAlarms", **wanted)
    return {"in_alarm": [alarm["AlarmName"] for alarm in alarms]}


def _function(stage: Stage) -> Facts:
    name, alias = stage.output("inference", "FunctionName"), stage.output("inference", "FunctionAliasArn")
    version = stage.client("lambda").get_alias(FunctionName=name, Name=alias.rpartition(":")[2])["FunctionVersion"]
    provisioned, warm = environments(stage, name)
    return {"name": name, "version": version, "provisioned": provisioned, "warm": warm}
