"""MiniStack's EC2 instances, which are records, run: launch templates, user data, console output.

MiniStack takes RunInstances and keeps a record of each instance. Here, its launch template counts, and its user data is
run for real (`emulator.ec2`), under the role of its instance profile.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from botocore.serialize import create_serializer
from ministack.core.responses import get_account_id, get_region
from ministack.core.router import extract_access_key_id
from ministack.services import ec2, iam

from emulator.ec2.instance import InstanceRun, LaunchedInstance, console_output, remove_leftovers
from emulator.ministack.door.enforcement import refusal
from emulator.ministack.door.operations import form
from emulator.ministack.patching import around_service
from emulator.platform.awsapi import Caller, service_model
from emulator.platform.errors import Response
from emulator.platform.host import Host

#: EC2's guide to filters; without it a pattern of wildcards would take long to compile.
_LONGEST_FILTER = 255
_INSTANCE_ID = re.compile(rb"<instanceId>(i-[0-9a-f]+)</instanceId>")
_NAMED_INSTANCE = re.compile(r"InstanceId\.\d+")
_TAG_KEY = re.compile(r"(TagSpecification\.\d+)\.Tag\.\d+\.Key")
_PARAMETER = "resolve:ssm:"
_STOP_SECONDS = 10.0
#: Members of launch template data that RunInstances takes as they are.
_TAKEN = (
    *("ImageId", "InstanceType", "KeyName", "UserData", "InstanceInitiatedShutdownBehavior", "SecurityGroupIds"),
    *("IamInstanceProfile", "MetadataOptions", "InstanceMarketOptions"),
)
_STATES = {"terminate": {"Code": 48, "Name": "terminated"}, "stop": {"Code": 80, "Name": "stopped"}}

Parameters = dict[str, str]
Handler = Callable[..., Any]


class Instances:
    """The instances that run; `note_change` is called when one has ended by itself."""

    def __init__(self, host: Host, note_change: Callable[[], None]) -> None:
        self._host = host
        self._note_change = note_change
        self._runs: dict[str, InstanceRun] = {}
        self._lock = threading.Lock()

    def install(self) -> None:
        around_service("ec2", self._handle)

    def start(self) -> None:
        """End the instances that the last server ran: their machine is gone."""
        for record in list(ec2._instances._data.values()):
            if record["State"]["Name"] == "running":
                _end(record, "terminate")
        remove_leftovers(self._host)

    def stop(self) -> None:
        with self._lock:
            runs = list(self._runs.values())
        for run in runs:
            run.stop()
        deadline = time.monotonic() + _STOP_SECONDS
        for run in runs:
            run.join(max(0.0, deadline - time.monotonic()))

    async def _handle(
        self, inner: Handler, method: str, path: str, headers: Any, body: bytes, query: Mapping[str, Any]
    ) -> Response:
        parameters = {name: values[0] for name, values in {**query, **form(body)}.items()}
        action = parameters.get("Action")
        if any(name.startswith("Filter.") and len(text) > _LONGEST_FILTER for name, text in parameters.items()):
            message = f"A filter may have up to {_LONGEST_FILTER} characters."
            return ec2._error("InvalidParameterValue", message, 400)  # type: ignore[no-any-return]
        if action == "GetConsoleOutput":
            return self._console(parameters)
        if action != "RunInstances":
            response: Response = await inner(method, path, headers, body, query)
            if response[0] == 200 and action in ("TerminateInstances", "StopInstances"):
                named = [value for key, value in parameters.items() if _NAMED_INSTANCE.fullmatch(key)]
                with self._lock:
                    runs = [self._runs[instance_id] for instance_id in named if instance_id in self._runs]
                for run in runs:
                    run.stop()
            return response

        caller = Caller(get_account_id(), get_region())
        wanted = ("LaunchTemplateId", "LaunchTemplateName", "Version")
        template, _, error = ec2._resolve_launch_template_data(
            {name: parameters.get(f"LaunchTemplate.{name}") for name in wanted}
        )
        if error is not None:
            return error  # type: ignore[no-any-return]
        launch = _with_template(parameters, template)
        given = (launch.get(f"IamInstanceProfile.{member}", "") for member in ("Arn", "Name"))
        profile, error = ec2._resolve_iam_instance_profile(*given)
        if error is not None:
            return error  # type: ignore[no-any-return]
        roles = profile and iam._lookup_instance_profile(arn=profile["Arn"]).get("Roles")
        role = iam._roles.get(roles[0]) if roles else None
        if role is not None:
            context = {"iam:PassedToService": "ec2.amazonaws.com"}
            if denied := refusal(extract_access_key_id(headers, query), "iam:PassRole", role["Arn"], context):
                return ec2._error("UnauthorizedOperation", denied.message, 403)  # type: ignore[no-any-return]
        if launch.get("DryRun") == "true":
            return ec2._error("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)  # type: ignore[no-any-return]
        response = await inner("POST", path, headers, urlencode(launch).encode(), {})
        if response[0] == 200:
            for found in _INSTANCE_ID.findall(response[2]):
                self._launch(found.decode(), launch, role, caller)
        return response

    def _launch(self, instance_id: str, launch: Parameters, role: dict[str, Any] | None, caller: Caller) -> None:
        record = ec2._instances[instance_id]
        behavior = launch.get("InstanceInitiatedShutdownBehavior", "stop")

        def ended() -> None:
            _end(record, behavior)
            self._note_change()

        def tags() -> dict[str, str]:
            pairs = ec2._tags.get_scoped(caller.account, caller.region, instance_id, [])
            return {tag["Key"]: tag["Value"] for tag in pairs}

        spot = launch.get("InstanceMarketOptions.MarketType") == "spot"
        if role is not None:
            credentials = functools.partial(self._host.role_credentials, role["Arn"], instance_id)
        instance = LaunchedInstance(
            instance_id,
            record["InstanceType"],
            caller.region,
            user_data=launch.get("UserData", ""),
            role=None if role is None else (role["RoleName"], credentials),
            tags=tags if launch.get("MetadataOptions.InstanceMetadataTags") == "enabled" else None,
            entries={"ami-id": record["ImageId"], "instance-life-cycle": "spot" if spot else "on-demand"},
        )
        run = InstanceRun(self._host, instance, ended)
        with self._lock:
            self._runs = {key: other for key, other in self._runs.items() if other.alive}
            self._runs[instance_id] = run
            run.start()

    def _console(self, parameters: Parameters) -> Response:
        instance_id = parameters.get("InstanceId", "")
        if instance_id not in ec2._instances:
            return ec2._error("InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist", 400)  # type: ignore[no-any-return]
        output = base64.b64encode(console_output(self._host, instance_id)).decode()
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        inner = f"<instanceId>{instance_id}</instanceId><timestamp>{now}</timestamp><output>{output}</output>"
        return ec2._xml(200, "GetConsoleOutputResponse", inner)  # type: ignore[no-any-return]


def _end(record: dict[str, Any], behavior: str) -> None:
    record["State"] = dict(_STATES[behavior])
    if behavior == "terminate":
        record["_terminated_at"] = time.time()  # MiniStack forgets it a minute later


def _with_template(given: Parameters, template: Mapping[str, Any]) -> Parameters:
    """Add what the launch template says and the request does not; tags are joined, and those of the request win."""
    tags = {
        tag["Key"]: str(tag["Value"])
        for specification in template.get("TagSpecifications") or []
        if specification.get("ResourceType") == "instance"
        for tag in specification.get("Tags") or []
    }
    for name, key in given.items():
        if (tag := _TAG_KEY.fullmatch(name)) and given.get(f"{tag[1]}.ResourceType") == "instance":
            tags[key] = given.get(name.removesuffix("Key") + "Value", "")
    request: dict[str, Any] = {name: template[name] for name in _TAKEN if template.get(name)}
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    request["TagSpecifications"] = [{"ResourceType": "instance", "Tags": listed}]
    model = service_model("ec2").operation_model("RunInstances")
    said: Parameters = create_serializer("ec2", False).serialize_to_request(request, model)["body"]
    kept = {name: value for name, value in given.items() if not name.startswith("TagSpecification.")}
    members = {name.partition(".")[0] for name in kept}
    launch = {name: value for name, value in said.items() if name.partition(".")[0] not in members} | kept
    if (image := launch.get("ImageId", "")).startswith(_PARAMETER):
        # Every parameter names an image here, always the same one; nothing boots from it.
        launch["ImageId"] = f"ami-{hashlib.sha256(image.encode()).hexdigest()[:17]}"
    return launch
