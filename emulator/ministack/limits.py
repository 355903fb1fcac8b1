"""What MiniStack's Lambda and CodeBuild would take, beyond the account's quotas or without doing it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from ministack.core.responses import error_response_json
from ministack.services import codebuild, lambda_svc

from emulator.ministack.cloudformation.resources import handler_message
from emulator.ministack.functions.corrections import wrap_handlers
from emulator.ministack.functions.provisioned import provisioned_in, version_of
from emulator.ministack.patching import around
from emulator.platform.errors import Response
from emulator.quotas.service import CONCURRENT_EXECUTIONS, Quotas, builds

#: How much concurrency no function may reserve, in an account that has more than this.
_LEAST_UNRESERVED = 100
#: Variables that Lambda sets itself (Lambda's guide, "Defined runtime environment variables").
_RESERVED = frozenset(
    {
        *("_HANDLER", "_X_AMZN_TRACE_ID", "LAMBDA_RUNTIME_DIR", "LAMBDA_TASK_ROOT"),
        *("AWS_DEFAULT_REGION", "AWS_EXECUTION_ENV", "AWS_REGION", "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
        *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        *(f"AWS_LAMBDA_{name}" for name in ("FUNCTION_NAME", "FUNCTION_MEMORY_SIZE", "FUNCTION_VERSION")),
        *(f"AWS_LAMBDA_{name}" for name in ("INITIALIZATION_TYPE", "LOG_GROUP_NAME", "LOG_STREAM_NAME", "RUNTIME_API")),
    }
)
_MOST_VARIABLES = 4096  # bytes, names and values
_MACHINES = {"LINUX_CONTAINER": "Linux", "ARM_CONTAINER": "ARM"}
_SIZES = {"SMALL": "Small", "MEDIUM": "Medium", "LARGE": "Large", "XLARGE": "XLarge", "2XLARGE": "2XLarge"}


def install(quotas: Quotas) -> Callable[[], int]:
    """Refuse what goes beyond the account's quotas; return what counts the unreserved concurrency."""
    concurrency = _Concurrency(quotas.limit(CONCURRENT_EXECUTIONS))
    concurrency.install()
    around(codebuild, "_start_build", functools.partial(_start_build, quotas))
    return concurrency.unreserved


class _Concurrency:
    """The executions that functions of an account may have at once in a region, reserved or not."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._minimum = min(_LEAST_UNRESERVED, limit)

    def install(self) -> None:
        """Stand before MiniStack's Lambda, and before the functions and aliases of its CloudFormation."""
        # What MiniStack thinks that this machine can bear holds as well.
        lambda_svc._ACCOUNT_CONCURRENCY_CAP = min(lambda_svc._ACCOUNT_CONCURRENCY_CAP or self._limit, self._limit)
        around(lambda_svc, "_get_account_settings", self._account_settings)
        around(lambda_svc, "_put_function_concurrency", functools.partial(_unless, self._reservation))
        around(lambda_svc, "_put_provisioned_concurrency", functools.partial(_unless, self._provisioning))
        around(lambda_svc, "_get_provisioned_concurrency", _provisioned_concurrency)
        for name in ("_create_function", "_update_config"):
            around(lambda_svc, name, _with_variables)
        for name in ("_create_alias", "_update_alias"):
            around(lambda_svc, name, functools.partial(_unless, _weighted))
        wrap_handlers("AWS::Lambda::Function", before=self._function_of_a_stack)
        wrap_handlers("AWS::Lambda::Alias", before=self._alias_of_a_stack)

    def _account_settings(self, inner: Callable[[], Response]) -> Response:
        status, headers, body = inner()
        answer = json.loads(body)
        limits = {"ConcurrentExecutions": self._limit, "UnreservedConcurrentExecutions": self.unreserved()}
        answer["AccountLimit"] |= limits
        return status, headers, json.dumps(answer).encode()

    def _function_of_a_stack(self, identity: str, properties: Any) -> None:
        _fail(self._reservation(properties.get("FunctionName") or identity, properties) or _variables(properties))

    def _alias_of_a_stack(self, identity: str, properties: Any) -> None:
        _fail(_weighted(identity, properties))
        if config := properties.get("ProvisionedConcurrencyConfig"):
            name = str(properties["FunctionName"]).rpartition(":function:")[2].partition(":")[0]
            _fail(self._provisioning(name, properties["Name"], config))

    def unreserved(self, but: str = "") -> int:
        """Count what is left when every function but one has what it has reserved."""
        taken = (
            provisioned_in(function) if function.get("concurrency") is None else int(function["concurrency"])
            for name, function in lambda_svc._functions.items()
            if name != but
        )
        return self._limit - sum(taken)

    def _reservation(self, name: str, request: Any) -> str | None:
        if (reserved := request.get("ReservedConcurrentExecutions")) is None:
            return None
        provisioned = provisioned_in(lambda_svc._functions.get(name) or {})
        if int(reserved) < provisioned:
            return (
                f"ReservedConcurrentExecutions {reserved} should not be lower than function's total provisioned "
                f"concurrency [{provisioned}]."
            )
        if int(reserved) > 0 and self.unreserved(but=name) - int(reserved) < self._minimum:
            return self._too_little("ReservedConcurrentExecutions")
        return None

    def _provisioning(self, name: str, qualifier: str, request: Any) -> str | None:
        function = lambda_svc._functions.get(name) or {}
        if not qualifier or "$LATEST" in (qualifier, version_of(function, qualifier)):
            return "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
        wanted = int(request.get("ProvisionedConcurrentExecutions", 0)) + provisioned_in(function, but=qualifier)
        if (reserved := function.get("concurrency")) is not None:
            if wanted > int(reserved):
                return (
                    "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for "
                    "function"
                )
        elif self.unreserved(but=name) - wanted < self._minimum:
            return self._too_little("ConcurrentExecutions")
        return None

    def _too_little(self, member: str) -> str:
        return (
            f"Specified {member} for function decreases account's UnreservedConcurrentExecution below its minimum "
            f"value of [{self._minimum}]."
        )


def _with_variables(inner: Callable[..., Response], *request: Any) -> Response:
    if refused := _variables(request[-1]):
        return error_response_json("InvalidParameterValueException", refused)  # type: ignore[no-any-return]
    return inner(*request)


def _variables(function: Any) -> str | None:
    """Say what is wrong with the variables that a function is to have."""
    variables = (function.get("Environment") or {}).get("Variables") or {}
    problem = "Lambda was unable to configure your environment variables because the environment variables you have"
    if reserved := sorted(_RESERVED & variables.keys()):
        return (
            f"{problem} provided contains reserved keys that are currently not supported for modification. Reserved "
            f"keys used in this request: {', '.join(reserved)}"
        )
    size = len("".join(f"{name}{value}" for name, value in variables.items()).encode())
    return f"{problem} provided exceeded the 4KB limit." if size > _MOST_VARIABLES else None


def _unless(reason: Callable[..., str | None], inner: Callable[..., Response], name: str, *arguments: Any) -> Response:
    if name in lambda_svc._functions and (refused := reason(name, *arguments)):
        return error_response_json("InvalidParameterValueException", refused)  # type: ignore[no-any-return]
    return inner(name, *arguments)


def _weighted(name: str, *arguments: Any) -> str | None:
    """Say why an alias may not divide its calls between versions: MiniStack sends all of them to one."""
    if not (arguments[-1].get("RoutingConfig") or {}).get("AdditionalVersionWeights"):
        return None
    return "RoutingConfig.AdditionalVersionWeights: an alias has one version in the local AWS. Change FunctionVersion."


def _provisioned_concurrency(inner: Callable[..., Response], name: str, qualifier: str | None) -> Response:
    """GetProvisionedConcurrencyConfig, which has a qualifier, and ListProvisionedConcurrencyConfigs, which has none."""
    if qualifier or name not in lambda_svc._functions:
        return inner(name, qualifier)
    configs = lambda_svc._functions[name].get("provisioned_concurrency", {})
    arn = lambda_svc._func_arn(name)
    listed = [{**config, "FunctionArn": f"{arn}:{key}"} for key, config in configs.items()]
    return 200, {"Content-Type": "application/json"}, json.dumps({"ProvisionedConcurrencyConfigs": listed}).encode()


def _fail(reason: str | None) -> None:
    """Fail a resource of a stack before anything is made or changed: MiniStack would not undo what failed."""
    if reason:
        raise ValueError(handler_message(f"{reason} (Service: Lambda, Status Code: 400)", "InvalidRequest"))


def _start_build(quotas: Quotas, inner: Callable[[Any], Response], request: Any) -> Response:
    environment = codebuild._projects.get(request.get("projectName", ""), {}).get("environment", {})
    size = (request.get("computeTypeOverride") or environment.get("computeType", "")).removeprefix("BUILD_GENERAL1_")
    machine = request.get("environmentTypeOverride") or environment.get("type")
    if machine in _MACHINES and size in _SIZES:
        limit = quotas.limit(builds(_MACHINES[machine], _SIZES[size]))
        if sum(build["buildStatus"] == "IN_PROGRESS" for build in codebuild._builds.values()) >= limit:
            message = f"Cannot have more than {limit} builds in queue for the account"
            return error_response_json("AccountLimitExceededException", message)  # type: ignore[no-any-return]
    return inner(request)
