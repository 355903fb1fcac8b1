"""Attempts to use a role, a session or a key by way of a service that does not ask for it."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any
from urllib.parse import urlencode

import botocore.auth
import botocore.exceptions
import pytest
from local_aws_harness import LAMBDA_TRUST, LocalAws, policy, trust

REPLICATION = """<ReplicationConfiguration><Role>{role}</Role><Rule><Status>Enabled</Status><Prefix/>
<Destination><Bucket>arn:aws:s3:::replica</Bucket></Destination></Rule></ReplicationConfiguration>"""
FORM = {"content_type": "application/x-www-form-urlencoded"}


def refused(call: Any, match: str, **request: Any) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match=match):
        call(**request)


@pytest.mark.parametrize("by_host", [False, True])
def test_a_bucket_replicates_under_a_role_that_its_caller_may_pass(aws: LocalAws, by_host: bool) -> None:
    bucket = f"source-{by_host}".lower()
    for name in (bucket, "replica"):
        aws.client("s3").create_bucket(Bucket=name)
        aws.client("s3").put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    role = aws.role(f"replicator-{by_host}", trust("s3.amazonaws.com"))
    body = REPLICATION.format(role=role)
    path, host = (
        ("/?replication", {"host": f"{bucket}.s3.localhost:{aws.port}"}) if by_host else (f"/{bucket}?replication", {})
    )
    only_s3 = aws.user(f"no-passer-{by_host}", policy({"Action": "s3:*", "Resource": "*"}))
    answer = aws.send("PUT", path, body, sign="s3", key=only_s3, **host)
    assert (answer.status, b"iam:PassRole" in answer.data) == (403, True)
    here = {"StringEquals": {"iam:PassedToService": "s3.amazonaws.com"}}
    passing = {"Action": "iam:PassRole", "Resource": role, "Condition": here}
    may = aws.user(f"s3-passer-{by_host}", policy({"Action": "s3:*", "Resource": "*"}, passing))
    assert aws.send("PUT", path, body, sign="s3", key=may, **host).status == 501  # nothing is replicated here
    assert aws.send("PUT", f"/{bucket}/role", body, sign="s3", key=only_s3).status == 200  # an object is data


def test_every_secret_of_a_batch_is_asked_about(aws: LocalAws) -> None:
    secrets = aws.client("secretsmanager")
    arns = {name: secrets.create_secret(Name=name, SecretString=f"of {name}")["ARN"] for name in ("mine", "theirs")}
    batch = {"Action": "secretsmanager:BatchGetSecretValue", "Resource": "*"}
    own = aws.user("batch-reader", policy(batch, {"Action": "secretsmanager:GetSecretValue", "Resource": arns["mine"]}))
    for theirs in ("theirs", arns["theirs"], arns["theirs"][:-7]):
        got = aws.client("secretsmanager", own).batch_get_secret_value(SecretIdList=["mine", theirs])
        assert [found["SecretString"] for found in got["SecretValues"]] == ["of mine"]
        assert [error["ErrorCode"] for error in got["Errors"]] == ["AccessDeniedException"]
    plain = aws.user("no-batch", policy({"Action": "secretsmanager:*", "Resource": arns["mine"]}))
    refused(aws.client("secretsmanager", plain).batch_get_secret_value, "AccessDenied", SecretIdList=["mine"])


def test_what_is_encrypted_is_nothing_without_its_key(aws: LocalAws) -> None:
    """Parameters and secrets, read, written and read back, by each operation that does it."""
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    ssm, secrets = aws.client("ssm"), aws.client("secretsmanager")
    for name in ("/vault/a", "/vault/b"):
        ssm.put_parameter(Name=name, Value="hidden", Type="SecureString", KeyId=key)
    arn = secrets.create_secret(Name="vault", SecretString="hidden", KmsKeyId=key)["ARN"]
    services = {"Action": ["ssm:*", "secretsmanager:*"], "Resource": "*"}
    without = aws.user("keyless", policy(services))
    region = {
        "StringEquals": {"kms:ViaService": ["ssm.us-east-1.amazonaws.com", "secretsmanager.us-east-1.amazonaws.com"]}
    }
    through = {"Action": ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey"], "Resource": key, "Condition": region}
    holder = aws.user("key-holder", policy(services, through))
    secure = {"Value": "new", "Type": "SecureString"}
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("ssm", "get_parameter", {"Name": "/vault/a", "WithDecryption": True}),
        ("ssm", "get_parameters", {"Names": ["/vault/a", "/vault/b"], "WithDecryption": True}),
        ("ssm", "get_parameters_by_path", {"Path": "/vault", "WithDecryption": True}),
        ("ssm", "get_parameter_history", {"Name": "/vault/a", "WithDecryption": True}),
        ("ssm", "put_parameter", {"Name": "/vault/c", "KeyId": key, **secure}),
        ("ssm", "put_parameter", {"Name": "/vault/d", "KeyId": key.rpartition("/")[2], **secure}),
        ("secretsmanager", "get_secret_value", {"SecretId": "vault"}),
        ("secretsmanager", "batch_get_secret_value", {"SecretIdList": [arn]}),
        ("secretsmanager", "put_secret_value", {"SecretId": "vault", "SecretString": "new"}),
        ("secretsmanager", "update_secret", {"SecretId": arn, "SecretString": "new"}),
        ("secretsmanager", "create_secret", {"Name": "vault-2", "SecretString": "new", "KmsKeyId": key}),
    ]
    for service, operation, request in calls:
        refused(getattr(aws.client(service, without), operation), f"kms:.* on resource: {key}", **request)
    assert secrets.get_secret_value(SecretId="vault")["SecretString"] == "hidden"
    assert ssm.get_parameter(Name="/vault/a")["Parameter"]["Value"] != "hidden"
    for service, operation, request in calls:
        getattr(aws.client(service, holder), operation)(**request)
    reader = aws.client("ssm", without)
    reader.get_parameter(Name="/vault/a")  # in its encrypted form
    reader.put_parameter(Name="managed", **secure)  # the key that AWS manages for Parameter Store
    assert reader.get_parameter(Name="managed", WithDecryption=True)["Parameter"]["Value"] == "new"
    aws.client("kms").schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    refused(ssm.get_parameter, r"InvalidKeyId.*pending deletion", Name="/vault/a", WithDecryption=True)


def test_tokens_that_nobody_verifies_open_nothing(aws: LocalAws) -> None:
    document = {
        **LAMBDA_TRUST,
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Federated": "accounts.google.com"},
                "Action": "sts:AssumeRoleWithWebIdentity",
            }
        ],
    }
    role = aws.role("federated", document, policy({"Action": "*", "Resource": "*"}))
    key = aws.user("nobodys-token", policy({"Action": "*", "Resource": "*"}))
    token = "e30.eyJpc3MiOiJodHRwczovL2FjY291bnRzLmdvb2dsZS5jb20ifQ."
    common = {"Version": "2011-06-15", "RoleArn": role}
    for members in (
        {"Action": "AssumeRoleWithWebIdentity", "RoleSessionName": "session", "WebIdentityToken": token},
        {
            "Action": "AssumeRoleWithSAML",
            "PrincipalArn": "arn:aws:iam::000000000000:saml-provider/p",
            "SAMLAssertion": "eA==",
        },
    ):
        for sign in ("sts", None):
            answer = aws.send("POST", "/", urlencode({**common, **members}), sign=sign, key=key, **FORM)
            assert answer.status in (400, 403) and b"SecretAccessKey" not in answer.data
    target = {"x_amz_target": "AWSCognitoIdentityService.GetId", "content_type": "application/x-amz-json-1.1"}
    assert aws.send("POST", "/", '{"IdentityPoolId": "p"}', sign="cognito-identity", key=key, **target).status == 400


def test_a_session_lasts_as_long_as_its_role_says_and_a_chained_one_an_hour(aws: LocalAws) -> None:
    account = {"Effect": "Allow", "Principal": {"AWS": "000000000000"}, "Action": "sts:AssumeRole"}
    assume = policy({"Action": "sts:AssumeRole", "Resource": "*"})
    role = aws.role("chained", {**LAMBDA_TRUST, "Statement": [account]}, assume)
    user = aws.client("sts", aws.user("chainer", assume))
    request = {"RoleArn": role, "RoleSessionName": "session"}
    refused(user.assume_role, "MaxSessionDuration", DurationSeconds=3601, **request)
    aws.client("iam").update_role(RoleName="chained", MaxSessionDuration=43200)
    short = {"Action": "AssumeRole", "Version": "2011-06-15", "DurationSeconds": "899", **request}  # boto3 refuses it
    answer = aws.send("POST", "/", urlencode(short), sign="sts", **FORM)
    assert (answer.status, b"DurationSeconds of AssumeRole" in answer.data) == (400, True)
    refused(user.assume_role, "DurationSeconds", DurationSeconds=43201, **request)
    chained = aws.client("sts", user.assume_role(DurationSeconds=43200, **request)["Credentials"])
    refused(chained.assume_role, "1 hour", DurationSeconds=3601, **request)
    chained.assume_role(DurationSeconds=3600, **request)
    refused(user.get_session_token, "DurationSeconds of", DurationSeconds=129601)


def test_a_presigned_url_of_any_service_expires(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/?Action=GetCallerIdentity&Version=2011-06-15"
    assert aws.send("GET", path, sign="sts", in_query=60).status == 200
    earlier = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=61)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: earlier.replace(tzinfo=None))
    assert aws.send("GET", path, sign="sts", in_query=600).status == 200
    for service, url in (("sts", path), ("iam", "/?Action=ListUsers&Version=2010-05-08"), ("s3", "/")):
        assert aws.send("GET", url, sign=service, in_query=60).status == 403


@pytest.mark.parametrize(
    ("service", "payload"),
    [
        ("iam", "UNSIGNED-PAYLOAD"),
        ("iam", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        ("iam", hashlib.sha256(b"").hexdigest()),
        ("s3", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"),
        ("s3", "STREAMING-X"),
        ("s3", "unsigned-payload"),
        ("s3", "x"),
    ],
)
def test_the_body_is_signed_or_declared_in_a_way_that_aws_knows(aws: LocalAws, service: str, payload: str) -> None:
    method, path, body = {
        "iam": ("POST", "/", "Action=CreateUser&Version=2010-05-08&UserName=unsigned"),
        "s3": ("PUT", "/unsigned", ""),
    }[service]
    answer = aws.send(
        method, path, body, sign=service, x_amz_content_sha256=payload, **(FORM if service == "iam" else {})
    )
    assert answer.status in (400, 403), answer.data
    assert "unsigned" not in {user["UserName"] for user in aws.client("iam").list_users()["Users"]}
    assert "unsigned" not in {bucket["Name"] for bucket in aws.client("s3").list_buckets()["Buckets"]}
