"""`make demo`, then attempts to break what it has deployed.

The tests share one deployment and run in the order in which they stand here; the last ones take it down.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from clone import Project
from PIL import Image


@pytest.fixture(scope="module")
def demo(project: Project) -> Iterator[Project]:
    """The project after `kennel demo`, whose output is in `demo.log`."""
    output = project.kennel("demo", "--port", str(project.port)).stdout
    (project.root / "demo.log").write_text(output)
    project.start_local_aws()  # it runs already: takes over its environment
    return project


@pytest.fixture(scope="module")
def administrator(demo: Project) -> dict[str, str]:
    """The access key that `kennel local env` names."""
    names = {"AccessKeyId": "AWS_ACCESS_KEY_ID", "SecretAccessKey": "AWS_SECRET_ACCESS_KEY"}
    return {name: demo.environment[variable] for name, variable in names.items()}


@pytest.fixture(scope="module")
def client(demo: Project, administrator: dict[str, str]) -> Callable[[str], Any]:
    """Boto3 clients of the administrator, told nothing but what `kennel local env` says."""
    session = boto3.Session(*administrator.values(), region_name=demo.environment["AWS_REGION"])
    return lambda service: session.client(service, endpoint_url=demo.environment["AWS_ENDPOINT_URL"])


@pytest.fixture(scope="module")
def outputs(client: Callable[[str], Any]) -> dict[str, str]:
    """The outputs of the three stacks together."""
    cloudformation = client("cloudformation")
    return {
        output["OutputKey"]: output["OutputValue"]
        for kind in ("storage", "training", "inference")
        for output in cloudformation.describe_stacks(StackName=f"kennel-local-{kind}")["Stacks"][0]["Outputs"]
    }


@pytest.fixture(scope="module")
def image(demo: Project) -> bytes:
    """A held-out image."""
    return sorted((demo.root / "data/sample/test").rglob("*.jpg"))[0].read_bytes()


def call(url: str, image: bytes, keys: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Send an image to the function URL, signed with an access key."""
    request = AWSRequest(method="POST", url=url, data=image, headers={"Content-Type": "image/jpeg"})
    credentials = Credentials(keys["AccessKeyId"], keys["SecretAccessKey"])
    SigV4Auth(credentials, "lambda", "us-east-1").add_auth(request)
    response = urllib3.request("POST", url, body=image, headers=dict(request.headers), retries=False)
    return response.status, json.loads(response.data)


@pytest.fixture
def user(client: Callable[[str], Any]) -> Iterator[dict[str, str]]:
    """A new IAM user without any permission, and its access key."""
    iam = client("iam")
    iam.create_user(UserName="stranger")
    key = iam.create_access_key(UserName="stranger")["AccessKey"]
    yield key
    iam.delete_user_policy(UserName="stranger", PolicyName="call")
    iam.delete_access_key(UserName="stranger", AccessKeyId=key["AccessKeyId"])
    iam.delete_user(UserName="stranger")


def test_the_demo_prints_answers_accuracy_times_and_how_to_stop(demo: Project) -> None:
    output = (demo.root / "demo.log").read_text()
    assert "Held-out images, answered by the function" in output
    assert re.search(r"accuracy through the function URL\s+\d+\.\d+%", output)
    assert "Time of each step" in output
    assert "kennel local down" in output
    assert "Traceback" not in output


@pytest.fixture(scope="module")
def figures(demo: Project) -> dict[str, Any]:
    """What `kennel evaluate` says of the held-out pictures."""
    return json.loads(demo.kennel("evaluate", "--json").stdout.splitlines()[-1])


def test_accuracy_through_the_url_is_high_and_equals_the_artifacts_own(figures: dict[str, Any]) -> None:
    assert figures["test_pictures"] >= 150
    assert figures["accuracy_online"] >= 0.85
    assert figures["accuracy_online"] == figures["accuracy_offline"]
    assert figures["largest_difference"] < 1e-6


def test_the_figures_of_the_report_are_those_of_the_deployed_model(demo: Project, figures: dict[str, Any]) -> None:
    demo.kennel("report", "--no-open", "--output", "reports")
    (folder,) = (demo.root / "reports").iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] == figures["accuracy_offline"]
    assert (folder / "report.html").read_text().count('<img src="data:image/jpeg') == len(metrics["mistakes"])
    error = {when: found["expected_calibration_error"] for when, found in metrics["calibration"]["test"].items()}
    assert error["after"] < error["before"]


def test_a_batch_labels_a_prefix_once_names_what_it_cannot_read_and_goes_on_with_new_images(
    demo: Project, client: Callable[[str], Any], outputs: dict[str, str], tmp_path: Path
) -> None:
    bucket, s3 = outputs["DataBucketName"], client("s3")
    folder = tmp_path / "holiday"
    for number, path in enumerate(sorted((demo.root / "data/sample/test").rglob("*.jpg"))[:6]):
        copy = folder / f"dir {number % 2}" / f"é {number}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (folder / "broken.jpg").write_bytes(b"no image")

    def labels() -> dict[str, dict[str, Any]]:
        body = s3.get_object(Bucket=bucket, Key="batch/output/holiday/labels.jsonl")["Body"].read()
        return {label["picture"]: label for label in map(json.loads, body.decode().splitlines())}

    output = demo.kennel("batch", str(folder), "--parquet").stdout
    assert "USD per hour" in output
    assert "6 of 7 pictures are labelled, 1 could not be, 0 are left" in output
    first = labels()
    assert first.keys() == {f"dir {n % 2}/é {n}.jpg" for n in range(6)} | {"broken.jpg"}
    assert first["broken.jpg"]["error"]["code"] == "unsupported_image"
    answered = json.loads(demo.kennel("classify", str(folder / "dir 1/é 1.jpg"), "--json").stdout)
    label = first["dir 1/é 1.jpg"]
    assert (label["label"], label["model"]) == (answered["predictions"][0]["label"], answered["model"])
    assert s3.head_object(Bucket=bucket, Key="batch/output/holiday/labels.parquet")["ContentLength"] > 0

    (folder / "new.jpg").write_bytes((folder / "dir 0/é 0.jpg").read_bytes())
    assert "8 pictures, 7 of them labelled already" in demo.kennel("batch", str(folder)).stdout
    assert labels() == first | {"new.jpg": labels()["new.jpg"]}
    # Nothing is left of the jobs but the labels.
    for prefix in ("batch/input/.manifests/", "batch/output/holiday/.jobs/"):
        assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix=prefix)


def test_a_caller_without_permission_is_refused_until_it_is_granted(
    client: Callable[[str], Any], outputs: dict[str, str], image: bytes, user: dict[str, str]
) -> None:
    assert call(outputs["FunctionUrl"], image, user)[0] == 403
    statement = {
        "Effect": "Allow",
        "Action": ["lambda:InvokeFunctionUrl", "lambda:InvokeFunction"],
        "Resource": outputs["FunctionAliasArn"],
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": statement})
    client("iam").put_user_policy(UserName="stranger", PolicyName="call", PolicyDocument=document)
    assert call(outputs["FunctionUrl"], image, user)[0] == 200


PROBE = """
import json, os, boto3
def handler(event, context):
    results = {}
    for name, (service, operation, arguments) in event.items():
        try:
            getattr(boto3.client(service), operation)(**arguments)
            results[name] = "allowed"
        except Exception as error:
            response = getattr(error, "response", {})
            results[name] = response.get("Error", {}).get("Code", repr(error))
    return results
"""


def test_the_functions_role_can_do_nothing_but_invoke_its_own_endpoint(
    client: Callable[[str], Any], outputs: dict[str, str], image: bytes
) -> None:
    """Runs code of an attacker's choice under the function's own role."""
    lambda_ = client("lambda")
    role = lambda_.get_function_configuration(FunctionName=outputs["FunctionName"])["Role"]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("probe.py", PROBE)
    lambda_.create_function(
        FunctionName="probe", Runtime="python3.14", Handler="probe.handler", Role=role, Timeout=60,
        Code={"ZipFile": archive.getvalue()},
    )  # fmt: skip
    try:
        endpoint = outputs["EndpointName"]
        attempts = {
            "own endpoint": ("sagemaker-runtime", "invoke_endpoint",
                             {"EndpointName": endpoint, "Body": "x", "ContentType": "text/plain"}),
            "longer name": ("sagemaker-runtime", "invoke_endpoint", {"EndpointName": f"{endpoint}x", "Body": "x"}),
            "data": ("s3", "list_objects_v2", {"Bucket": outputs["DataBucketName"]}),
            "delete": ("sagemaker", "delete_endpoint", {"EndpointName": endpoint}),
            "training role": ("sts", "assume_role",
                              {"RoleArn": outputs["TrainingRoleArn"], "RoleSessionName": "probe"}),
        }  # fmt: skip
        answer = lambda_.invoke(FunctionName="probe", Payload=json.dumps(attempts).encode())
        results = json.loads(answer["Payload"].read())
    finally:
        lambda_.delete_function(FunctionName="probe")
    assert results.pop("own endpoint") == "ModelError"  # it got through: the model itself refused the body
    denied = {"AccessDenied", "AccessDeniedException"}
    assert {name: code for name, code in results.items() if code not in denied} == {}


def test_cdk_diff_finds_nothing_to_change(demo: Project) -> None:
    output = demo.run("cdk", "diff", "-c", "stage=local", "--fail").stdout
    assert "Number of stacks with differences: 0" in output


def test_a_broken_artifact_rolls_back_and_the_old_model_keeps_answering(
    demo: Project, client: Callable[[str], Any], outputs: dict[str, str], image: bytes, administrator: dict[str, str]
) -> None:
    artifact = demo.root / "build/local/model.tar.gz"
    good = artifact.read_bytes()
    before = call(outputs["FunctionUrl"], image, administrator)
    artifact.write_bytes(without_graph(good))
    try:
        failed = demo.kennel("deploy", "--yes", "inference", check=False)
    finally:
        artifact.write_bytes(good)
    assert failed.returncode == 5, failed.stdout
    assert "model.onnx" in failed.stdout, "the reason is not in what the user sees"
    stack = client("cloudformation").describe_stacks(StackName="kennel-local-inference")["Stacks"][0]
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    after = call(outputs["FunctionUrl"], image, administrator)
    assert (after[0], after[1]["predictions"]) == (200, before[1]["predictions"])


def without_graph(artifact: bytes) -> bytes:
    """The artifact with its ONNX graph damaged in the middle."""
    damaged = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(artifact)) as source, tarfile.open(fileobj=damaged, mode="w:gz") as target:
        for member in source.getmembers():
            file = source.extractfile(member)
            body = file.read() if file else b""
            if member.name.endswith("model.onnx"):
                body = body[: len(body) // 2] + bytes(len(body) - len(body) // 2)
            target.addfile(member, io.BytesIO(body))
    return damaged.getvalue()


def test_any_other_data_set_goes_through_the_same_commands(demo: Project) -> None:
    """No splits, odd class names, mixed modes and sizes, one image that cannot be read; searched inside one job."""
    folder = demo.root / "data" / "shapes"
    colours = {"001.Röd boll": (200, 30, 30), "grön boll": (30, 180, 40), "青い ボール": (30, 60, 200)}
    modes = ("RGB", "L", "P", "RGBA", "CMYK")
    for label, colour in colours.items():
        (folder / label).mkdir(parents=True)
        for number in range(20):
            mode = "RGB" if number % 2 else modes[number // 2 % len(modes)]
            size = (40 + 13 * number, 300 - 9 * number)
            drawn = Image.new("RGB", size, tuple(value + number for value in colour)).convert(mode)
            drawn.save(folder / label / f"bild {number}.{'tiff' if mode == 'CMYK' else 'png'}")
    (folder / "grön boll" / "kaputt.jpg").write_bytes(b"\xff\xd8\xff\xe0 not really")
    pushed = demo.kennel("data", "push", "data/shapes").stdout
    assert "Pushed as 'shapes': 61 uploaded" in pushed
    settings = ("mode=head", "search=3", "views=2", "epochs=2")
    trained = demo.kennel("train", "--data", "shapes", *(f"--set={setting}" for setting in settings)).stdout
    assert "kaputt.jpg" in trained
    assert [f"trial={number} status=" in trained for number in (1, 2, 3, 4)] == [True, True, True, False]
    demo.kennel("package")
    demo.kennel("deploy", "--yes", "inference")
    answer = json.loads(demo.kennel("classify", str(folder / "青い ボール/bild 3.png"), "--json").stdout)
    assert {found["label"] for found in answer["predictions"]} == {"Röd boll", "grön boll", "青い ボール"}
    figures = json.loads(demo.kennel("evaluate", "data/shapes", "--json").stdout.splitlines()[-1])
    assert figures["accuracy_online"] == figures["accuracy_offline"]


def test_destroy_leaves_nothing(demo: Project, client: Callable[[str], Any], outputs: dict[str, str]) -> None:
    demo.kennel("destroy", "--yes")
    stacks = client("cloudformation").describe_stacks()["Stacks"]
    assert [stack["StackName"] for stack in stacks if stack["StackStatus"] != "DELETE_COMPLETE"] == ["CDKToolkit"]
    sagemaker = client("sagemaker")
    assert sagemaker.list_endpoints()["Endpoints"] == []
    assert sagemaker.list_endpoint_configs()["EndpointConfigs"] == []
    assert sagemaker.list_models()["Models"] == []
    assert client("lambda").list_functions()["Functions"] == []
    assert client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")[
        "ScalableTargets"
    ] == []  # fmt: skip
    assert [bucket["Name"] for bucket in client("s3").list_buckets()["Buckets"] if "cdk-" not in bucket["Name"]] == []
    roles = [role["RoleName"] for role in client("iam").list_roles()["Roles"]]
    assert [role for role in roles if role.startswith("kennel-")] == []
    groups = [group["logGroupName"] for group in client("logs").describe_log_groups()["logGroups"]]
    assert [group for group in groups if "Endpoints" in group or "kennel" in group] == []
    with pytest.raises(botocore.exceptions.ClientError):
        client("s3").head_bucket(Bucket=outputs["DataBucketName"])
