"""Application Auto Scaling: scalable targets, policies and scheduled actions, recorded and checked as AWS does."""

from __future__ import annotations

import functools
import re
import time
import uuid
from collections.abc import Callable, Iterable

from emulator.platform.awsapi import Caller, Payload, Service, ServiceError, operation, page
from emulator.platform.errors import refuse
from emulator.platform.host import Host
from emulator.platform.store import Record, Store, Table

_SERVICE = "application-autoscaling"
_TARGETS, _POLICIES, _ACTIONS = "scalable-target", "scaling-policy", "scheduled-action"
#: Between the parts of a record's name; AWS allows this character in none of them.
_SEPARATOR = "\x1f"
_PAGE_SIZE = 50
_MAX_TAGS = 50
_TARGET_MEMBERS = ("ServiceNamespace", "ResourceId", "ScalableDimension")
#: How a resource is written, by its dimension.
_RESOURCE_IDS = {
    "sagemaker:variant:DesiredInstanceCount": r"endpoint/(?P<endpoint>[\w-]+)/variant/(?P<variant>[\w-]+)",
    "lambda:function:ProvisionedConcurrency": r"function:[\w-]+:[\w-]+",
}
_SERVICE_ROLES = {"sagemaker": "SageMakerEndpoint", "lambda": "LambdaConcurrency"}
_NOT_SUSPENDED = {
    "DynamicScalingInSuspended": False,
    "DynamicScalingOutSuspended": False,
    "ScheduledScalingSuspended": False,
}


def deregister(store: Store, region: str, namespace: str, resource_ids: Iterable[str]) -> None:
    """Forget targets, policies and scheduled actions of resources that have been deleted."""
    for resource_id in resource_ids:
        for kind in (_TARGETS, _POLICIES, _ACTIONS):
            store.table(_SERVICE, kind).delete_all(_key(region, namespace, resource_id, ""))


class ApplicationAutoScaling(Service):
    """The service; policies and schedules do not act yet."""

    name = _SERVICE

    def __init__(self, host: Host) -> None:
        super().__init__(host.account)
        self._store = Store(host.state_dir)
        self._targets = self._store.table(_SERVICE, _TARGETS)
        self._policies = self._store.table(_SERVICE, _POLICIES)
        self._actions = self._store.table(_SERVICE, _ACTIONS)
        self._endpoints = self._store.table("sagemaker", "endpoint")
        self.register(self)
        for table, members, name, arn in (
            (self._targets, "ScalableTargets", "ResourceId", "ScalableTargetARN"),
            (self._policies, "ScalingPolicies", "PolicyName", "PolicyARN"),
            (self._actions, "ScheduledActions", "ScheduledActionName", "ScheduledActionARN"),
            # Nothing has been scaled: policies do not act yet.
            (self._store.table(_SERVICE, "scaling-activity"), "ScalingActivities", "ActivityId", "ActivityId"),
        ):
            self._handlers[f"Describe{members}"] = functools.partial(self._list, table, members, name, arn)
        self._handlers["DeleteScalingPolicy"] = functools.partial(self._delete, self._policies, "PolicyName")
        self._handlers["DeleteScheduledAction"] = functools.partial(self._delete, self._actions, "ScheduledActionName")

    def resource_arns(self, operation: str, payload: Payload, caller: Caller) -> list[str]:
        """The scalable target that a call is about; lists and targets that do not exist yet have none."""
        if "ResourceARN" in payload:
            return [payload["ResourceARN"]]
        if not all(member in payload for member in _TARGET_MEMBERS):
            return ["*"]
        target = self._targets.get(_target_key(payload, caller))
        return [target["ScalableTargetARN"]] if target else ["*"]

    @operation("RegisterScalableTarget")
    def register_scalable_target(self, request: Payload, caller: Caller) -> Payload:
        self._check_resource(request, caller)
        key = _target_key(request, caller)
        with self._store.transaction():
            existing = self._targets.get(key)
            record = {**(existing or _new_target(request, caller)), **request}
            for bound in ("MinCapacity", "MaxCapacity"):
                refuse(bound not in record, f"{bound} is required to register a new scalable target.")
            upside_down = record["MinCapacity"] > record["MaxCapacity"]
            refuse(upside_down, "Maximum capacity cannot be less than minimum capacity.")
            tagged = existing and "Tags" in request
            refuse(tagged, "Tags can only be given to a new scalable target; use TagResource.")
            before = existing["SuspendedState"] if existing else _NOT_SUSPENDED
            record["SuspendedState"] = {**before, **request.get("SuspendedState", {})}
            self._targets.put(key, record)
        return {"ScalableTargetARN": record["ScalableTargetARN"]}

    @operation("DeregisterScalableTarget")
    def deregister_scalable_target(self, request: Payload, caller: Caller) -> None:
        self._require_target(request, caller)
        with self._store.transaction():  # a resource has one dimension here
            deregister(self._store, caller.region, request["ServiceNamespace"], [request["ResourceId"]])

    @operation("PutScalingPolicy")
    def put_scaling_policy(self, request: Payload, caller: Caller) -> Payload:
        policy_type = request.get("PolicyType", "StepScaling")
        member = f"{policy_type}PolicyConfiguration"
        with self._store.transaction():
            key, existing = self._find(self._policies, request, caller, "PolicyName")
            refuse(member not in request and existing is None, f"A {policy_type} policy needs a {member}.")
            if policy_type == "TargetTrackingScaling" and member in request:
                _check_target_tracking(request[member])
            record = {
                **(existing or _created("scalingPolicy", "PolicyName", request, caller)),
                **request,
                "PolicyType": policy_type,
            }
            record["Alarms"] = _alarms(record, caller)
            self._policies.put(key, record)
        return {"PolicyARN": record["PolicyARN"], "Alarms": record["Alarms"]}

    @operation("PutScheduledAction")
    def put_scheduled_action(self, request: Payload, caller: Caller) -> None:
        schedule = request.get("Schedule")
        wrong = schedule is not None and not re.fullmatch(r"(at|rate|cron)\(.+\)", schedule)
        refuse(wrong, f"Schedule expression {schedule!r} is none of at(…), rate(…), cron(…).")
        with self._store.transaction():
            key, existing = self._find(self._actions, request, caller, "ScheduledActionName")
            without = existing is None and (schedule is None or "ScalableTargetAction" not in request)
            refuse(without, "A new action needs a Schedule and a ScalableTargetAction.")
            created = existing or _created("scheduledAction", "ScheduledActionName", request, caller)
            self._actions.put(key, {**created, **request})

    @operation("TagResource")
    def tag_resource(self, request: Payload, caller: Caller) -> None:
        self._change_tags(request, caller, lambda tags: {**tags, **request["Tags"]})

    @operation("UntagResource")
    def untag_resource(self, request: Payload, caller: Caller) -> None:
        self._change_tags(request, caller, lambda tags: {k: v for k, v in tags.items() if k not in request["TagKeys"]})

    @operation("ListTagsForResource")
    def list_tags_for_resource(self, request: Payload, caller: Caller) -> Payload:
        return {"Tags": self._require_arn(request["ResourceARN"], caller).get("Tags", {})}

    def _change_tags(self, request: Payload, caller: Caller, change: Callable[[Payload], Payload]) -> None:
        with self._store.transaction():
            record = self._require_arn(request["ResourceARN"], caller)
            record["Tags"] = change(record.get("Tags", {}))
            if len(record["Tags"]) > _MAX_TAGS:
                raise ServiceError("TooManyTagsException", f"A scalable target has at most {_MAX_TAGS} tags.")
            self._targets.put(_target_key(record, caller), record)

    def _check_resource(self, request: Payload, caller: Caller) -> None:
        """Refuse resources that do not exist, and all but variants and functions; a function is not looked up."""
        namespace, resource_id, dimension = (request[member] for member in _TARGET_MEMBERS)
        refuse(
            dimension not in _RESOURCE_IDS or not dimension.startswith(f"{namespace}:"),
            f"Unsupported service namespace, resource type or scalable dimension: {namespace}, {dimension}. "
            f"The local AWS scales {', '.join(_RESOURCE_IDS)}.",
        )
        match = re.fullmatch(_RESOURCE_IDS[dimension], resource_id)
        refuse(match is None, f"Unsupported resource ID for {dimension}: {resource_id}")
        if match is None or namespace != "sagemaker":
            return
        arn = f"arn:aws:sagemaker:{caller.region}:{caller.account}:endpoint/{match['endpoint'].lower()}"
        fleet = (self._endpoints.get(arn) or {}).get("Fleet", {"Variants": []})
        missing = all(variant["VariantName"] != match["variant"] for variant in fleet["Variants"])
        refuse(missing, f"SageMaker endpoint or variant doesn't exist: {resource_id}")

    def _require_target(self, request: Payload, caller: Caller) -> None:
        if self._targets.get(_target_key(request, caller)) is None:
            raise _not_found("scalable target registered", request)

    def _require_arn(self, arn: str, caller: Caller) -> Record:
        for record in self._targets.list(_key(caller.region, "")):
            if record["ScalableTargetARN"] == arn:
                return record
        message = f"No scalable target has the ARN {arn}."
        raise ServiceError("ResourceNotFoundException", message, fields={"ResourceName": arn})

    def _find(self, table: Table, request: Payload, caller: Caller, member: str) -> tuple[str, Record | None]:
        """The key of a policy or an action of a registered target, and its record."""
        self._require_target(request, caller)
        key = _key(_target_key(request, caller), request[member])
        return key, table.get(key)

    def _delete(self, table: Table, member: str, request: Payload, caller: Caller) -> None:
        key = _key(_target_key(request, caller), request[member])
        with self._store.transaction():
            if table.get(key) is None:
                raise _not_found(f"{member} {request[member]} found", request)
            table.delete(key)

    def _list(
        self, table: Table, list_member: str, name_member: str, key: str, request: Payload, caller: Caller
    ) -> Payload:
        """A page of the records that a Describe request asks for, in the order in which they were made."""
        narrowed = "ResourceIds" if table is self._targets else "ResourceId"
        alone = "ScalableDimension" in request and narrowed not in request
        refuse(alone, f"{narrowed} must be given together with ScalableDimension.")
        exact = {k: request[k] for k in ("ResourceId", "ScalableDimension") if k in request}
        names = request.get(f"{name_member}s")
        records = [
            record
            for record in table.list(_key(caller.region, request["ServiceNamespace"], ""))
            if exact.items() <= {k: record[k] for k in exact}.items() and (not names or record[name_member] in names)
        ]
        records.sort(key=lambda record: record["CreationTime"])
        return page(records, request, list_member, key, _shown, size=_PAGE_SIZE, error_code="InvalidNextTokenException")


def _shown(record: Record) -> Payload:
    return {name: value for name, value in record.items() if name != "Tags"}


def _key(*parts: str) -> str:
    return _SEPARATOR.join(parts)


def _target_key(request: Payload, caller: Caller) -> str:
    return _key(caller.region, *(request[member] for member in _TARGET_MEMBERS))


def _not_found(what: str, request: Payload) -> ServiceError:
    where = "service namespace: {ServiceNamespace}, resource ID: {ResourceId}, scalable dimension: {ScalableDimension}"
    return ServiceError("ObjectNotFoundException", f"No {what} for {where.format_map(request)}")


def _new_target(request: Payload, caller: Caller) -> Record:
    namespace = request["ServiceNamespace"]
    role = f"AWSServiceRoleForApplicationAutoScaling_{_SERVICE_ROLES[namespace]}"
    return {
        "ScalableTargetARN": f"arn:aws:application-autoscaling:{caller.region}:{caller.account}:scalable-target/"
        f"{uuid.uuid4().hex}",
        "RoleARN": f"arn:aws:iam::{caller.account}:role/aws-service-role/"
        f"{namespace}.application-autoscaling.amazonaws.com/{role}",
        "CreationTime": time.time(),
    }


def _created(kind: str, name_member: str, request: Payload, caller: Caller) -> Record:
    """What a new policy or action has beside its request."""
    name = f"{name_member[0].lower()}{name_member[1:]}/{request[name_member]}"
    resource = f"{request['ServiceNamespace']}/{request['ResourceId']}:{name}"
    arn = f"arn:aws:autoscaling:{caller.region}:{caller.account}:{kind}:{uuid.uuid4()}:resource/{resource}"
    return {name_member.replace("Name", "ARN"): arn, "CreationTime": time.time()}


def _alarms(policy: Record, caller: Caller) -> list[Payload]:
    """The names of the alarms that AWS makes for a target tracking policy; the names stay the same."""
    if policy["PolicyType"] != "TargetTrackingScaling":
        return []
    if policy.get("Alarms"):
        return policy["Alarms"]
    sides = ("High",) if policy["TargetTrackingScalingPolicyConfiguration"].get("DisableScaleIn") else ("High", "Low")
    names = [f"TargetTracking-{policy['ResourceId']}-Alarm{side}-{uuid.uuid4()}" for side in sides]
    arn = f"arn:aws:cloudwatch:{caller.region}:{caller.account}:alarm"
    return [{"AlarmName": name, "AlarmARN": f"{arn}:{name}"} for name in names]


def _check_target_tracking(configuration: Payload) -> None:
    metrics = {"PredefinedMetricSpecification", "CustomizedMetricSpecification"} & configuration.keys()
    refuse(
        len(metrics) != 1,
        "A target tracking configuration needs a PredefinedMetricSpecification or a CustomizedMetricSpecification, "
        "and not both.",
    )
