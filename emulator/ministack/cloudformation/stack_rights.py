"""With whose rights a stack acts: those of its role or of the caller, not with all."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from ministack.core.responses import error_response_xml
from ministack.core.router import extract_access_key_id
from ministack.services import lambda_svc, s3, ssm
from ministack.services.cloudformation import changesets, engine, handlers, provisioners, stacks
from ministack.services.cloudformation.engine import _resolve_refs

from emulator.ministack import identity
from emulator.ministack.cloudformation.resources import handler_message
from emulator.ministack.door import passed_roles, service_keys
from emulator.ministack.door.enforcement import refusal
from emulator.ministack.door.named_resources import BOUNDARY, known_to
from emulator.ministack.patching import around, around_service
from emulator.ministack.s3.object_keys import KEY_HEADER
from emulator.platform.errors import ServiceError

#: What a template refers to: action, ARN and key, if there is such a thing.
_Named = tuple[str, str, str | None] | None

#: The access key of the caller or of a session of the stack's role; the task of a stack inherits it.
_acting: ContextVar[str] = ContextVar("acting", default="")
#: No access key: nothing is allowed to it.
_NOBODY = "nobody"
_OPERATIONS = (
    *("CreateStack", "UpdateStack", "DeleteStack", "CreateChangeSet", "ExecuteChangeSet", "RollbackStack"),
    *("ContinueUpdateRollback", "CancelUpdateStack"),
)
#: By what is done with a resource: how IAM's actions for it may begin, and where its properties are in the arguments.
_VERBS = {
    "_provision_resource": (("Create", "Put", "Add", "Register", "Run", "Request", "Associate", "Attach"), 2),
    "_update_resource": (("Update", "Put", "Modify", "Set", "Create", "Add", "Register"), 3),
    "_delete_resource": (("Delete", "Remove", "Deregister", "Terminate", "Disassociate", "Detach", "Schedule"), 2),
}
#: By the service in a type's name, where it is not IAM's name in capitals.
_NAMESPACES = {"applicationautoscaling": "application-autoscaling"}
_METHODS = {"Create": ("POST", "PUT"), "Update": ("PATCH", "PUT"), "Delete": ("DELETE",)}
#: Types that change nothing.
_INERT = ("AWS::CDK::", "AWS::CloudFormation::")
_CUSTOM = ("Custom::", "AWS::CloudFormation::CustomResource")


def install() -> None:
    """Ask IAM before CloudFormation makes, changes or deletes a resource."""
    for service in ("cloudformation", "lambda", "sagemaker"):
        around_service(service, _as_caller)
    lambda_svc._fetch_code_from_s3 = _code
    for operation in _OPERATIONS:
        handlers._ACTION_HANDLERS[operation] = functools.partial(_as_role, handlers._ACTION_HANDLERS[operation])
    for module in (provisioners, stacks):
        for name, (verbs, properties_at) in _VERBS.items():
            around(module, name, functools.partial(_change, verbs, properties_at))
    for module in (changesets, engine, handlers, provisioners, stacks):
        if hasattr(module, "_evaluate_conditions"):
            around(module, "_evaluate_conditions", _evaluate_conditions)
    around(ssm, "resolve_parameter_value", functools.partial(_read, _parameter))
    around(s3, "_get_object_data", functools.partial(_read, _object))


def actor() -> str:
    return _acting.get()


def resume(stack: Mapping[str, Any]) -> None:
    """Go on with the rights of the role of a stack, or of its last caller, after the server has ended and started."""
    try:
        _acting.set(_session(stack["_role"]) if stack.get("_role") else stack.get("_actor") or _NOBODY)
    except ServiceError:
        _acting.set(_NOBODY)


def _session(role: str) -> str:
    return identity.open_session("cloudformation.amazonaws.com", role, "AWSCloudFormation")["AWS_ACCESS_KEY_ID"]


def _read(named: Callable[..., _Named], inner: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Ask for what a template refers to, and for the key that it is encrypted with, before it is read."""
    if _acting.get() and (found := named(*arguments, **options)):
        action, arn, key_id = found
        _ask([action], arn, {})
        service = action.partition(":")[0]
        if key_id and (denied := service_keys.refused(key_id, service, ("kms:Decrypt",), _acting.get())):
            raise ValueError(handler_message(denied.message, "AccessDenied"))
    return inner(*arguments, **options)


def _parameter(name: str, *_: Any, **__: Any) -> _Named:
    record = ssm._lookup_parameter(name, allow_arn_region=True, flexible_name=True)[1]
    return ("ssm:GetParameters", record["ARN"], record["KeyId"]) if record else None


def _object(bucket: str, key: str, version_id: str | None = None) -> _Named:
    """The object that a template or the code of a function is read from."""
    record = (s3._buckets.get(bucket) or {}).get("objects", {}).get(key) or {}
    action = "s3:GetObjectVersion" if version_id else "s3:GetObject"
    return action, f"arn:aws:s3:::{bucket}/{key}", record.get("preserved_headers", {}).get(KEY_HEADER)


def _code(bucket: str, key: str, version_id: str | None = None) -> Any:
    """Read the code of a function or a layer; MiniStack makes the function without it."""
    reading = "Error occurred while GetObject. S3 Error Code"
    try:
        data = s3._get_object_data(bucket, key, version_id)
    except ValueError as denied:
        raise ServiceError("AccessDeniedException", f"{reading}: AccessDenied. {denied}", 403) from None
    if data is None:
        raise ServiceError("InvalidParameterValueException", f"{reading}: NoSuchKey: s3://{bucket}/{key}")
    return data


def _evaluate_conditions(inner: Callable[..., Any], template: dict[str, Any], params: Any) -> Any:
    """Evaluate in conditions what MiniStack leaves as it is there: pseudo parameters, mappings and other functions."""

    def known(value: Any) -> Any:
        if isinstance(value, list):
            return [known(item) for item in value]
        if isinstance(value, dict) and value.keys() & {"Fn::And", "Fn::Or", "Fn::Not", "Fn::Equals", "Condition"}:
            return {name: known(item) for name, item in value.items()}
        return _resolve_refs(value, {}, params, {}, template.get("Mappings", {}), "", "")

    conditions = {name: known(value) for name, value in (template.get("Conditions") or {}).items()}
    return inner({**template, "Conditions": conditions}, params)


async def _as_caller(
    inner: Callable[..., Any], method: str, path: str, headers: dict[str, str], body: bytes, query: Any
) -> Any:
    token = _acting.set(extract_access_key_id(headers, query))
    try:
        return await inner(method, path, headers, body, query)
    except ServiceError as error:
        return error.response()
    finally:
        _acting.reset(token)


def _as_role(inner: Callable[[Any], Any], params: Any) -> Any:
    """Act with the role that is passed, or with that of the change set or the stack, which keeps it."""

    def record() -> dict[str, Any]:
        stack_name, change_set = handlers._p(params, "StackName"), handlers._p(params, "ChangeSetName")
        if change_set:
            return changesets._find_change_set(change_set, stack_name)[1] or {}
        return handlers._resolve_stack(stack_name) or {}

    role = handlers._p(params, "RoleARN") or record().get("_role")
    if role:
        try:
            _acting.set(_session(role))
        except ServiceError:
            return error_response_xml("ValidationError", f"Role {role} is invalid or cannot be assumed", 400)
    answer = inner(params)
    if role:
        for kept in (record(), handlers._resolve_stack(handlers._p(params, "StackName")) or {}):
            kept["_role"] = role
    return answer


def _change(verbs: tuple[str, ...], properties_at: int, inner: Callable[..., Any], *arguments: Any) -> Any:
    resource_type, properties = arguments[0], arguments[properties_at]
    unchanged = properties_at == 3 and arguments[2] == properties  # CloudFormation leaves it alone
    if _acting.get() and not unchanged:
        old = (arguments[2] if properties_at == 3 else properties) or {}
        for actions, resource, context in _needed(resource_type, properties or {}, old, verbs):
            _ask(actions, resource, context)
    return inner(*arguments)


def _needed(
    resource_type: str, properties: dict[str, Any], old: dict[str, Any], verbs: tuple[str, ...]
) -> Iterator[tuple[list[str], str, Mapping[str, str | None]]]:
    """Actions, of which one has to be allowed, with resource and condition keys; `old` is what there is, or will be."""
    if resource_type.startswith(_CUSTOM):
        token = str(properties.get("ServiceToken", "*"))
        yield ["sns:Publish" if ":sns:" in token else "lambda:InvokeFunction"], token, {}
        return
    if resource_type.startswith(_INERT):
        return
    _, service, thing = resource_type.split("::", 2)
    namespace = _NAMESPACES.get(service.lower(), service.lower())
    if namespace == "apigateway":  # whose actions are HTTP's methods
        verbs, thing = _METHODS[verbs[0]], ""
    was, boundary = (each.get("PermissionsBoundary") for each in (old, properties))
    yield [f"{namespace}:{verb}{thing}" for verb in verbs], "*", {BOUNDARY: was}
    if boundary != was:
        change = "Put" if boundary else "Delete"
        yield [f"iam:{change}{thing}PermissionsBoundary"], "*", {BOUNDARY: boundary or was}
    if namespace == "iam" and verbs[0] != "Delete":
        yield ["iam:PutRolePolicy"], "*", {BOUNDARY: boundary}
        yield ["iam:AttachRolePolicy"], "*", {BOUNDARY: boundary}
    elif verbs[0] not in ("Delete", "DELETE"):
        context = {"iam:PassedToService": f"{passed_roles.PRINCIPALS.get(namespace, namespace)}.amazonaws.com"}
        for role in sorted(passed_roles.named(properties)):
            yield ["iam:PassRole"], role, context


def _ask(actions: list[str], resource: str, context: Mapping[str, str | None]) -> None:
    denials = []
    for action in actions:
        if (denied := refusal(_acting.get(), action, resource, known_to(action, context))) is None:
            return
        denials.append(denied)
    raise ValueError(handler_message(denials[0].message, "AccessDenied"))
