"""The types of a VPC that MiniStack's CloudFormation lacks, made by its EC2: records, which no traffic passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ministack.services import ec2, s3
from ministack.services.cloudformation import provisioners

from emulator.ministack.cloudformation.resources import Created, generated_name, handler_message
from emulator.ministack.functions.corrections import wrap_handlers
from emulator.platform.awsapi import Payload, service_model

_DELETIONS = ("Delete", "Release")
#: Members of EC2's lists, by the property that is one of them.
_LISTED = {"ResourceId": "ResourceId.1", "FlowLogId": "FlowLogId.1"}


@dataclass(frozen=True)
class NetworkType:
    """A type that one operation makes and another deletes; a change of anything but its tags makes a new one."""

    kind: str
    made: str
    deleted: str
    deletion: tuple[str, ...] = ()  # what the deletion is told
    named: str = "none"  # the element of the answer that has the physical id

    @property
    def type_name(self) -> str:
        return f"AWS::EC2::{self.kind}"

    @property
    def replacing_properties(self) -> tuple[str, ...]:
        members = service_model("ec2").operation_model(self.made).input_shape.members
        rule = ("CidrIpv6", "Description", "SourcePrefixListId", "SourceSecurityGroupId")
        return (*members, "ResourceId", "Icmp", *rule, "DestinationPrefixListId", "DestinationSecurityGroupId")

    def create(self, logical_id: str, properties: Payload, stack_name: str) -> Created:
        if unknown := sorted(properties.keys() - {*self.replacing_properties, "Tags"}):
            raise ValueError(f"The local AWS does not do this for {self.type_name}: {', '.join(unknown)}.")
        identity = None
        if self.deletion:
            identity = s3.fromstring(_call(self.made, properties)).findtext(f".//{{*}}{self.named}")
        else:
            self._rules(properties).extend(provisioners._ec2_sg_permissions([properties]))
        return self.update(identity or generated_name(stack_name, logical_id), {}, properties)

    def update(self, identity: str, old: Payload, new: Payload, *_: str) -> Created:
        attributes = {"Id": identity, f"{self.kind}Id": identity}
        if self.kind == "EIP":
            found = (each["AllocationId"] for each in ec2._addresses.values() if each["PublicIp"] == identity)
            attributes = {"PublicIp": identity, "AllocationId": next(found, "")}
        provisioners._ec2_apply_tags(attributes.get("AllocationId", identity), new, old)
        return identity, attributes

    def delete(self, identity: str, properties: Payload) -> None:
        if self.deletion:
            given = {**properties, **self.update(identity, properties, properties)[1]}
            _call(self.deleted, {name: given[name] for name in self.deletion if given.get(name)})
        elif properties["GroupId"] in ec2._security_groups:
            for rule in provisioners._ec2_sg_permissions([properties]):
                if rule in (rules := self._rules(properties)):
                    rules.remove(rule)

    def _rules(self, properties: Payload) -> list[Any]:
        member = "IpPermissionsEgress" if self.kind.endswith("Egress") else "IpPermissions"
        return ec2._security_groups[properties["GroupId"]][member]  # type: ignore[no-any-return]


def _call(operation: str, properties: Payload) -> str:
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in properties.items()}
    status, _, body = ec2._ACTION_MAP[operation]({_LISTED.get(name, name): [text] for name, text in texts.items()})
    text = body.decode() if isinstance(body, bytes) else str(body)
    if status >= 400 and not (operation.startswith(_DELETIONS) and "NotFound" in text):
        raise ValueError(handler_message(str(s3.fromstring(text).findtext(".//{*}Message"))))
    return text


TYPES = (
    NetworkType("EIP", "AllocateAddress", "ReleaseAddress", ("AllocationId",), "publicIp"),
    NetworkType("NatGateway", "CreateNatGateway", "DeleteNatGateway", ("NatGatewayId",), "natGatewayId"),
    NetworkType("NetworkAcl", "CreateNetworkAcl", "DeleteNetworkAcl", ("NetworkAclId",), "networkAclId"),
    NetworkType(
        *("NetworkAclEntry", "CreateNetworkAclEntry", "DeleteNetworkAclEntry"), ("NetworkAclId", "RuleNumber", "Egress")
    ),
    NetworkType("FlowLog", "CreateFlowLogs", "DeleteFlowLogs", ("FlowLogId",), "item"),
    NetworkType("SecurityGroupIngress", "AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress"),
    NetworkType("SecurityGroupEgress", "AuthorizeSecurityGroupEgress", "RevokeSecurityGroupEgress"),
)


def install() -> None:
    """Give MiniStack's own types the attributes that they lack."""
    lacking: Payload = {"CidrBlockAssociations": [], "Ipv6CidrBlocks": []}
    for kind in ("VPC", "Subnet"):
        wrap_handlers(f"AWS::EC2::{kind}", after=lambda _, made, properties: {**properties, **lacking, **made})
