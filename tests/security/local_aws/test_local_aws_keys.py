"""What is encrypted is nothing to those who may not use its key, by whatever service they read and write it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from botocore.config import Config
from emulator_fixtures import training_job, tuning_job
from local_aws_harness import LocalAws, policy, refused, trust

SERVICES = {"Action": ["s3:*", "ssm:*"], "Resource": "*"}
THROUGH = {"StringEquals": {"kms:ViaService": [f"{name}.us-east-1.amazonaws.com" for name in ("s3", "ssm")]}}
USES = ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey"]
SECURE = {"Value": "new", "Type": "SecureString"}
KMS = {"ServerSideEncryption": "aws:kms"}
VERSIONED = {"VersioningConfiguration": {"Status": "Enabled"}}


@pytest.fixture(scope="module")
def key(aws: LocalAws) -> str:
    """The key of an object and two parameters."""
    key = str(aws.client("kms").create_key()["KeyMetadata"]["Arn"])
    s3 = aws.client("s3")
    for bucket in ("vault", "plain"):
        s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket="vault", **VERSIONED)
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    s3.put_bucket_encryption(Bucket="vault", ServerSideEncryptionConfiguration={"Rules": [rule]})
    s3.put_object(Bucket="vault", Key="secret", Body=b"1")
    for name in ("/vault/a", "/vault/b"):
        aws.client("ssm").put_parameter(Name=name, Value="hidden", Type="SecureString", KeyId=key)
    return key


def user(aws: LocalAws, name: str, key: str, *uses: str, **more: Any) -> dict[str, str]:
    """Who may do everything with the services, and this with the key."""
    return aws.user(name, policy(SERVICES, *([{"Action": list(uses), "Resource": key, **more}] if uses else [])))


def kept(aws: LocalAws) -> list[Any]:
    """What is in the two buckets, and how parameters are encrypted."""
    versions = [aws.s3.list_object_versions(Bucket=bucket).get("Versions") for bucket in ("vault", "plain")]
    return [versions, aws.client("ssm").get_parameters_by_path(Path="/vault", WithDecryption=False)["Parameters"]]


def calls(key: str) -> list[tuple[str, str, dict[str, Any]]]:
    """By service and operation: every way to something encrypted with a key."""
    return [
        ("s3", "get_object", {"Bucket": "vault", "Key": "secret"}),
        ("s3", "copy_object", {"Bucket": "plain", "Key": "copy", "CopySource": "vault/secret"}),
        ("s3", "put_object", {"Bucket": "vault", "Key": "new", "Body": b"1"}),
        ("s3", "put_object", {"Bucket": "plain", "Key": "new", "Body": b"1", "SSEKMSKeyId": key, **KMS}),
        ("s3", "create_multipart_upload", {"Bucket": "vault", "Key": "parts"}),
        ("ssm", "get_parameter", {"Name": "/vault/a", "WithDecryption": True}),
        ("ssm", "get_parameters", {"Names": ["/vault/a", "/vault/b"], "WithDecryption": True}),
        ("ssm", "get_parameters_by_path", {"Path": "/vault", "WithDecryption": True}),
        ("ssm", "get_parameter_history", {"Name": "/vault/a", "WithDecryption": True}),
        ("ssm", "put_parameter", {"Name": "/vault/c", "KeyId": key, **SECURE}),
    ]


def test_what_is_encrypted_is_nothing_without_its_key(aws: LocalAws, key: str) -> None:
    without, holder = user(aws, "keyless", key), user(aws, "key-holder", key, *USES, Condition=THROUGH)
    before = kept(aws)
    for service, operation, request in calls(key):
        call = getattr(aws.client(service, without), operation)
        refused(call, f"not authorized to perform: kms:.* on resource: {key}", **request)
    assert kept(aws) == before
    for service, operation, request in calls(key):
        getattr(aws.client(service, holder), operation)(**request)
    half = aws.client("s3", user(aws, "half", key, "kms:GenerateDataKey"))
    refused(half.create_multipart_upload, "kms:Decrypt", Bucket="vault", Key="parts")


def test_the_key_that_aws_manages_needs_no_permission(aws: LocalAws, key: str) -> None:
    without = user(aws, "managed", key)
    s3, ssm = aws.client("s3", without), aws.client("ssm", without)
    assert s3.put_object(Bucket="plain", Key="managed", Body=b"1", **KMS)["SSEKMSKeyId"].endswith("alias/aws/s3")
    assert s3.get_object(Bucket="plain", Key="managed")["Body"].read() == b"1"
    ssm.put_parameter(Name="managed", **SECURE)
    assert ssm.get_parameter(Name="managed", WithDecryption=True)["Parameter"]["Value"] == "new"
    ssm.get_parameter(Name="/vault/a")  # in its encrypted form


def test_every_way_to_s3_asks_for_the_key(aws: LocalAws, key: str) -> None:
    """A presigned URL, a copy that a URL's query names, an older version, a part."""
    without = user(aws, "ways", key)
    s3 = aws.client("s3", without, Config(signature_version="s3v4"))
    version = aws.s3.put_object(Bucket="vault", Key="deleted", Body=b"1")["VersionId"]
    aws.s3.delete_object(Bucket="vault", Key="deleted")
    before = kept(aws)
    for operation, method in (("get_object", "GET"), ("put_object", "PUT"), ("create_multipart_upload", "POST")):
        url = s3.generate_presigned_url(operation, Params={"Bucket": "vault", "Key": "secret"})
        answer = aws.send(method, url)
        assert (answer.status, b"kms:" in answer.data) == (403, True)
    for source in ("vault/secret", f"vault/deleted?versionId={version}"):
        path = f"/plain/stolen?x-amz-copy-source={quote(source, safe='')}"
        answer = aws.send("PUT", path, sign="s3", key=without, in_query=60)
        assert answer.status == 403 and b"kms:Decrypt" in answer.data
    refused(s3.get_object, "kms:Decrypt", Bucket="vault", Key="deleted", VersionId=version)
    part = {"Bucket": "plain", "Key": "p", "UploadId": s3.create_multipart_upload(Bucket="plain", Key="p")["UploadId"]}
    refused(s3.upload_part_copy, "kms:Decrypt", PartNumber=1, CopySource="vault/secret", **part)
    assert kept(aws) == before


def test_a_key_that_is_to_be_deleted_takes_its_objects_with_it(aws: LocalAws, key: str) -> None:
    s3, ssm, kms = (aws.client(name) for name in ("s3", "ssm", "kms"))
    doomed = kms.create_key()["KeyMetadata"]["Arn"]
    named = {"Bucket": "plain", "Key": "doomed"}
    s3.put_object(Body=b"1", SSEKMSKeyId=doomed, **KMS, **named)
    ssm.put_parameter(Name="doomed", KeyId=doomed, **SECURE)
    kms.schedule_key_deletion(KeyId=doomed, PendingWindowInDays=7)
    refused(s3.get_object, "KMS.KMSInvalidStateException", **named)
    refused(s3.put_object, "KMS.KMSInvalidStateException", SSEKMSKeyId=doomed, **KMS, **named)
    missing = doomed.rpartition("/")[0] + "/00000000-0000-0000-0000-000000000000"
    refused(s3.put_object, "KMS.NotFoundException", SSEKMSKeyId=missing, **KMS, **named)
    refused(ssm.get_parameter, r"InvalidKeyId.*pending deletion", Name="doomed", WithDecryption=True)
    kms.cancel_key_deletion(KeyId=doomed)
    kms.enable_key(KeyId=doomed)
    assert s3.get_object(**named)["Body"].read() == b"1"


def with_volumes(aws: LocalAws, key: str, role: str) -> list[tuple[str, dict[str, Any]]]:
    """Requests for instances whose volumes have the key; the last has no role that could hand it on."""
    container = {"Image": "000000000000.dkr.ecr.us-east-1.amazonaws.com/i:1"}
    aws.sagemaker.create_model(ModelName="volumes", ExecutionRoleArn=role, PrimaryContainer=container)
    variant = {"VariantName": "v", "ModelName": "volumes", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    aws.sagemaker.create_endpoint_config(EndpointConfigName="volumes", ProductionVariants=[variant], KmsKeyId=key)
    encrypted = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeKmsKeyId": key}
    training = training_job("volumes", RoleArn=role, ResourceConfig={**encrypted, "VolumeSizeInGB": 1})
    tuning = tuning_job(HyperParameterTuningJobName="volumes")
    tuning["TrainingJobDefinition"] |= {name: training[name] for name in ("RoleArn", "ResourceConfig")}
    transform = {
        **{
            "TransformJobName": "volumes",
            "ModelName": "volumes",
            "TransformOutput": {"S3OutputPath": "s3://vault/out"},
        },
        "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://vault/none"}}},
        "TransformResources": encrypted,
    }
    notebook = {"NotebookInstanceName": "volumes", "InstanceType": "ml.t3.medium", "RoleArn": role, "KmsKeyId": key}
    return [
        ("create_training_job", training),
        ("create_hyper_parameter_tuning_job", tuning),
        ("create_transform_job", transform),
        ("create_notebook_instance", notebook),
        ("create_endpoint", {"EndpointName": "volumes", "EndpointConfigName": "volumes"}),
    ]


def test_the_key_of_a_volume_is_handed_on_by_a_grant_of_the_caller_or_the_role(aws: LocalAws, key: str) -> None:
    aws.role("volumes", trust("sagemaker.amazonaws.com"))
    role = aws.iam.get_role(RoleName="volumes")["Role"]["Arn"]
    working = {"Action": ["sagemaker:*", "iam:PassRole"], "Resource": "*"}
    grant = {"Action": "kms:CreateGrant", "Resource": key, "Condition": {"Bool": {"kms:GrantIsForAWSResource": "true"}}}
    without, holder = aws.user("ungranting", policy(working)), aws.user("granting", policy(working, grant))
    *by_role, endpoint = with_volumes(aws, key, role)
    for operation, request in (*by_role, endpoint):
        call = getattr(aws.client("sagemaker", without), operation)
        refused(call, f"not authorized to perform: kms:CreateGrant on resource: {key}", **request)
    stack = {"Type": "AWS::SageMaker::NotebookInstance", "Properties": by_role[-1][1]}
    stranger = aws.user("stacking", policy(working, {"Action": "cloudformation:*", "Resource": "*"}))
    assert "kms:CreateGrant" in aws.deploy("volumes", {"Resources": {"It": stack}}, key=stranger)["Reasons"]
    assert aws.sagemaker.list_training_jobs(NameContains="volumes")["TrainingJobSummaries"] == []
    aws.client("sagemaker", holder).create_endpoint(**endpoint[1])
    aws.iam.put_role_policy(RoleName="volumes", PolicyName="p", PolicyDocument=json.dumps(policy(grant)))
    for operation, request in by_role:
        getattr(aws.client("sagemaker", without), operation)(**request)
