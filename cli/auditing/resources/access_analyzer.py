"""What IAM Access Analyzer says, where the account has an analyzer."""

from __future__ import annotations

import json
from collections.abc import Iterator

from cli.auditing.account import Account
from cli.auditing.findings import Finding, NotChecked
from cli.auditing.identities import policies
from cli.auditing.resources.policies import flaw


def access_analyzer(account: Account) -> Iterator[Finding | NotChecked]:
    """Active findings of all analyzers of the region."""
    analyzers = [each["arn"] for each in account.listed("accessanalyzer", "list_analyzers", "analyzers")]
    if not analyzers:
        yield NotChecked("access analyzer", f"{account.region} has no analyzer (aws accessanalyzer create-analyzer)")
    for arn in analyzers:
        active = {"analyzerArn": arn, "filter": {"status": {"eq": ["ACTIVE"]}}}
        for each in account.listed("accessanalyzer", "list_findings_v2", "findings", **active):
            evidence = f"{each['id']}: {each['findingType']} of {each['resourceType']}, {each['createdAt']:%Y-%m-%d}"
            yield flaw("access-analyzer", each.get("resource", arn), evidence)


def policy_validation(account: Account) -> Iterator[Finding]:
    """Errors and warnings of ValidatePolicy on the account's own managed policies."""
    for policy in policies(account):
        document = {"policyDocument": json.dumps(policy.document), "policyType": "IDENTITY_POLICY"}
        if ":policy/" in policy.owner:
            for each in account.listed("accessanalyzer", "validate_policy", "findings", **document):
                if each["findingType"] != "SUGGESTION":
                    evidence = f"{each['findingType']} {each['issueCode']}: {each['findingDetails']}"
                    yield flaw("policy-invalid", policy.owner, evidence)
