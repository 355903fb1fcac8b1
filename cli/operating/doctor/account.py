"""Checks of the account: roles and quotas."""

from __future__ import annotations

from typing import Any

from cli.costs.planned import STACKS
from cli.operating.doctor.diagnosis import Diagnosis
from cli.operating.preflight import find_room

#: Services that work for many accounts, so that trusting them takes a condition.
_SHARED = ("codebuild.amazonaws.com", "sagemaker.amazonaws.com")


def roles(found: Diagnosis) -> str:
    """Every role has the policies of its template, no others, and trusts shared services for this account only."""
    names = []
    for kind in STACKS:
        roles = {role["LogicalResourceId"]: role for role in found.stage.resources(kind, "AWS::IAM::Role")}
        request = {"StackName": found.stage.stack_name(kind)}
        template = found.stage.client("cloudformation").get_template(**request)["TemplateBody"] if roles else {}
        for logical, role in roles.items():
            names.append(role["PhysicalResourceId"])
            _role(found, kind, names[-1], template["Resources"][logical]["Properties"])
    return f"{len(names)} roles have the policies of their templates and nothing else"


def _role(found: Diagnosis, kind: str, name: str, properties: dict[str, Any]) -> None:
    again, described = found.restore(kind), found.find("iam", "get_role", RoleName=name)
    if described is None:
        found.problem(f"the role {name} is not there", again)
        return
    for statement in described["Role"]["AssumeRolePolicyDocument"]["Statement"]:
        principals, condition = str(statement.get("Principal")), statement.get("Condition", {})
        own = condition.get("StringEquals", {}).get("aws:SourceAccount") == found.stage.account
        if any(service in principals for service in _SHARED) and not own:
            found.problem(f"{name} trusts {principals} without aws:SourceAccount", again)
    expected = {policy["PolicyName"] for policy in properties.get("Policies", [])}
    inline = set(found.stage.listed("iam", "list_role_policies", "PolicyNames", RoleName=name))
    for policy in sorted(expected - inline):
        found.problem(f"{name} lacks its policy {policy}", again)
    attached = found.stage.listed("iam", "list_attached_role_policies", "AttachedPolicies", RoleName=name)
    others = {f"delete-role-policy --role-name {name} --policy-name {policy}": policy for policy in inline - expected}
    others |= {
        f"detach-role-policy --role-name {name} --policy-arn {policy['PolicyArn']}": policy["PolicyName"]
        for policy in attached
    }
    for command, policy in sorted(others.items()):
        found.problem(f"{name} has the policy {policy}, which its template does not give it", f"aws iam {command}")


def quotas(found: Diagnosis) -> str:
    """What would stop the next deployment or scaling, and what is used up to 80 percent."""
    room = find_room(found.stage)
    for line in [*room.errors, *room.warnings]:
        found.add("warning", line, "Service Quotas in the AWS console, in this region")
    if room.unchecked:
        found.add("not checked", "; ".join(room.unchecked))
    return "There is room for an update at full load."
