"""What could break half-way through a deployment of the inference stack, asked for before anything starts.

Quotas are found by their names, as Service Quotas lists them: those of SageMaker have a code for each instance type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cli.aws import Stage
from cli.console import console
from cli.errors import AwsError, NotReadyError, aws_errors
from cli.operating.endpoints import endpoint_variants, environments
from cli.operating.stopping import running_jobs
from cli.serving.container_image import is_pushed
from infra import instance_types

#: Lambda leaves so much of the account's concurrency to functions that have reserved none; of a smaller quota, all.
_UNRESERVED = 100
_ALL_ENDPOINTS = "Number of instances across active endpoints"
_BUILDS = {"arm64": "ARM", "x86_64": "Linux"}
#: Of a quota that is used to this share, a person is told.
_NEARLY = 0.8
_RAISE = "or have the quota raised: Service Quotas in the AWS console, in this region"


@dataclass
class Findings:
    """What was found: what the deployment would fail on, what full load would, and what could not be asked."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    def check(self, what: str, check: Callable[[], None]) -> None:
        """Run a check; one that AWS does not let us make is no success."""
        try:
            with aws_errors():
                check()
        except AwsError as error:
            self.unchecked.append(f"{what}: {error}")


def require_room(stage: Stage, *, now: bool = True) -> None:
    """Refuse a deployment of the inference stack that would fail, with all reasons; warnings while it is not `now`."""
    found = find_room(stage)
    found.check("transform jobs", lambda: _check_batches(stage, found))
    for line in found.unchecked:
        console.print(f"not checked: {line}")
    for line in found.warnings + ([] if now else found.errors):
        console.print(f"warning: {line}")
    if found.errors and now:
        raise NotReadyError("\n  ".join(["This deployment would fail or break something:", *found.errors]))


def find_room(stage: Stage) -> Findings:
    """Compare what the stage needs with the quotas, as its settings are."""
    found = Findings()
    found.check("Lambda's concurrency", lambda: _check_concurrency(stage, found))
    if stage.settings.serving.kind == "instance":
        found.check("quotas for endpoint instances", lambda: _check_endpoint_instances(stage, found))
    if stage.settings.serving.image == "own":
        found.check("quota for CodeBuild's builds", lambda: _check_builds(stage, found))
    return found


def _check_concurrency(stage: Stage, found: Findings) -> None:
    function = stage.settings.function
    limit = stage.client("lambda").get_account_settings()["AccountLimit"]
    # Reserved concurrency holds what is provisioned, too.
    needed = function.reserved_concurrency or function.provisioned_concurrency
    setting, less = "provisioned_concurrency", "lower it, or set 0 for none,"
    if function.reserved_concurrency:
        setting, less = "reserved_concurrency", "lower it, or leave it out,"
    unreserved = min(_UNRESERVED, limit["ConcurrentExecutions"])
    spare = limit["UnreservedConcurrentExecutions"] + _own_concurrency(stage) - unreserved
    where = (
        f"Lambda leaves {max(spare, 0)} of the account's {limit['ConcurrentExecutions']} concurrent executions to be "
        f"reserved or provisioned (quota 'Concurrent executions')"
    )
    if needed > spare:
        found.errors.append(f"{where}, and {setting} is {needed}: {less} in {stage.settings_file}, {_RAISE}.")
    elif not function.reserved_concurrency and (most := function.warm[1]) > spare:
        found.warnings.append(f"{where}, and function.scaling.max_provisioned is {most}.")
    elif limit["UnreservedConcurrentExecutions"] <= (1 - _NEARLY) * limit["ConcurrentExecutions"]:
        found.warnings.append(f"{where}: {_RAISE[3:]}.")


def _own_concurrency(stage: Stage) -> int:
    name = (stage.find_outputs("inference") or {}).get("FunctionName")
    if name is None:
        return 0
    reserved = stage.client("lambda").get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")
    return environments(stage, name)[0] if reserved is None else int(reserved)


def _check_endpoint_instances(stage: Stage, found: Findings) -> None:
    serving = stage.settings.serving
    own_name = (stage.find_outputs("inference") or {}).get("EndpointName")
    endpoints = stage.listed("sagemaker", "list_endpoints", "Endpoints")
    used = [
        (variant["EndpointName"], variant["InstanceType"], variant.get("CurrentInstanceCount", 0))
        for variant in endpoint_variants(stage, (endpoint["EndpointName"] for endpoint in endpoints))
        if "InstanceType" in variant  # a serverless variant has none
    ]
    of_the_type = f"{serving.instance_type} for endpoint usage"
    quotas = _quotas(stage, "sagemaker", [of_the_type, _ALL_ENDPOINTS], found)
    for name, quota in quotas.items():
        counts = [
            (endpoint, count)
            for endpoint, kind, count in used
            if name == _ALL_ENDPOINTS or kind == serving.instance_type
        ]
        all_of_them = sum(count for _, count in counts)
        own = sum(count for endpoint, count in counts if endpoint == own_name)
        # An update is blue/green: as many new instances as there are run beside the old ones.
        wanted = own or serving.initial_instances
        update = " to run the old and the new instances of an update side by side" if own else ""
        text = f"quota {name!r} is {quota:.0f}, and {all_of_them} are in use"
        if all_of_them + wanted > quota:
            found.errors.append(
                f"{text}; {wanted} more are needed{update}: use another serving.instance_type, {_RAISE}."
            )
        elif (most := all_of_them - own + 2 * serving.instances[1]) > quota:
            found.warnings.append(f"{text}; {most} are needed to deploy an update at full load.")
        elif all_of_them >= _NEARLY * quota:
            found.warnings.append(f"{text}: {_RAISE[3:]}.")


def _check_builds(stage: Stage, found: Findings) -> None:
    platform = _BUILDS[instance_types.architecture(stage.settings.serving.instance_type)]
    name = f"Concurrently running builds for {platform}/Small environment"
    if _quotas(stage, "codebuild", [name], found).get(name, 1) < 1 and not is_pushed(stage):
        found.errors.append(
            f"quota {name!r} is 0, so CodeBuild cannot build the serving image: build and push it from this machine "
            f"(kennel deploy storage, then kennel image push), {_RAISE}."
        )


def _check_batches(stage: Stage, found: Findings) -> None:
    """A transform job reads with the role of its model, which goes with the model when another one is deployed."""
    for name, _ in running_jobs(stage, "transform"):
        found.errors.append(
            f"the transform job {name} still runs with the deployed model, which a deployment may replace: wait for "
            "it, or stop it with kennel batch FOLDER --stop."
        )


def _quotas(stage: Stage, service: str, names: list[str], found: Findings) -> dict[str, float]:
    """Return quotas by name: the account's, and AWS's default where it has no own; those that are not listed, not."""
    values, missing = dict[str, float](), set(names)
    for operation in ("list_service_quotas", "list_aws_default_service_quotas"):
        for quota in stage.listed("service-quotas", operation, "Quotas", ServiceCode=service) if missing else ():
            if quota["QuotaName"] in missing and "Value" in quota:
                values[quota["QuotaName"]] = quota["Value"]
        missing -= values.keys()
    found.unchecked += [f"the quota {name!r}, which Service Quotas does not list" for name in sorted(missing)]
    return values
