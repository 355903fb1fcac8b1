"""Checks of buckets, keys, functions, topics, image repositories and log groups, and what Access Analyzer says."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any

from cli.auditing.account import AWS, Account
from cli.auditing.asking import once
from cli.auditing.findings import Check, Finding, NotChecked, name_of
from cli.auditing.identities import policy_rights
from cli.auditing.resources.policies import exposed, flaw
from cli.errors import AwsError
from infra.gate.secrets import secrets

Results = Iterator[Finding | NotChecked]
Part = Callable[[], AbstractContextManager[None]]
Examine = Callable[[Account, Any, Part], Iterable[Finding | NotChecked]]
_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_FULL_ACCESS = re.compile("policy-(admin|service-wildcard|not-action|aws-admin|aws-full-access)")


def each(service: str, operation: str, member: str, **request: Any) -> Callable[[Examine], Check]:
    """Make a check of what looks at one thing of a list: a part that AWS refuses leaves the others checked."""

    def name(thing: Mapping[str, Any]) -> str:  # and nothing else of it: it may have an environment with secrets
        return next(str(value) for key, value in thing.items() if key.lower().endswith(("name", "arn")))

    def decorate(examine: Examine) -> Check:
        @wraps(examine)
        def check(account: Account) -> Results:
            skipped = list[NotChecked]()

            @contextmanager
            def part() -> Iterator[None]:
                try:
                    yield
                except AwsError as error:
                    skipped.append(NotChecked(name_of(check), str(error), (name(thing),)))

            for thing in account.listed(service, operation, member, **request):
                with part():
                    yield from examine(account, thing, part)
            yield from skipped

        return check

    return decorate


def environment(arn: str, variables: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what looks like a secret in environment variables; the value is not repeated."""
    for name, value in variables.items():
        if kinds := secrets(name, value, assigns=True):
            yield flaw("secret-in-environment", arn, f"{name}: {', '.join(sorted(kinds))}")


@once
def _account_block(account: Account) -> dict[str, bool]:
    """Return the public access block of all buckets of the account."""
    answer = account.call("s3control", "get_public_access_block", missing={}, AccountId=account.id)
    return dict(answer.get("PublicAccessBlockConfiguration", {}))


@each("s3", "list_buckets", "Buckets")
def buckets(account: Account, bucket: dict[str, str], part: Part) -> Results:
    """Policy, ACL, public access block and encryption of a bucket."""
    name, arn = bucket["Name"], f"arn:{account.partition}:s3:::{bucket['Name']}"

    def read(what: str, member: str) -> Any:
        return account.call("s3", f"get_{what}", missing={}, Bucket=name).get(member)

    block, policy, grants = dict[str, bool](), None, None
    with part():
        block = read("public_access_block", "PublicAccessBlockConfiguration") or {}
        whose = "the account's settings could not be read, and the bucket lacks"
        with part():
            if not all(map(block.get, _BLOCKS)):
                block |= {each: True for each in _BLOCKS if _account_block(account).get(each)}
            whose = "neither bucket nor account has"
        if missing := [each for each in _BLOCKS if not block.get(each)]:
            yield flaw("bucket-without-public-access-block", arn, f"{whose} {', '.join(missing)}")
    with part():
        policy = json.loads(read("bucket_policy", "Policy") or "{}")
        for each in exposed(account, "bucket", arn, policy):
            if not block.get("RestrictPublicBuckets") or each.rule != "bucket-public":
                yield each
    with part():
        grants = read("bucket_acl", "Grants") or []
        groups = [(each["Grantee"].get("URI", "").partition("/global/")[2], each["Permission"]) for each in grants]
        open_to = [f"{group} may {right}" for group, right in groups if group]
        if open_to and not block.get("IgnorePublicAcls"):
            yield flaw("bucket-public-acl", arn, ", ".join(open_to))
    rules = str(read("bucket_encryption", "ServerSideEncryptionConfiguration"))
    # S3 delivers access logs to no bucket with a KMS key (S3 user guide): without policy and ACL it may be such a one.
    unknown = "aws:kms" in rules or None in (policy, grants)
    if not unknown and not re.search("logging.s3.amazonaws.com|s3/LogDelivery", f"{policy} {grants}"):
        yield flaw("bucket-without-key", arn, f"encryption: {rules}")


@once
def _full_access(account: Account) -> dict[str, list[str]]:
    """Return what of roles and of managed policies, by ARN, allows too much."""
    flaws = defaultdict[str, list[str]](list)
    for each in policy_rights(account):
        if _FULL_ACCESS.fullmatch(each.rule):
            flaws[each.resource].append(each.evidence)
    return flaws


@each("lambda", "list_functions", "Functions")
def functions(account: Account, function: dict[str, Any], part: Part) -> Results:
    """Environment, role, URLs and permissions of a function, of its versions and aliases too."""
    name, arn, role = function["FunctionName"], function["FunctionArn"], function["Role"]
    its = function.get("Environment", {})
    if "Error" in its:  # encrypted with a key that the caller may not use
        yield NotChecked(f"environment of {arn}", its["Error"].get("Message", ""))
    yield from environment(arn, its.get("Variables", {}))
    with part():
        held = [each for each in account.authorization["RoleDetailList"] if each["Arn"] == role]
        attached = [policy["PolicyArn"] for each in held for policy in each["AttachedManagedPolicies"]]
        for path in [each for owner in (role, *attached) for each in _full_access(account).get(owner, [])]:
            yield flaw("function-full-access", arn, f"{name} → {role} → {path}")
    with part():
        for url in account.listed("lambda", "list_function_url_configs", "FunctionUrlConfigs", FunctionName=name):
            if url["AuthType"] == "NONE":
                yield flaw("function-url-unsigned", url["FunctionArn"], f"AuthType NONE: {url['FunctionUrl']}")
    ones = [arn]
    with part():
        for each in account.listed("lambda", "list_versions_by_function", "Versions", FunctionName=name):
            ones += [f"{arn}:{each['Version']}"] * (each["Version"] != "$LATEST")  # which is `arn`
    with part():
        for each in account.listed("lambda", "list_aliases", "Aliases", FunctionName=name):
            ones.append(each["AliasArn"])
    for one in ones:
        with part():
            policy = account.call("lambda", "get_policy", missing={}, FunctionName=one).get("Policy", "{}")
            yield from exposed(account, "function", one, json.loads(policy))


def policy_of(kind: str, listing: tuple[str, str, str], name: str, arn: str, read: str, member: str) -> Check:
    """Make a check of the policies of a kind of resources; `read` gives one, in a member of its answer."""

    @each(*listing)
    def check(account: Account, thing: dict[str, str], _: Part) -> Iterable[Finding]:
        answer = account.call(listing[0], read, missing={}, **{name: thing[name]})
        return exposed(account, kind, thing[arn], json.loads(answer.get("Attributes", answer).get(member) or "{}"))

    check.__name__ = f"policy of every {kind}"
    return check


@each("logs", "describe_log_groups", "logGroups")
def log_groups(_: Account, group: dict[str, Any], __: Part) -> Iterable[Finding]:
    """Retention of a log group."""
    if "retentionInDays" not in group:
        size = group.get("storedBytes", 0)
        yield flaw("log-group-endless", group["arn"].removesuffix(":*"), f"no retention, {size} bytes")


def access_analyzer(account: Account) -> Results:
    """Active findings of the region's analyzers of external access; what is unused, other checks say."""
    listed = account.listed("accessanalyzer", "list_analyzers", "analyzers")
    analyzers = [each["arn"] for each in listed if each["type"] in ("ACCOUNT", "ORGANIZATION")]
    if not analyzers:
        yield NotChecked("access analyzer", "there is no analyzer (aws accessanalyzer create-analyzer)")
    for arn in analyzers:
        active = {"analyzerArn": arn, "filter": {"status": {"eq": ["ACTIVE"]}}}
        for each in account.listed("accessanalyzer", "list_findings_v2", "findings", **active):
            evidence = f"{each['id']}: {each['findingType']} of {each['resourceType']}, {each['createdAt']:%Y-%m-%d}"
            yield flaw("access-analyzer", each.get("resource", arn), evidence)


def policy_validation(account: Account) -> Iterator[Finding]:
    """Errors and warnings of ValidatePolicy on the account's own managed policies."""
    for arn, document in account.documents.items():
        asked = {"policyDocument": json.dumps(document), "policyType": "IDENTITY_POLICY"}
        for each in account.listed("accessanalyzer", "validate_policy", "findings", **asked) if AWS not in arn else ():
            if each["findingType"] != "SUGGESTION":
                evidence = f"{each['findingType']} {each['issueCode']}: {each['findingDetails']}"
                yield flaw("policy-invalid", arn, evidence)


_REPOSITORIES = ("ecr", "describe_repositories", "repositories")
CHECKS = (
    *(functions, log_groups, access_analyzer),
    policy_of("key", ("kms", "list_keys", "Keys"), "KeyId", "KeyArn", "get_key_policy", "Policy"),
    policy_of("topic", ("sns", "list_topics", "Topics"), "TopicArn", "TopicArn", "get_topic_attributes", "Policy"),
    policy_of("repository", _REPOSITORIES, "repositoryName", "repositoryArn", "get_repository_policy", "policyText"),
)
