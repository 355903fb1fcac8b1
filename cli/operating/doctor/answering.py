"""Checks of what answers and what scales it: endpoint, model, function and its URL."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from cli.models import registry
from cli.operating.doctor.diagnosis import Diagnosis
from cli.operating.verifying import other_configuration

#: What a call of the function URL needs since October 2025.
_CALLS = ("lambda:InvokeFunctionUrl", "lambda:InvokeFunction")


def endpoint(found: Diagnosis) -> str:
    """A failed update can be rolled back silently, and the endpoint look InService with the model before."""
    name = found.endpoint
    described = found.find("sagemaker", "describe_endpoint", EndpointName=name)
    if described is None:
        return found.problem(f"there is no endpoint {name}; the cost guard may have deleted an idle one", found.deploy)
    status = described["EndpointStatus"]
    if status in ("Creating", "Updating", "SystemUpdating"):
        return found.add("warning", f"{name} is {status}", "wait until it is InService")
    if status != "InService":
        found.problem(f"{name} is {status}: {described.get('FailureReason')}", found.deploy)
    if problem := other_configuration(found.stage, name):
        found.problem(problem, f"{found.deploy}, after reading the log group /aws/sagemaker/Endpoints/{name}")
    rollback = described.get("LastDeploymentConfig", {}).get("AutoRollbackConfiguration", {}).get("Alarms", [])
    if lost := {alarm["AlarmName"] for alarm in rollback} - found.alarms.keys():
        found.problem(f"{name} would roll back by alarms that are not there: {', '.join(lost)}")
    return f"{name} is {status} with the configuration of the stack, {described['EndpointConfigName']}"


def model(found: Diagnosis) -> str:
    """The deployed model is an approved version of the registry."""
    kennel, (digest, version) = found.stage.kennel, registry.deployed_version(found.stage)
    if version is None:
        fix = f"{kennel} package registers a model; then {found.deploy}"
        return found.add("warning", f"the deployed model {digest[:19]} is no version of the registry", fix)
    text, approve = f"version {version.number} is {version.status}", f"{kennel} models approve {version.number}"
    if version.status == registry.REJECTED:
        found.problem(text, f"{kennel} models rollback, or {approve}")
    elif version.status != registry.APPROVED:
        found.add("warning", text, approve)
    return text


def function_url(found: Diagnosis) -> str:
    """Callers of other accounts need both permissions here; those of this account have them by IAM."""
    settings, name = found.stage.settings.function, found.function
    named = {"FunctionName": name, "Qualifier": found.alias}
    url = found.find("lambda", "get_function_url_config", **named)
    if url is None:
        return found.problem(f"{name}:{found.alias} has no URL")
    if (auth := url["AuthType"]) != settings.url_auth:
        found.problem(f"AuthType is {auth}, function.url_auth is {settings.url_auth}")
    wanted = {"*"} if settings.url_auth == "NONE" else set(settings.invokers)
    policy = found.find("lambda", "get_policy", **named)
    allowed = defaultdict[str, set[str]](set)
    for statement in json.loads(policy["Policy"])["Statement"] if policy else ():
        callers = _principals(statement["Principal"])
        allowed[statement["Action"]] |= callers
        if others := ", ".join(sorted(callers - wanted)):
            remove = f"aws lambda remove-permission --function-name {name} --qualifier {found.alias} --statement-id"
            found.problem(f"{others} may call it, whom function.invokers does not name", f"{remove} {statement['Sid']}")
    for action in _CALLS:
        if lost := ", ".join(sorted(wanted - allowed[action])):
            found.problem(f"{lost} may not {action} on {name}:{found.alias}")
    return f"AuthType {auth}; both permissions of {', '.join(sorted(wanted)) or 'this account, by IAM alone'}"


def warm(found: Diagnosis) -> str:
    """Provisioned concurrency is READY."""
    if not found.stage.settings.function.provisioned_concurrency:
        return "function.provisioned_concurrency is 0."
    named = {"FunctionName": found.function, "Qualifier": found.alias}
    config = found.find("lambda", "get_provisioned_concurrency_config", **named)
    if config is None:
        return found.problem(f"{found.function}:{found.alias} has no provisioned concurrency")
    text = f"{config['Status']}: {config['RequestedProvisionedConcurrentExecutions']} requested"
    if config["Status"] == "FAILED":
        found.problem(
            f"{text}; {config.get('StatusReason')}", "lower function.provisioned_concurrency, or raise the quota"
        )
    elif config["Status"] != "READY":
        found.add("warning", text, "wait until it is READY")
    return text


def scaling(found: Diagnosis) -> str:
    """Compare the scalable targets with the settings; a schedule may have set other limits."""
    serving, function = found.stage.settings.serving, found.stage.settings.function
    if serving.scaling:
        resource = f"endpoint/{found.endpoint}/variant/{serving.variant_name}"
        _target(found, "sagemaker", resource, serving.scaling.all_limits)
    if function.scaling:
        _target(found, "lambda", f"function:{found.function}:{found.alias}", function.scaling.all_limits)
    return "Targets, limits and alarms of the policies are those of the settings."


def _target(found: Diagnosis, namespace: str, resource: str, limits: list[tuple[int, int]]) -> None:
    service, given = "application-autoscaling", {"ServiceNamespace": namespace}
    listing = ("describe_scalable_targets", "ScalableTargets")
    listed = found.stage.listed(service, *listing, ResourceIds=[resource], **given)
    if (target := next(listed, None)) is None:
        found.problem(f"{resource} is not registered as a scalable target")
        return
    of = f"--service-namespace {namespace} --resource-id {resource} --scalable-dimension {target['ScalableDimension']}"
    again = f"aws application-autoscaling register-scalable-target {of}"
    if (now := (target["MinCapacity"], target["MaxCapacity"])) not in limits:
        low, high = limits[0]
        text = f"{resource} has the limits {now}, the settings say {' or '.join(map(str, limits))}"
        found.problem(text, f"{found.deploy}; if they stay: {again} --min-capacity {low} --max-capacity {high}")
    if stopped := [what for what, is_so in target.get("SuspendedState", {}).items() if is_so]:
        go_on = ",".join(f"{what}=false" for what in stopped)
        found.problem(f"{resource} has {', '.join(stopped)}", f"{again} --suspended-state {go_on}")
    policies = found.stage.listed(service, "describe_scaling_policies", "ScalingPolicies", ResourceId=resource, **given)
    wired = {alarm["AlarmName"] for policy in policies for alarm in policy.get("Alarms", [])}
    if not wired or (wired := wired - found.alarms.keys()):
        found.problem(f"{resource} does not scale; lost: {', '.join(wired) or 'its policy'}")


def _principals(principal: Any) -> set[str]:
    """Return who a statement is about; `*` is everybody."""
    named = principal.values() if isinstance(principal, dict) else [principal]
    return {one for each in named for one in ([each] if isinstance(each, str) else each)}
