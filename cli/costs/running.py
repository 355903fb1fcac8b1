"""What a stage costs as it runs now: its endpoints, function, notebook, jobs and instances, as AWS says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from cli.aws import Stage
from cli.costs.planned import STACKS, planned_costs, warm_cost
from cli.costs.table import Cost, instances_cost
from cli.errors import aws_errors
from cli.operating.endpoints import endpoint_variants, stage_endpoints
from cli.operating.stopping import running_jobs
from cli.training.ec2_instances import training_instances
from cli.training.job_names import JOB_KINDS


def running_costs(stage: Stage) -> list[Cost]:
    """Return what of a stage is billed at this moment, a row for each thing."""
    with aws_errors():
        deployed = [stack for stack in STACKS if stage.find_stack(stage.stack_name(stack))]
        planned = planned_costs(stage.settings, deployed)
        there = [replace(cost, most=cost.rest, by_use="") for cost in planned if not cost.runs]
        running = (endpoint_costs(stage, stage_endpoints(stage)), _function(stage), _notebooks(stage), job_costs(stage))
        return [*there, *(cost for costs in running for cost in costs)]


def endpoint_costs(stage: Stage, names: Iterable[str]) -> Iterator[Cost]:
    """Yield what endpoints cost, a row for each variant."""
    for variant in endpoint_variants(stage, names):
        what = f"endpoint {variant['EndpointName']}"
        if "InstanceType" in variant:
            yield _instances("inference", what, variant["InstanceType"], variant.get("CurrentInstanceCount", 0))
        else:
            warm = variant.get("ServerlessConfig", {}).get("ProvisionedConcurrency")
            price = None if warm else 0.0
            yield Cost("inference", f"{what}, serverless", price, price, runs=True)


def job_costs(stage: Stage) -> Iterator[Cost]:
    """Yield what the trainings and batches cost that run, on SageMaker and on EC2."""
    sagemaker = stage.client("sagemaker")
    for kind, resources in (("training", "ResourceConfig"), ("transform", "TransformResources")):
        for name, _ in running_jobs(stage, kind):
            machines = getattr(sagemaker, f"describe_{kind}_job")(**{f"{JOB_KINDS[kind]}Name": name})[resources]
            yield _instances("jobs", f"{kind} job {name}", machines["InstanceType"], machines["InstanceCount"])
    for instance in training_instances(stage):
        yield _instances("jobs", f"training instance {instance['InstanceId']}", instance["InstanceType"])


def _function(stage: Stage) -> Iterator[Cost]:
    if name := (stage.find_outputs("inference") or {}).get("FunctionName"):
        listing = ("list_provisioned_concurrency_configs", "ProvisionedConcurrencyConfigs")
        configs = stage.listed("lambda", *listing, FunctionName=name)
        if warm := sum(config["RequestedProvisionedConcurrentExecutions"] for config in configs):
            memory = stage.client("lambda").get_function_configuration(FunctionName=name)["MemorySize"]
            yield warm_cost(memory, warm, warm)


def _notebooks(stage: Stage) -> Iterator[Cost]:
    wanted = {"NameContains": f"{stage.settings.project}-{stage.name}-", "StatusEquals": "InService"}
    for notebook in stage.listed("sagemaker", "list_notebook_instances", "NotebookInstances", **wanted):
        yield _instances("training", f"notebook {notebook['NotebookInstanceName']}", notebook["InstanceType"])


def _instances(stack: str, what: str, instance_type: str, count: int = 1) -> Cost:
    return instances_cost(stack, what, instance_type, count, count)
