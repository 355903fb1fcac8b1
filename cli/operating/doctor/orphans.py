"""What of a stage no stack holds: by its tags, by its names, and in its bucket."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from cli.costs.planned import STACKS
from cli.models import registry
from cli.operating.doctor.diagnosis import Diagnosis
from cli.operating.endpoints import endpoint_config, stage_endpoints
from cli.operating.leftovers import tagged
from cli.training.ec2_instances import training_instances
from infra.bucket_layout import MODELS

#: Things of SageMaker that a stack makes, as ARNs and as its operations name them.
_SAGEMAKER = {
    "endpoint": "Endpoint",
    "endpoint-config": "EndpointConfig",
    "model": "Model",
    "notebook-instance": "NotebookInstance",
}


def orphans(found: Diagnosis) -> str:
    """Whatever costs, or will be in the way, although no deployment knows it."""
    for what, command in (*_sagemaker(found), *_targets(found), *_instances(found), *_artifacts(found)):
        found.add("warning", f"{what} belongs to no stack", command)
    return "Everything with the stage's tags and names belongs to a stack."


def _sagemaker(found: Diagnosis) -> Iterator[tuple[str, str]]:
    stage = found.stage
    held = {each["PhysicalResourceId"].rpartition("/")[2].lower() for kind in STACKS for each in stage.resources(kind)}
    for name in stage_endpoints(stage):  # one that was rolled back silently needs what no stack holds any more
        config = endpoint_config(stage, name)
        models = (variant["ModelName"] for variant in config["ProductionVariants"])
        held |= {each.lower() for each in (config["EndpointConfigName"], *models)}
    ours = {(kind.removeprefix("sagemaker:"), name.lower()) for kind, name in tagged(stage)}
    for kind, member in _SAGEMAKER.items():  # the list of tagged things is up to hours late
        for each in stage.listed("sagemaker", f"list_{kind.replace('-', '_')}s", f"{member}s"):
            name = each[f"{member}Name"]
            if (kind, name.lower()) in ours and name.lower() not in held:
                yield f"the {kind} {name}", f"aws sagemaker delete-{kind} --{kind}-name {name}"


def _targets(found: Diagnosis) -> Iterator[tuple[str, str]]:
    stage = found.stage
    held = found.names("inference", "AWS::ApplicationAutoScaling::ScalableTarget")
    prefix = f"{stage.settings.project}-{stage.name}-"
    for namespace, begin in (("sagemaker", f"endpoint/{prefix}"), ("lambda", f"function:{prefix}")):
        listing = ("application-autoscaling", "describe_scalable_targets", "ScalableTargets")
        for target in stage.listed(*listing, ServiceNamespace=namespace):
            resource, dimension = target["ResourceId"], target["ScalableDimension"]
            if resource.startswith(begin) and f"{resource}|{dimension}|{namespace}" not in held:
                command = "aws application-autoscaling deregister-scalable-target --service-namespace"
                yield (
                    f"the scalable target {resource}",
                    f"{command} {namespace} --resource-id {resource} --scalable-dimension {dimension}",
                )


def _instances(found: Diagnosis) -> Iterator[tuple[str, str]]:
    """Yield training instances that run although they should have ended themselves."""
    ec2 = found.stage.settings.training.ec2
    oldest = datetime.now(UTC) - timedelta(minutes=ec2.shutdown_minutes if ec2 else 0)
    for instance in training_instances(found.stage):
        if instance["LaunchTime"] < oldest:
            name = instance["InstanceId"]
            yield f"the instance {name}, running too long,", f"aws ec2 terminate-instances --instance-ids {name}"


def _artifacts(found: Diagnosis) -> Iterator[tuple[str, str]]:
    bucket, known = found.stage.data_bucket, {version.digest for version in registry.versions(found.stage)}
    request = {"Bucket": bucket, "Prefix": f"{MODELS}/", "Delimiter": "/"}
    for each in found.stage.listed("s3", "list_objects_v2", "CommonPrefixes", **request):
        if f"sha256:{each['Prefix'].split('/')[1]}" not in known:
            location = f"s3://{bucket}/{each['Prefix']}"
            yield f"the artifact {location}, no version of the registry,", f"aws s3 rm --recursive {location}"
