"""What the data bucket promises."""

import pytest
from templates import Resource, SynthesisedStage


@pytest.fixture
def bucket(stage: SynthesisedStage) -> dict:
    return stage.resources("storage", "AWS::S3::Bucket")["DataBucketE6B0FAA8"]["Properties"]


@pytest.fixture
def buckets(stage: SynthesisedStage) -> dict[str, Resource]:
    return stage.resources("storage", "AWS::S3::Bucket")


def test_data_is_encrypted_with_the_customer_managed_key(stage, bucket):
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"] == {
        "SSEAlgorithm": "aws:kms",
        "KMSMasterKeyID": {"Fn::GetAtt": ["DataKey5F086070", "Arn"]},
    }
    assert rule["BucketKeyEnabled"] is True


def test_the_key_rotates_and_data_is_versioned(stage, bucket):
    assert stage.properties("storage", "AWS::KMS::Key")["EnableKeyRotation"] is True
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}


def test_no_bucket_can_become_public_or_has_access_control_lists(buckets):
    for properties in (bucket["Properties"] for bucket in buckets.values()):
        assert list(properties["PublicAccessBlockConfiguration"].values()) == [True] * 4
        assert properties["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
        assert "AccessControl" not in properties


@pytest.mark.parametrize(
    "condition",
    [{"Bool": {"aws:SecureTransport": "false"}}, {"NumericLessThan": {"s3:TlsVersion": 1.2}}],
    ids=["plain-http", "old-tls"],
)
def test_every_bucket_denies_everything_over(stage, buckets, condition):
    policies = stage.resources("storage", "AWS::S3::BucketPolicy").values()
    for name in buckets:
        (policy,) = (p["Properties"] for p in policies if p["Properties"]["Bucket"] == {"Ref": name})
        (denied,) = (s for s in policy["PolicyDocument"]["Statement"] if s.get("Condition") == condition)
        arn = {"Fn::GetAtt": [name, "Arn"]}
        assert denied["Effect"] == "Deny"
        assert denied["Action"] == "s3:*"
        assert denied["Principal"] == {"AWS": "*"}
        assert denied["Resource"] == [arn, {"Fn::Join": ["", [arn, "/*"]]}]


def test_access_to_data_is_logged(bucket):
    assert bucket["LoggingConfiguration"] == {
        "DestinationBucketName": {"Ref": "DataAccessLogsC0C25EE4"},
        "LogFilePrefix": "data/",
    }


def test_only_s3_itself_writes_access_logs_and_only_about_our_bucket(stage):
    (policy,) = (
        resource["Properties"]["PolicyDocument"]
        for resource in stage.resources("storage", "AWS::S3::BucketPolicy").values()
        if resource["Properties"]["Bucket"] == {"Ref": "DataAccessLogsC0C25EE4"}
    )
    (allowed,) = (statement for statement in policy["Statement"] if statement["Effect"] == "Allow")
    assert allowed["Principal"] == {"Service": "logging.s3.amazonaws.com"}
    assert allowed["Action"] == "s3:PutObject"
    assert allowed["Condition"]["ArnLike"] == {"aws:SourceArn": {"Fn::GetAtt": ["DataBucketE6B0FAA8", "Arn"]}}
    assert allowed["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}


def test_nothing_piles_up_for_ever(stage, buckets):
    settings = stage.settings.storage
    rules = {rule["Id"]: rule for b in buckets.values() for rule in b["Properties"]["LifecycleConfiguration"]["Rules"]}
    assert {rule["Status"] for rule in rules.values()} == {"Enabled"}
    assert rules["clean-up"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": settings.noncurrent_version_days}
    assert rules["clean-up"]["ExpiredObjectDeleteMarker"] is True
    assert rules["expire-logs"]["ExpirationInDays"] == settings.access_log_days
    assert rules["expire-checkpoints"]["Prefix"] == "checkpoints/"
    assert rules["expire-checkpoints"]["ExpirationInDays"] == settings.checkpoint_days
    assert rules["expire-checkpoints"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}
    for rule in ("clean-up", "expire-logs"):
        assert rules[rule]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert rules["archive-training-outputs"]["Prefix"] == "training/"
    assert rules["archive-training-outputs"]["Transitions"] == [
        {"StorageClass": "GLACIER_IR", "TransitionInDays": settings.archive_training_outputs_after_days}
    ]


def test_production_data_outlives_its_stack(stages):
    policies = {
        stage: {
            resource["DeletionPolicy"]
            for _, name, resource in stages[stage].all_resources()
            # What a build of the image logs is worth nothing once the image is there.
            if is_stateful(resource) and not name.startswith("ImageBuild")
        }
        for stage in stages
    }
    assert policies == {"local": {"Delete"}, "dev": {"Delete"}, "prod": {"Retain"}}


def test_production_storage_cannot_be_deleted_by_mistake(stages):
    def is_protected(name: str) -> bool:
        stage = stages[name]
        manifest = (stage.assembly / "manifest.json").read_text(encoding="utf-8")
        return '"terminationProtection": true' in manifest

    assert {name: is_protected(name) for name in stages} == {"local": False, "dev": False, "prod": True}


def is_stateful(resource: Resource) -> bool:
    return resource["Type"] in ("AWS::S3::Bucket", "AWS::KMS::Key", "AWS::Logs::LogGroup")
