"""What a stage costs as it runs now: its endpoints, function, notebook, jobs and instances, as AWS says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from cli.aws import Stage
from cli.costs.planned import STACKS, planned_costs, warm_cost
from cli.costs.table import Cost, instances_cost
from cli.errors import aws_errors
from cli.operating.endpoints import endpoint_variants, environments, stage_endpoints
from cli.operating.stopping import running_jobs
from cli.training.ec2_instances import training_instances
from cli.training.job_names import JOB_KINDS
from infra.prices import endpoint_usd_per_hour, usd_per_hour


def running_costs(stage: Stage) -> list[Cost]:
    """Return what of a stage is billed at this moment, a row for each thing."""
    with aws_errors():
        deployed = [stack for stack in STACKS if stage.find_outputs(stack)]  # else nothing of it is there
        planned = planned_costs(stage.settings, deployed)
        there = [replace(cost, most=cost.rest, by_use="") for cost in planned if not cost.runs]
        running = (endpoint_costs(stage, stage_endpoints(stage)), _function(stage), _notebooks(stage), job_costs(stage))
        return [*there, *(cost for costs in running for cost in costs)]


def endpoint_costs(stage: Stage, names: Iterable[str]) -> Iterator[Cost]:
    """Yield what endpoints cost, a row for each variant."""
    own = (stage.find_outputs("inference") or {}).get("EndpointName")
    for variant in endpoint_variants(stage, names):
        what = f"endpoint {variant['EndpointName']}"
        stack = "inference" if variant["EndpointName"] == own else "none"
        if kind := variant.get("InstanceType"):
            count, price = variant.get("CurrentInstanceCount", 0), endpoint_usd_per_hour(kind)
            yield instances_cost(stack, what, kind, price, count, count)
        else:
            warm = variant.get("ServerlessConfig", {}).get("ProvisionedConcurrency")
            price = None if warm else 0.0
            yield Cost(stack, f"{what}, serverless", price, price, runs=True)


def job_costs(stage: Stage) -> Iterator[Cost]:
    """Yield what the trainings and batches cost that run, on SageMaker and on EC2."""
    sagemaker = stage.client("sagemaker")
    for kind, resources in (("training", "ResourceConfig"), ("transform", "TransformResources")):
        for name, _ in running_jobs(stage, kind):
            machines = getattr(sagemaker, f"describe_{kind}_job")(**{f"{JOB_KINDS[kind]}Name": name})[resources]
            instance_type, count = machines["InstanceType"], machines["InstanceCount"]
            price = usd_per_hour(instance_type, machines.get("VolumeSizeInGB", 0))
            yield instances_cost("jobs", f"{kind} job {name}", instance_type, price, count, count)
    ec2 = stage.settings.training.ec2
    for instance in training_instances(stage):
        what, instance_type = f"training instance {instance['InstanceId']}", instance["InstanceType"]
        price = usd_per_hour(instance_type, ec2.volume_gb if ec2 else 0)
        yield instances_cost("jobs", what, instance_type, price, 1, 1)


def _function(stage: Stage) -> Iterator[Cost]:
    name = (stage.find_outputs("inference") or {}).get("FunctionName")
    if name and (warm := environments(stage, name)[0]):
        memory = stage.client("lambda").get_function_configuration(FunctionName=name)["MemorySize"]
        yield warm_cost(memory, warm, warm)


def _notebooks(stage: Stage) -> Iterator[Cost]:
    wanted = {"NameContains": f"{stage.settings.project}-{stage.name}-", "StatusEquals": "InService"}
    for notebook in stage.listed("sagemaker", "list_notebook_instances", "NotebookInstances", **wanted):
        kind = notebook["InstanceType"]
        what = f"notebook {notebook['NotebookInstanceName']}"
        yield instances_cost("training", what, kind, usd_per_hour(kind), 1, 1)
