"""Application Auto Scaling: its operations, which check what is asked for as AWS does."""

from __future__ import annotations

import functools
import itertools
import math
import time
import uuid
from collections.abc import Callable, Mapping

from emulator.autoscaling.records import SERVICE, TARGET_MEMBERS, Tables, alarm_names, deregister, key, target_key
from emulator.autoscaling.resources import Capacity, policy_alarms, resource_parts
from emulator.autoscaling.scaling import Scaling
from emulator.platform.awsapi import Caller, Payload, Service, ServiceError, operation, page
from emulator.platform.errors import refuse
from emulator.platform.host import Host
from emulator.platform.store import Record, Store, Table

_PAGE_SIZE = 50
_MAX_TAGS = 50
_SERVICE_ROLES = {"sagemaker": "SageMakerEndpoint", "lambda": "LambdaConcurrency"}
_SUSPENDED = ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended")


class ApplicationAutoScaling(Service):
    """The service; `capacities` are what it scales, by dimension."""

    name = SERVICE

    def __init__(self, host: Host, capacities: Mapping[str, Capacity]) -> None:
        super().__init__(host.account)
        self._store = Store(host.state_dir)
        self._monitoring = host.monitoring
        self._tables = Tables(self._store)
        self.scaling = Scaling(host, self._store, capacities)
        self.register(self)
        for table, members, name, arn in (
            (self._tables.targets, "ScalableTargets", "ResourceId", "ScalableTargetARN"),
            (self._tables.policies, "ScalingPolicies", "PolicyName", "PolicyARN"),
            (self._tables.actions, "ScheduledActions", "ScheduledActionName", "ScheduledActionARN"),
            (self._tables.activities, "ScalingActivities", "ActivityId", "ActivityId"),
        ):
            self._handlers[f"Describe{members}"] = functools.partial(self._list, table, members, name, arn)

    def start(self) -> None:
        self.scaling.start()

    def stop(self) -> None:
        self._store.give_up()
        self.scaling.stop()
        self._store.close()

    def resource_arns(self, operation: str, payload: Payload, caller: Caller) -> list[str]:
        """The scalable target that a call is about; lists and targets that do not exist yet have none."""
        if "ResourceARN" in payload:
            return [payload["ResourceARN"]]
        if not all(member in payload for member in TARGET_MEMBERS):
            return ["*"]
        target = self._tables.targets.get(target_key(payload, caller.region))
        return [target["ScalableTargetARN"]] if target else ["*"]

    @operation("RegisterScalableTarget")
    def register_scalable_target(self, request: Payload, caller: Caller) -> Payload:
        self._check_resource(request, caller)
        name = target_key(request, caller.region)
        with self._store.transaction():
            existing = self._tables.targets.get(name)
            given = {member: value for member, value in request.items() if member != "RoleARN"}
            record = {**(existing or _new_target(request, caller)), **given}
            for bound in ("MinCapacity", "MaxCapacity"):
                refuse(bound not in record, f"{bound} is required to register a new scalable target.")
            upside_down = record["MinCapacity"] > record["MaxCapacity"]
            refuse(upside_down, "Maximum capacity cannot be less than minimum capacity.")
            tagged = existing and "Tags" in request
            refuse(tagged, "Tags can only be given to a new scalable target; use TagResource.")
            before = existing["SuspendedState"] if existing else dict.fromkeys(_SUSPENDED, False)
            record["SuspendedState"] = {**before, **request.get("SuspendedState", {})}
            self._tables.targets.put(name, record)
        self.scaling.do(functools.partial(self.scaling.keep_within_bounds, name))
        return {"ScalableTargetARN": record["ScalableTargetARN"]}

    @operation("DeregisterScalableTarget")
    def deregister_scalable_target(self, request: Payload, caller: Caller) -> None:
        self._require_target(request, caller)
        with self._store.transaction():  # a resource has one dimension here
            found = (caller.region, request["ServiceNamespace"], [request["ResourceId"]])
            deregister(self._store, self._monitoring, *found)

    @operation("PutScalingPolicy")
    def put_scaling_policy(self, request: Payload, caller: Caller) -> Payload:
        policy_type = request.get("PolicyType", "StepScaling")
        member = f"{policy_type}PolicyConfiguration"
        unknown = policy_type not in ("StepScaling", "TargetTrackingScaling")
        refuse(unknown, f"Policy type {policy_type} is not supported for {request['ServiceNamespace']}.")
        steps = policy_type == "StepScaling"
        refuse(steps and request["ServiceNamespace"] == "lambda", "Step scaling is not supported for AWS Lambda.")
        with self._store.transaction():
            name, existing = self._find(self._tables.policies, request, caller, "PolicyName")
            refuse(member not in request and existing is None, f"A {policy_type} policy needs a {member}.")
            created = existing or _created("scalingPolicy", "PolicyName", request, caller)
            refuse(created.get("PolicyType", policy_type) != policy_type, "The type of a policy cannot be changed.")
            record = {**created, **request, "PolicyType": policy_type}
            if steps:
                _check_steps(record[member])
            before = set(alarm_names(record))
            record["Alarms"] = [] if steps else self._put_alarms(record, caller)
            self._monitoring.delete_alarms(caller.region, sorted(before.difference(alarm_names(record))))
            self._tables.policies.put(name, record)
        return {"PolicyARN": record["PolicyARN"], "Alarms": record["Alarms"]}

    @operation("DeleteScalingPolicy")
    def delete_scaling_policy(self, request: Payload, caller: Caller) -> None:
        policy = self._delete(self._tables.policies, "PolicyName", request, caller)
        self._monitoring.delete_alarms(caller.region, alarm_names(policy))

    def _put_alarms(self, policy: Record, caller: Caller) -> list[Payload]:
        """Make the alarms of a target tracking policy, or change them; their names stay the same."""
        action = f"{policy['PolicyARN']}:createdBy/{uuid.uuid4()}"
        names = {name.rpartition("-Alarm")[2].partition("-")[0]: name for name in alarm_names(policy)}
        arn, alarms = f"arn:aws:cloudwatch:{caller.region}:{caller.account}:alarm", []
        for side, alarm in policy_alarms(policy, action).items():
            name = names.get(side) or f"TargetTracking-{policy['ResourceId']}-Alarm{side}-{uuid.uuid4()}"
            self._monitoring.put_alarm(caller.region, {"AlarmName": name, **alarm})
            alarms.append({"AlarmName": name, "AlarmARN": f"{arn}:{name}"})
        return alarms

    @operation("PutScheduledAction")
    def put_scheduled_action(self, request: Payload, caller: Caller) -> None:
        with self._store.transaction():
            _, existing = self._find(self._tables.actions, request, caller, "ScheduledActionName")
            without = existing is None and not {"Schedule", "ScalableTargetAction"} <= request.keys()
            refuse(without, "A new action needs a Schedule and a ScalableTargetAction.")
            created = existing or _created("scheduledAction", "ScheduledActionName", request, caller)
            kept = {name: value for name, value in created.items() if name not in ("StartTime", "EndTime")}
            self.scaling.schedule({**kept, **request})

    @operation("DeleteScheduledAction")
    def delete_scheduled_action(self, request: Payload, caller: Caller) -> None:
        self._delete(self._tables.actions, "ScheduledActionName", request, caller)

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
            self._tables.targets.put(target_key(record, caller.region), record)

    def _check_resource(self, request: Payload, caller: Caller) -> None:
        resource_parts(*(request[member] for member in ("ServiceNamespace", "ScalableDimension", "ResourceId")))
        nouns = {"sagemaker": "SageMaker endpoint or variant", "lambda": "Lambda function, alias or version"}
        missing = self.scaling.size({**request, "Region": caller.region}) is None
        refuse(missing, f"{nouns[request['ServiceNamespace']]} doesn't exist: {request['ResourceId']}")

    def _require_target(self, request: Payload, caller: Caller) -> None:
        if self._tables.targets.get(target_key(request, caller.region)) is None:
            raise _not_found("scalable target registered", request)

    def _require_arn(self, arn: str, caller: Caller) -> Record:
        for record in self._tables.targets.list(key(caller.region, "")):
            if record["ScalableTargetARN"] == arn:
                return record
        message = f"No scalable target has the ARN {arn}."
        raise ServiceError("ResourceNotFoundException", message, fields={"ResourceName": arn})

    def _find(self, table: Table, request: Payload, caller: Caller, member: str) -> tuple[str, Record | None]:
        """The key of a policy or an action of a registered target, and its record."""
        self._require_target(request, caller)
        name = key(target_key(request, caller.region), request[member])
        return name, table.get(name)

    def _delete(self, table: Table, member: str, request: Payload, caller: Caller) -> Record:
        name = key(target_key(request, caller.region), request[member])
        with self._store.transaction():
            record = table.get(name)
            if record is None:
                raise _not_found(f"{member} {request[member]} found", request)
            table.delete(name)
        return record

    def _list(
        self, table: Table, list_member: str, name_member: str, mark: str, request: Payload, caller: Caller
    ) -> Payload:
        """A page of the records that a Describe request asks for: activities newest first, others oldest first."""
        narrowed = "ResourceIds" if table is self._tables.targets else "ResourceId"
        alone = "ScalableDimension" in request and narrowed not in request
        refuse(alone, f"{narrowed} must be given together with ScalableDimension.")
        exact = {k: request[k] for k in ("ResourceId", "ScalableDimension") if k in request}
        names = request.get(f"{name_member}s")
        records = [
            record
            for record in table.list(key(caller.region, request["ServiceNamespace"], ""))
            if exact.items() <= {k: record[k] for k in exact}.items() and (not names or record[name_member] in names)
        ]
        activities = table is self._tables.activities
        records.sort(key=lambda record: record["StartTime" if activities else "CreationTime"], reverse=activities)
        members = self.model.operation_model(f"Describe{list_member}").output_shape.members[list_member].member.members

        def shown(record: Record) -> Payload:
            return {name: value for name, value in record.items() if name in members}

        return page(records, request, list_member, mark, shown, size=_PAGE_SIZE, error_code="InvalidNextTokenException")


def _not_found(what: str, request: Payload) -> ServiceError:
    where = "service namespace: {ServiceNamespace}, resource ID: {ResourceId}, scalable dimension: {ScalableDimension}"
    return ServiceError("ObjectNotFoundException", f"No {what} for {where.format_map(request)}")


def _new_target(request: Payload, caller: Caller) -> Record:
    namespace = request["ServiceNamespace"]
    role = f"AWSServiceRoleForApplicationAutoScaling_{_SERVICE_ROLES[namespace]}"
    return {
        "Region": caller.region,
        "ScalableTargetARN": f"arn:aws:application-autoscaling:{caller.region}:{caller.account}:scalable-target/"
        f"{uuid.uuid4().hex}",
        "RoleARN": f"arn:aws:iam::{caller.account}:role/aws-service-role/"
        f"{namespace}.application-autoscaling.amazonaws.com/{role}",
        "CreationTime": time.time(),
    }


def _created(kind: str, name_member: str, request: Payload, caller: Caller) -> Record:
    name = f"{name_member[0].lower()}{name_member[1:]}/{request[name_member]}"
    resource = f"{request['ServiceNamespace']}/{request['ResourceId']}:{name}"
    arn = f"arn:aws:autoscaling:{caller.region}:{caller.account}:{kind}:{uuid.uuid4()}:resource/{resource}"
    return {"Region": caller.region, name_member.replace("Name", "ARN"): arn, "CreationTime": time.time()}


def _check_steps(configuration: Payload) -> None:
    refuse("AdjustmentType" not in configuration, "AdjustmentType is required.")
    steps = configuration.get("StepAdjustments", [])
    refuse(not steps, "At least one step adjustment is required.")
    edges = sorted(
        (step.get("MetricIntervalLowerBound", -math.inf), step.get("MetricIntervalUpperBound", math.inf))
        for step in steps
    )
    refuse(any(lower >= upper for lower, upper in edges), "The upper bound of a step must be above its lower bound.")
    apart = any(one[1] != other[0] for one, other in itertools.pairwise(edges))
    refuse(apart, "Step adjustments must neither overlap nor leave a gap between them.")
