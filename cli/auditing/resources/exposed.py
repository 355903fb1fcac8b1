"""Checks of buckets, keys, functions, topics, image repositories and log groups."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, wraps
from typing import Any

from cli.auditing.account import Account
from cli.auditing.findings import Check, Finding, NotChecked
from cli.auditing.identities import policy_rights
from cli.auditing.resources.policies import exposed, flaw
from cli.errors import AwsError

Results = Iterator[Finding | NotChecked]
Examine = Callable[[Account, Any], Iterable[Finding | NotChecked]]
_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_FULL_ACCESS = re.compile("policy-(admin|service-wildcard|not-action|aws-admin|aws-full-access)")


def each(service: str, operation: str, member: str, **request: Any) -> Callable[[Examine], Check]:
    """Make a check of what looks at one thing of a list; what AWS refuses of one leaves the others checked."""

    def decorate(examine: Examine) -> Check:
        @wraps(examine)
        def check(account: Account) -> Results:
            for thing in account.listed(service, operation, member, **request):
                try:
                    yield from examine(account, thing)
                except AwsError as error:
                    yield NotChecked(check.__name__.replace("_", " "), f"{thing}: {error}")

        return check

    return decorate


def secrets(arn: str, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what looks like a secret in environment variables; the value is not repeated."""
    from detect_secrets.core.scan import scan_line
    from detect_secrets.settings import default_settings

    with default_settings():
        for name, value in environment.items():
            kinds = {one.type for one in scan_line(f'{name} = "{value}"') if "Entropy" not in one.type}
            if kinds and not value.startswith("arn:"):
                yield flaw("secret-in-environment", arn, f"{name}: {', '.join(sorted(kinds))}")


@cache
def _account_block(account: Account) -> dict[str, bool] | AwsError:
    """Return the public access block of all buckets of the account, or why it cannot be read."""
    try:
        answer = account.call("s3control", "get_public_access_block", missing={}, AccountId=account.id)
    except AwsError as error:
        return error
    return dict(answer.get("PublicAccessBlockConfiguration", {}))


@cache
def _log_buckets(account: Account) -> set[str]:
    """Return the buckets that access logs go to: S3 delivers none to a bucket with a KMS key (S3 user guide)."""
    names = [bucket["Name"] for bucket in account.listed("s3", "list_buckets", "Buckets")]
    settings = [account.call("s3", "get_bucket_logging", Bucket=name).get("LoggingEnabled", {}) for name in names]
    return {setting.get("TargetBucket", "") for setting in settings}


@each("s3", "list_buckets", "Buckets")
def buckets(account: Account, bucket: dict[str, str]) -> Results:
    """Policy, ACL, public access block and encryption of a bucket."""
    name, arn = bucket["Name"], f"arn:{account.partition}:s3:::{bucket['Name']}"

    def read(what: str, member: str) -> dict[str, Any]:
        return dict(account.call("s3", f"get_{what}", missing={}, Bucket=name).get(member, {}))

    block = read("public_access_block", "PublicAccessBlockConfiguration")
    if not all(map(block.get, _BLOCKS)):
        if isinstance(shared := _account_block(account), AwsError):
            yield NotChecked("public access block of the account", str(shared))
        else:
            block = {each: block.get(each) or shared.get(each) for each in _BLOCKS}
    if missing := [each for each in _BLOCKS if not block.get(each)]:
        yield flaw("bucket-without-public-access-block", arn, f"neither bucket nor account has {', '.join(missing)}")
    policy = account.call("s3", "get_bucket_policy", missing={}, Bucket=name).get("Policy")
    for each in exposed(account, "bucket", arn, policy):
        if not block.get("RestrictPublicBuckets") or each.rule != "bucket-public":
            yield each
    grants = account.call("s3", "get_bucket_acl", Bucket=name)["Grants"]
    groups = [(each["Grantee"].get("URI", "").partition("/global/")[2], each["Permission"]) for each in grants]
    open_to = [f"{group} may {right}" for group, right in groups if group]
    if open_to and not block.get("IgnorePublicAcls"):
        yield flaw("bucket-public-acl", arn, ", ".join(open_to))
    rules = str(read("bucket_encryption", "ServerSideEncryptionConfiguration"))
    if "aws:kms" not in rules and name not in _log_buckets(account):
        yield flaw("bucket-without-key", arn, f"encryption: {rules}")


@cache
def _full_access(account: Account) -> dict[str, list[str]]:
    """Return what of roles and of managed policies, by ARN, allows too much."""
    flaws = defaultdict[str, list[str]](list)
    for each in policy_rights(account):
        if _FULL_ACCESS.fullmatch(each.rule):
            flaws[each.resource].append(each.evidence)
    return flaws


@each("lambda", "list_functions", "Functions")
def functions(account: Account, function: dict[str, Any]) -> Iterable[Finding]:
    """Environment, role, URLs and permissions of a function, of its versions and aliases too."""
    name, arn, role = function["FunctionName"], function["FunctionArn"], function["Role"]
    yield from secrets(arn, function.get("Environment", {}).get("Variables", {}))
    held = [each for each in account.authorization["RoleDetailList"] if each["Arn"] == role]
    attached = [policy["PolicyArn"] for each in held for policy in each["AttachedManagedPolicies"]]
    for path in [each for owner in (role, *attached) for each in _full_access(account).get(owner, [])]:
        yield flaw("function-full-access", arn, f"{name} → {role} → {path}")
    for url in account.listed("lambda", "list_function_url_configs", "FunctionUrlConfigs", FunctionName=name):
        if url["AuthType"] == "NONE":
            yield flaw("function-url-unsigned", url["FunctionArn"], f"AuthType NONE: {url['FunctionUrl']}")
    versions = account.listed("lambda", "list_versions_by_function", "Versions", FunctionName=name)
    aliases = account.listed("lambda", "list_aliases", "Aliases", FunctionName=name)
    qualified = {f"{arn}:{each['Version']}" for each in versions} | {each["AliasArn"] for each in aliases}
    for one in (arn, *sorted(qualified)):
        policy = account.call("lambda", "get_policy", missing={}, FunctionName=one).get("Policy")
        yield from exposed(account, "function", one, policy)


def policy_of(kind: str, listing: tuple[str, str, str], name: str, arn: str, read: str, member: str) -> Check:
    """Make a check of the policies of a kind of resources; `read` gives one, in a member of its answer."""

    @each(*listing)
    def check(account: Account, thing: dict[str, str]) -> Iterable[Finding]:
        answer = account.call(listing[0], read, missing={}, **{name: thing[name]})
        return exposed(account, kind, thing[arn], answer.get("Attributes", answer).get(member))

    check.__name__ = f"policy of every {kind}"
    return check


@each("logs", "describe_log_groups", "logGroups")
def log_groups(account: Account, group: dict[str, Any]) -> Iterable[Finding]:
    """Retention of a log group."""
    if "retentionInDays" not in group:
        yield flaw("log-group-endless", group["arn"].removesuffix(":*"), f"no retention, {group['storedBytes']} bytes")


_REPOSITORIES = ("ecr", "describe_repositories", "repositories")
CHECKS = (
    *(functions, log_groups),
    policy_of("key", ("kms", "list_keys", "Keys"), "KeyId", "KeyArn", "get_key_policy", "Policy"),
    policy_of("topic", ("sns", "list_topics", "Topics"), "TopicArn", "TopicArn", "get_topic_attributes", "Policy"),
    policy_of("repository", _REPOSITORIES, "repositoryName", "repositoryArn", "get_repository_policy", "policyText"),
)
