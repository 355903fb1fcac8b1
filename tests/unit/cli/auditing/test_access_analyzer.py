"""What IAM Access Analyzer says is found; without an analyzer nothing is said to be clean."""

from datetime import UTC, datetime

from fake_account import FakeAccount
from fake_stage import FakeStage

from cli.auditing.account import Account
from cli.auditing.findings import NotChecked
from cli.auditing.resources.access_analyzer import access_analyzer, policy_validation

POLICY = "arn:aws:iam::123456789012:policy/p"


def test_findings_and_objections_are_found_and_a_region_without_analyzer_is_not_checked() -> None:
    aws = FakeAccount()
    account = Account(FakeStage("dev", aws))
    aws.answers["list_analyzers"] = {"analyzers": []}
    assert [type(each) for each in access_analyzer(account)] == [NotChecked]
    aws.answers["list_analyzers"] = {"analyzers": [{"arn": "arn:aws:access-analyzer:r:1:analyzer/a"}]}
    one = {"id": "i", "findingType": "ExternalAccess", "resourceType": "AWS::S3::Bucket", "resource": "arn:aws:s3:::b"}
    aws.answers["list_findings_v2"] = {"findings": [{**one, "createdAt": datetime.now(UTC)}]}
    account.__dict__["own_policies"] = []
    version = {"IsDefaultVersion": True, "Document": {"Statement": []}}
    account.__dict__["authorization"] = {
        "Policies": [{"Arn": POLICY, "PolicyVersionList": [version]}],
        **{f"{kind}DetailList": [] for kind in ("User", "Group", "Role")},
    }
    kinds = ("ERROR", "SUGGESTION")
    said = [{"findingType": kind, "issueCode": "c", "findingDetails": "d"} for kind in kinds]
    aws.answers["validate_policy"] = {"findings": said}
    found = [*access_analyzer(account), *policy_validation(account)]
    assert [(each.rule, each.resource) for each in found] == [
        ("access-analyzer", "arn:aws:s3:::b"),
        ("policy-invalid", POLICY),
    ]
