"""Application Auto Scaling: scalable targets, policies and scheduled actions, recorded and checked as AWS does."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable

from emulator.platform.awsapi import Caller, Payload, Service, ServiceError, operation, paginate
from emulator.platform.errors import refuse
from emulator.platform.host import Host
from emulator.platform.store import Record, Store, Table

_SERVICE = "application-autoscaling"
_TARGETS, _POLICIES, _ACTIONS = "scalable-target", "scaling-policy", "scheduled-action"
_SEPARATOR = "\x1f"
_PAGE_SIZE = 50
_MAX_TAGS = 50
_TARGET_MEMBERS = ("ServiceNamespace", "ResourceId", "ScalableDimension")
#: How a resource of the namespaces that this local AWS has is written.
_RESOURCE_IDS = {
    "sagemaker:variant:DesiredInstanceCount": r"endpoint/(?P<endpoint>[\w-]+)/variant/(?P<variant>[\w-]+)",
    "lambda:function:ProvisionedConcurrency": r"function:[\w-]+:[\w-]+",
}
_SERVICE_ROLES = {
    "sagemaker": ("sagemaker", "SageMakerEndpoint"),
    "lambda": ("lambda", "LambdaConcurrency"),
}

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


def _key(*parts: str) -> str:
    """A record's name; the separator is a character that AWS allows in none of the parts."""
    return _SEPARATOR.join(parts)


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

    def resource_arns(self, operation: str, payload: Payload, caller: Caller) -> list[str]:
        """The scalable target that a call is about; lists and targets that do not exist yet have none."""
        if "ResourceARN" in payload:
            return [payload["ResourceARN"]]
        if not all(member in payload for member in _TARGET_MEMBERS):
            return ["*"]
        target = self._targets.get(_target_key(payload, caller))
        return [target["ScalableTargetARN"]] if target else ["*"]

    # Scalable targets

    @operation("RegisterScalableTarget")
    def register_scalable_target(self, request: Payload, caller: Caller) -> Payload:
        self._check_resource(request, caller)
        key = _target_key(request, caller)
        with self._store.transaction():
            existing = self._targets.get(key)
            record = {**(existing or self._new_target(request, caller)), **request}
            for bound in ("MinCapacity", "MaxCapacity"):
                refuse(bound not in record, f"{bound} is required to register a new scalable target.")
            upside_down = record["MinCapacity"] > record["MaxCapacity"]
            refuse(upside_down, "Maximum capacity cannot be less than minimum capacity.")
            tagged = existing and "Tags" in request
            refuse(tagged, "Tags can only be given to a new scalable target; use TagResource.")
            record["SuspendedState"] = {
                **_NOT_SUSPENDED,
                **(existing or {}).get("SuspendedState", {}),
                **request.get("SuspendedState", {}),
            }
            self._targets.put(key, record)
        return {"ScalableTargetARN": record["ScalableTargetARN"]}

    def _new_target(self, request: Payload, caller: Caller) -> Record:
        namespace = request["ServiceNamespace"]
        prefix, suffix = _SERVICE_ROLES.get(namespace, (namespace, namespace.capitalize()))
        role = f"AWSServiceRoleForApplicationAutoScaling_{suffix}"
        return {
            "ScalableTargetARN": f"arn:aws:application-autoscaling:{caller.region}:{caller.account}:scalable-target/"
            f"{uuid.uuid4().hex}",
            "RoleARN": f"arn:aws:iam::{caller.account}:role/aws-service-role/"
            f"{prefix}.application-autoscaling.amazonaws.com/{role}",
            "CreationTime": time.time(),
        }

    @operation("DeregisterScalableTarget")
    def deregister_scalable_target(self, request: Payload, caller: Caller) -> None:
        key = _target_key(request, caller)
        with self._store.transaction():
            self._require_target(request, caller)
            self._targets.delete(key)
            for table in (self._policies, self._actions):
                table.delete_all(_key(key, ""))

    @operation("DescribeScalableTargets")
    def describe_scalable_targets(self, request: Payload, caller: Caller) -> Payload:
        return self._list(self._targets, request, caller, "ScalableTargets", "ResourceId", "ScalableTargetARN")

    # Policies

    @operation("PutScalingPolicy")
    def put_scaling_policy(self, request: Payload, caller: Caller) -> Payload:
        policy_type = request.get("PolicyType", "StepScaling")
        configuration = f"{policy_type}PolicyConfiguration"
        with self._store.transaction():
            self._require_target(request, caller)
            key = _key(_target_key(request, caller), request["PolicyName"])
            existing = self._policies.get(key)
            without = configuration not in request and existing is None
            refuse(without, f"A {policy_type} policy needs a {configuration}.")
            if policy_type == "TargetTrackingScaling" and configuration in request:
                _check_target_tracking(request[configuration])
            record = {**(existing or self._new_policy(request, caller)), **request, "PolicyType": policy_type}
            record["Alarms"] = self._alarms(record, caller)
            self._policies.put(key, record)
        return {"PolicyARN": record["PolicyARN"], "Alarms": record["Alarms"]}

    @staticmethod
    def _new_policy(request: Payload, caller: Caller) -> Record:
        return {
            "PolicyARN": f"arn:aws:autoscaling:{caller.region}:{caller.account}:scalingPolicy:{uuid.uuid4()}:resource/"
            f"{request['ServiceNamespace']}/{request['ResourceId']}:policyName/{request['PolicyName']}",
            "CreationTime": time.time(),
        }

    @staticmethod
    def _alarms(policy: Record, caller: Caller) -> list[Payload]:
        """The names of the alarms that AWS makes for a target tracking policy; the names stay the same."""
        if policy["PolicyType"] != "TargetTrackingScaling":
            return []
        if policy.get("Alarms"):
            return policy["Alarms"]
        names = [f"TargetTracking-{policy['ResourceId']}-Alarm{side}-{uuid.uuid4()}" for side in ("High", "Low")]
        if policy["TargetTrackingScalingPolicyConfiguration"].get("DisableScaleIn"):
            del names[1]
        arn = f"arn:aws:cloudwatch:{caller.region}:{caller.account}:alarm"
        return [{"AlarmName": name, "AlarmARN": f"{arn}:{name}"} for name in names]

    @operation("DeleteScalingPolicy")
    def delete_scaling_policy(self, request: Payload, caller: Caller) -> None:
        self._delete(self._policies, request, caller, "PolicyName", "scaling policy")

    @operation("DescribeScalingPolicies")
    def describe_scaling_policies(self, request: Payload, caller: Caller) -> Payload:
        return self._list(self._policies, request, caller, "ScalingPolicies", "PolicyName", "PolicyARN")

    # Scheduled actions

    @operation("PutScheduledAction")
    def put_scheduled_action(self, request: Payload, caller: Caller) -> None:
        schedule = request.get("Schedule")
        wrong = schedule is not None and not re.fullmatch(r"(at|rate|cron)\(.+\)", schedule)
        refuse(wrong, f"Schedule expression {schedule!r} is none of at(…), rate(…), cron(…).")
        with self._store.transaction():
            self._require_target(request, caller)
            key = _key(_target_key(request, caller), request["ScheduledActionName"])
            existing = self._actions.get(key)
            without = existing is None and (schedule is None or "ScalableTargetAction" not in request)
            refuse(without, "A new action needs a Schedule and a ScalableTargetAction.")
            created: Record = {
                "ScheduledActionARN": f"arn:aws:autoscaling:{caller.region}:{caller.account}:scheduledAction:"
                f"{uuid.uuid4()}:resource/{request['ServiceNamespace']}/{request['ResourceId']}:"
                f"scheduledActionName/{request['ScheduledActionName']}",
                "CreationTime": time.time(),
            }
            self._actions.put(key, {**(existing or created), **request})

    @operation("DeleteScheduledAction")
    def delete_scheduled_action(self, request: Payload, caller: Caller) -> None:
        self._delete(self._actions, request, caller, "ScheduledActionName", "scheduled action")

    @operation("DescribeScheduledActions")
    def describe_scheduled_actions(self, request: Payload, caller: Caller) -> Payload:
        members = ("ScheduledActions", "ScheduledActionName", "ScheduledActionARN")
        return self._list(self._actions, request, caller, *members)

    @operation("DescribeScalingActivities")
    def describe_scaling_activities(self, request: Payload, caller: Caller) -> Payload:
        """Nothing has been scaled: policies do not act yet."""
        _check_dimension(request, "ResourceId")
        return {"ScalingActivities": []}

    # Tags

    @operation("TagResource")
    def tag_resource(self, request: Payload, caller: Caller) -> None:
        with self._store.transaction():
            key, record = self._require_arn(request["ResourceARN"], caller)
            tags = {**record.get("Tags", {}), **request["Tags"]}
            if len(tags) > _MAX_TAGS:
                raise ServiceError(
                    "TooManyTagsException",
                    f"A scalable target has at most {_MAX_TAGS} tags.",
                    fields={"ResourceName": request["ResourceARN"]},
                )
            self._targets.put(key, {**record, "Tags": tags})

    @operation("UntagResource")
    def untag_resource(self, request: Payload, caller: Caller) -> None:
        with self._store.transaction():
            key, record = self._require_arn(request["ResourceARN"], caller)
            tags = {k: v for k, v in record.get("Tags", {}).items() if k not in request["TagKeys"]}
            self._targets.put(key, {**record, "Tags": tags})

    @operation("ListTagsForResource")
    def list_tags_for_resource(self, request: Payload, caller: Caller) -> Payload:
        return {"Tags": self._require_arn(request["ResourceARN"], caller)[1].get("Tags", {})}

    # What they share

    def _check_resource(self, request: Payload, caller: Caller) -> None:
        """Refuse resources that do not exist, where this local AWS can know.

        A namespace that it knows nothing of, or a Lambda function, is taken at its word.
        """
        namespace, resource_id, dimension = (request[member] for member in _TARGET_MEMBERS)
        refuse(
            not dimension.startswith(f"{namespace}:"),
            f"Unsupported service namespace, resource type or scalable dimension: {namespace}, {dimension}",
        )
        pattern = _RESOURCE_IDS.get(dimension)
        match = re.fullmatch(pattern, resource_id) if pattern else None
        refuse(pattern and match is None, f"Unsupported resource ID for {dimension}: {resource_id}")
        if match is None or namespace != "sagemaker":
            return
        arn = f"arn:aws:sagemaker:{caller.region}:{caller.account}:endpoint/{match['endpoint'].lower()}"
        endpoint = self._endpoints.get(arn)
        fleet = (endpoint or {}).get("Fleet", {"Variants": []})
        variants = {variant["VariantName"]: variant for variant in fleet["Variants"]}
        missing = match["variant"] not in variants
        refuse(missing, f"SageMaker endpoint or variant doesn't exist: {resource_id}")
        serverless = "ServerlessConfig" in variants[match["variant"]]["Variant"]
        refuse(serverless, f"A serverless variant has no instances to scale: {resource_id}")

    def _require_target(self, request: Payload, caller: Caller) -> Record:
        target = self._targets.get(_target_key(request, caller))
        if target is None:
            namespace, resource_id, dimension = (request[member] for member in _TARGET_MEMBERS)
            raise ServiceError(
                "ObjectNotFoundException",
                f"No scalable target registered for service namespace: {namespace}, resource ID: {resource_id}, "
                f"scalable dimension: {dimension}",
            )
        return target

    def _require_arn(self, arn: str, caller: Caller) -> tuple[str, Record]:
        for record in self._targets.list(_key(caller.region, "")):
            if record["ScalableTargetARN"] == arn:
                return _target_key(record, caller), record
        raise ServiceError(
            "ResourceNotFoundException", f"No scalable target has the ARN {arn}.", fields={"ResourceName": arn}
        )

    def _delete(self, table: Table, request: Payload, caller: Caller, member: str, title: str) -> None:
        key = _key(_target_key(request, caller), request[member])
        with self._store.transaction():
            if table.get(key) is None:
                raise ServiceError(
                    "ObjectNotFoundException",
                    f"No {title} found for service namespace: {request['ServiceNamespace']}, resource ID: "
                    f"{request['ResourceId']}, scalable dimension: {request['ScalableDimension']}, "
                    f"name: {request[member]}",
                )
            table.delete(key)

    def _list(
        self, table: Table, request: Payload, caller: Caller, list_member: str, name_member: str, key: str
    ) -> Payload:
        """A page of the records that a Describe request asks for, in the order in which they were made."""
        _check_dimension(request, "ResourceIds" if table is self._targets else "ResourceId")
        exact = {k: request[k] for k in ("ResourceId", "ScalableDimension") if k in request}
        names = request.get(f"{name_member}s")
        records = [
            record
            for record in table.list(_key(caller.region, request["ServiceNamespace"], ""))
            if all(record[member] == value for member, value in exact.items())
            and (not names or record[name_member] in names)
        ]
        page, token = paginate(
            sorted(records, key=lambda record: record["CreationTime"]),
            key=key,
            limit=request.get("MaxResults", _PAGE_SIZE),
            token=request.get("NextToken"),
            error_code="InvalidNextTokenException",
        )
        shown = [{name: value for name, value in record.items() if name != "Tags"} for record in page]
        return {list_member: shown, **({"NextToken": token} if token else {})}


def _check_dimension(request: Payload, member: str) -> None:
    alone = "ScalableDimension" in request and member not in request
    refuse(alone, f"{member} must be given together with ScalableDimension.")


def _target_key(request: Payload, caller: Caller) -> str:
    return _key(caller.region, *(request[member] for member in _TARGET_MEMBERS))


def _check_target_tracking(configuration: Payload) -> None:
    metrics = {"PredefinedMetricSpecification", "CustomizedMetricSpecification"} & configuration.keys()
    refuse(
        len(metrics) != 1,
        "A target tracking configuration needs a PredefinedMetricSpecification or a CustomizedMetricSpecification, "
        "and not both.",
    )
