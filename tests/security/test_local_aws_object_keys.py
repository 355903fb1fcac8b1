"""An encrypted object is nothing to those who may not use its key, however S3 lets them read and write."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import boto3.s3.transfer
import botocore.exceptions
import pytest
import urllib3
from botocore.config import Config
from local_aws_harness import LocalAws, policy

S3_ONLY = {"Action": "s3:*", "Resource": "*"}


@dataclass
class Vault:
    """A bucket with a default key, and an object in it."""

    aws: LocalAws
    key: str

    def client(self, name: str, *actions: str) -> Any:
        """S3 for a user who may do everything with S3, and this with the key."""
        allowed = [S3_ONLY, *([{"Action": list(actions), "Resource": self.key}] if actions else [])]
        return self.aws.client("s3", self.aws.user(name, policy(*allowed)))


@pytest.fixture(scope="module")
def vault(aws: LocalAws) -> Vault:
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    s3 = aws.client("s3")
    for bucket in ("vault", "plain"):
        s3.create_bucket(Bucket=bucket)
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    s3.put_bucket_encryption(Bucket="vault", ServerSideEncryptionConfiguration={"Rules": [rule]})
    s3.put_object(Bucket="vault", Key="secret", Body=b"1")
    return Vault(aws, key)


def refused(call: Any, code: str = "AccessDenied", **request: Any) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**request)
    assert error.value.response["Error"]["Code"] == code
    return str(error.value)


def test_without_the_key_nothing_is_read(vault: Vault) -> None:
    s3 = vault.client("object-reader")
    assert f"not authorized to perform: kms:Decrypt on resource: {vault.key}" in refused(
        s3.get_object, Bucket="vault", Key="secret"
    )
    vault.aws.client("s3").put_bucket_versioning(Bucket="vault", VersioningConfiguration={"Status": "Enabled"})
    made = vault.aws.client("s3").put_object(Bucket="vault", Key="secret", Body=b"2")
    refused(s3.get_object, Bucket="vault", Key="secret", VersionId=made["VersionId"])
    refused(s3.copy_object, Bucket="plain", Key="copy", CopySource="vault/secret")
    refused(s3.copy_object, Bucket="plain", Key="copy", CopySource={"Bucket": "vault", "Key": "secret"})
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "vault", "Key": "secret"})
    assert urllib3.request("GET", url, retries=False).status == 403
    assert "Contents" not in vault.aws.client("s3").list_objects_v2(Bucket="plain")


def test_without_the_key_nothing_is_written(vault: Vault) -> None:
    s3 = vault.client("object-writer", "kms:Decrypt")
    assert "kms:GenerateDataKey" in refused(s3.put_object, Bucket="vault", Key="new", Body=b"1")
    named = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": vault.key}
    refused(s3.put_object, Bucket="plain", Key="new", Body=b"1", **named)
    refused(s3.create_multipart_upload, Bucket="vault", Key="new")
    url = s3.generate_presigned_url("put_object", Params={"Bucket": "plain", "Key": "new", **named})
    sent = {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": vault.key}
    assert urllib3.request("PUT", url, body=b"1", headers=sent, retries=False).status == 403
    keys = [found["Key"] for found in vault.aws.client("s3").list_objects_v2(Bucket="vault")["Contents"]]
    assert keys == ["secret"]


def test_an_upload_of_parts_needs_both_permissions(vault: Vault) -> None:
    assert "kms:Decrypt" in refused(
        vault.client("half", "kms:GenerateDataKey").create_multipart_upload, Bucket="vault", Key="parts"
    )
    whole = vault.client("whole", "kms:GenerateDataKey", "kms:Decrypt")
    config = boto3.s3.transfer.TransferConfig(multipart_threshold=5 * 2**20)
    whole.upload_fileobj(io.BytesIO(bytes(6 * 2**20)), "vault", "parts", Config=config)
    assert whole.get_object(Bucket="vault", Key="parts")["ContentLength"] == 6 * 2**20
    vault.aws.client("s3").delete_object(Bucket="vault", Key="parts")


def test_the_key_that_aws_manages_needs_no_permission(vault: Vault) -> None:
    s3 = vault.client("keyless-writer")
    made = s3.put_object(Bucket="plain", Key="managed", Body=b"1", ServerSideEncryption="aws:kms")
    assert made["SSEKMSKeyId"].endswith("alias/aws/s3")
    assert s3.get_object(Bucket="plain", Key="managed")["Body"].read() == b"1"


def test_a_permission_for_use_through_s3_is_enough(vault: Vault) -> None:
    statement = {
        "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
        "Resource": vault.key,
        "Condition": {"StringEquals": {"kms:ViaService": "s3.us-east-1.amazonaws.com"}},
    }
    s3 = vault.aws.client("s3", vault.aws.user("through", policy(S3_ONLY, statement)))
    s3.put_object(Bucket="plain", Key="mine", Body=b"1", ServerSideEncryption="aws:kms", SSEKMSKeyId=vault.key)
    assert s3.get_object(Bucket="plain", Key="mine")["Body"].read() == b"1"


def test_a_key_that_is_to_be_deleted_takes_its_objects_with_it(vault: Vault) -> None:
    s3, kms = vault.aws.client("s3"), vault.aws.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    named = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}
    s3.put_object(Bucket="plain", Key="doomed", Body=b"1", **named)
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    refused(s3.get_object, "KMS.KMSInvalidStateException", Bucket="plain", Key="doomed")
    refused(s3.put_object, "KMS.KMSInvalidStateException", Bucket="plain", Key="doomed", Body=b"1", **named)
    missing = {**named, "SSEKMSKeyId": key.rpartition("/")[0] + "/00000000-0000-0000-0000-000000000000"}
    refused(s3.put_object, "KMS.NotFoundException", Bucket="plain", Key="lost", Body=b"1", **missing)
    kms.cancel_key_deletion(KeyId=key)
    kms.enable_key(KeyId=key)
    assert s3.get_object(Bucket="plain", Key="doomed")["Body"].read() == b"1"


def test_every_way_to_s3_asks_for_the_key(vault: Vault) -> None:
    """A bucket's host name, a copy that a URL's query names, a form, an older version."""
    key = vault.aws.user("ways", policy(S3_ONLY))
    s3 = vault.aws.client("s3", key)
    host = f"vault.s3.localhost:{vault.aws.port}"
    config = Config(s3={"addressing_style": "virtual"}, signature_version="s3v4")
    by_host = vault.aws.client("s3", key, config=config, endpoint_url=f"http://s3.localhost:{vault.aws.port}")
    local = f"http://127.0.0.1:{vault.aws.port}"

    def send(method: str, url: str, **options: Any) -> urllib3.BaseHTTPResponse:
        return urllib3.request(
            method, url.replace(f"http://{host}", local), headers={"host": host}, retries=False, **options
        )

    for operation, method in (("get_object", "GET"), ("put_object", "PUT"), ("create_multipart_upload", "POST")):
        url = by_host.generate_presigned_url(operation, Params={"Bucket": "vault", "Key": "secret"})
        answer = send(method, url)
        assert answer.status == 403 and b"kms:" in answer.data

    admin = vault.aws.client("s3")
    admin.put_bucket_versioning(Bucket="vault", VersioningConfiguration={"Status": "Enabled"})
    version = admin.put_object(Bucket="vault", Key="deleted", Body=b"1")["VersionId"]
    admin.delete_object(Bucket="vault", Key="deleted")
    for source in ("vault/secret", f"vault/deleted?versionId={version}"):
        path = f"/plain/stolen?x-amz-copy-source={quote(source, safe='')}"
        answer = vault.aws.send("PUT", path, sign="s3", key=key, in_query=60)
        assert answer.status == 403 and b"kms:Decrypt" in answer.data

    upload = s3.create_multipart_upload(Bucket="plain", Key="stolen")["UploadId"]
    refused(s3.upload_part_copy, Bucket="plain", Key="stolen", UploadId=upload, PartNumber=1, CopySource="vault/secret")

    form = by_host.generate_presigned_post("vault", "formed")
    answer = send("POST", f"{local}/", fields={**form["fields"], "file": ("f", b"1")})
    assert answer.status == 403 and b"kms:GenerateDataKey" in answer.data
    may = vault.aws.user("former", policy(S3_ONLY, {"Action": "kms:*", "Resource": vault.key}))
    form = vault.aws.client("s3", may).generate_presigned_post("vault", "allowed")
    answer = urllib3.request("POST", form["url"], fields={**form["fields"], "file": ("f", b"1")}, retries=False)
    assert answer.status == 204
    assert "formed" not in [found["Key"] for found in admin.list_objects_v2(Bucket="vault")["Contents"]]
