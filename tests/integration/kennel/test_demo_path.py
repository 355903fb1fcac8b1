"""`make demo`, then what a person does with what it has deployed.

The tests share one deployment and run in the order in which they stand here; the last ones take it down.
"""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from clone import Project
from emulator_fixtures import tar_gz, untar
from page_server import GIVE, chromium, needs_chromium
from PIL import Image, ImageEnhance
from playwright.sync_api import expect
from waiting import wait_until


@pytest.fixture(scope="module")
def demo(project: Project) -> Project:
    """The project after `kennel demo`, whose output is in `demo.log`."""
    settings = project.root / "infra/environments/local.toml"
    settings.write_text(settings.read_text() + "\n[serving.capture]\nsampling_percent = 100\n\n[drift]\n")
    output = project.kennel("demo", "--port", str(project.port))
    (project.root / "demo.log").write_text(output)
    project.start_local_aws()  # it runs already: takes over its environment
    return project


@pytest.fixture(scope="module")
def client(demo: Project) -> Callable[[str], Any]:
    """Boto3 clients of the administrator, told nothing but what `kennel local env` says."""
    keys = (demo.environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    session = boto3.Session(*keys, region_name=demo.environment["AWS_REGION"])
    return lambda service: session.client(service, endpoint_url=demo.environment["AWS_ENDPOINT_URL"])


def test_the_demo_prints_answers_accuracy_times_and_how_to_stop(demo: Project) -> None:
    output = (demo.root / "demo.log").read_text()
    assert "Held-out images, answered by the function" in output
    assert re.search(r"accuracy through the function URL\s+\d+\.\d+%", output)
    assert "Time of each step" in output
    assert "kennel local down" in output
    assert "Traceback" not in output


@pytest.fixture(scope="module")
def figures(demo: Project) -> dict[str, Any]:
    """What `kennel evaluate` says of the held-out images."""
    return json.loads(demo.kennel("evaluate", "--json").splitlines()[-1])


def test_accuracy_through_the_url_is_high_and_equals_the_artifacts_own(figures: dict[str, Any]) -> None:
    assert figures["test_images"] >= 150
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


@needs_chromium
def test_a_newcomer_drops_an_image_on_the_page_and_reads_its_label(demo: Project) -> None:
    image = next((demo.root / "data/sample/test").rglob("*.jpg"))
    answer = json.loads(demo.kennel("classify", str(image), "--json"))
    label, known = answer["predictions"][0]["label"], answer["known"]
    command = ["kennel", "ui", "--port", "0", "--no-open"]
    with subprocess.Popen(command, cwd=demo.root, env=demo.environment, stdout=subprocess.PIPE, text=True) as serving:
        try:
            address = re.search(r"http://127[.0-9:]+/", serving.stdout.readline())[0]
            with chromium() as browser:
                page = browser.new_page()
                page.goto(address)
                page.evaluate(GIVE, ["drop", "", base64.b64encode(image.read_bytes()).decode()])
                expect(page.get_by_role("status")).to_contain_text(f"{label}, ")
                for text in ("endpoint and model", "the function itself", f"{label} in the data set"):
                    expect(page.locator("article")).to_contain_text(text)
                assert page.get_by_text("Probably none of these").is_visible() is not known
        finally:
            serving.send_signal(signal.SIGINT)
        assert serving.wait(20) == 0


def test_status_and_doctor_see_a_sound_stage_and_a_role_that_was_changed_by_hand(demo, client):
    facts = json.loads(demo.kennel("status", "--json").splitlines()[-1])
    assert (facts["endpoint"]["status"], facts["endpoint"]["running"], facts["function"]["warm"]) == ("InService", 1, 1)
    assert facts["model"]["version"] == 1 and facts["traffic"]["5xx"] == 0 and facts["cost"]["usd_an_hour"] > 0
    found = json.loads(demo.kennel("doctor", "--json").splitlines()[-1])
    assert not [each for each in found if each["result"] == "problem"]
    given = {"PolicyArn": "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"}
    roles = client("iam").list_roles()["Roles"]
    (name,) = (role["RoleName"] for role in roles if "ClassifierRole" in role["RoleName"])
    client("iam").attach_role_policy(RoleName=name, **given)
    assert f"detach-role-policy --role-name {name}" in demo.kennel("doctor", ends_with=6)
    region = demo.environment["AWS_REGION"]
    audit = demo.kennel("audit", "--region", region, "--format", "json", ends_with=6)
    (report,) = (json.loads(line) for line in audit.splitlines() if line.startswith("{"))
    assert {each["rule"] for each in report["findings"]} == {
        *("cdk-bootstrap", "policy-aws-full-access", "function-full-access")
    }
    client("iam").detach_role_policy(RoleName=name, **given)


def test_a_batch_labels_a_prefix_once_names_what_it_cannot_read_and_goes_on_with_new_images(demo, client, tmp_path):
    s3, folder = client("s3"), tmp_path / "holiday"
    (bucket,) = (found["Name"] for found in s3.list_buckets()["Buckets"] if "databucket" in found["Name"])
    for number, path in enumerate(sorted((demo.root / "data/sample/test").rglob("*.jpg"))[:6]):
        copy = folder / f"dir {number % 2}" / f"é {number}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (folder / "broken.jpg").write_bytes(b"no image")

    def labels() -> dict[str, dict[str, Any]]:
        body = s3.get_object(Bucket=bucket, Key="batch/output/holiday/labels.jsonl")["Body"].read()
        return {label["image"]: label for label in map(json.loads, body.decode().splitlines())}

    output = demo.kennel("batch", str(folder), "--parquet")
    assert "USD per hour" in output
    assert "6 of 7 images are labelled, 1 could not be, 0 are left" in output
    first = labels()
    assert first.keys() == {f"dir {n % 2}/é {n}.jpg" for n in range(6)} | {"broken.jpg"}
    assert first["broken.jpg"]["error"]["code"] == "unsupported_image"
    answered = json.loads(demo.kennel("classify", str(folder / "dir 1/é 1.jpg"), "--json"))
    label = first["dir 1/é 1.jpg"]
    assert (label["label"], label["model"]) == (answered["predictions"][0]["label"], answered["model"])
    assert s3.head_object(Bucket=bucket, Key="batch/output/holiday/labels.parquet")["ContentLength"] > 0

    (folder / "new.jpg").write_bytes((folder / "dir 0/é 0.jpg").read_bytes())
    assert "8 images, 7 of them labelled already" in demo.kennel("batch", str(folder))
    assert labels() == first | {"new.jpg": labels()["new.jpg"]}
    # Nothing is left of the jobs but the labels.
    for prefix in ("batch/input/.manifests/", "batch/output/holiday/.jobs/"):
        assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix=prefix)


def test_ordinary_images_are_no_drift_and_dark_ones_are_found_and_page(demo, client, figures, tmp_path):
    s3, bodies = client("s3"), dict[str, bytes]()
    (bucket,) = (found["Name"] for found in s3.list_buckets()["Buckets"] if "databucket" in found["Name"])

    def captured() -> int:
        for key in (each["Key"] for each in s3.list_objects_v2(Bucket=bucket, Prefix="captured/").get("Contents", ())):
            bodies[key] = bodies.get(key) or s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return sum(body.count(b"\n") for body in bodies.values())

    wait_until(lambda: captured() >= figures["test_images"], 180)
    assert '"drifted": true' not in demo.kennel("drift", "--json")
    before, dark = captured(), [str(tmp_path / f"{number}.jpg") for number in range(140)]
    for path, copy in zip(sorted((demo.root / "data/sample/test").rglob("*.jpg")), dark, strict=False):
        ImageEnhance.Brightness(Image.open(path)).enhance(0.3).save(copy)
    demo.kennel("classify", *dark)
    wait_until(lambda: captured() >= before + len(dark), 180)
    assert "Drift: brightness" in demo.kennel("drift", "--publish", "--no-open", ends_with=6)
    of_drift = {"AlarmNamePrefix": "kennel-local-inference-AlarmsDrift", "StateValue": "ALARM"}
    wait_until(lambda: client("cloudwatch").describe_alarms(**of_drift)["MetricAlarms"], 180)


def test_a_broken_artifact_rolls_back_and_the_old_model_keeps_answering(demo, client):
    artifact = demo.root / "build/local/model.tar.gz"
    image = str(next((demo.root / "data/sample/test").rglob("*.jpg")))
    good, before = artifact.read_bytes(), json.loads(demo.kennel("classify", image, "--json"))
    files = untar(good)
    artifact.write_bytes(tar_gz({**files, "model.onnx": files["model.onnx"][:-1000] + bytes(1000)}))
    said = demo.kennel("deploy", "--yes", "inference", ends_with=5)
    artifact.write_bytes(good)
    assert "model.onnx" in said, "the reason is not in what the user sees"
    (stack,) = client("cloudformation").describe_stacks(StackName="kennel-local-inference")["Stacks"]
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert json.loads(demo.kennel("classify", image, "--json"))["predictions"] == before["predictions"]


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
    pushed = demo.kennel("data", "push", "data/shapes")
    assert "Pushed as 'shapes': 61 uploaded" in pushed
    settings = ("mode=head", "search=3", "views=2", "epochs=2")
    trained = demo.kennel("train", "--data", "shapes", *(f"--set={setting}" for setting in settings))
    assert "kaputt.jpg" in trained
    assert [f"trial={number} status=" in trained for number in (1, 2, 3, 4)] == [True, True, True, False]
    demo.kennel("package")
    demo.kennel("deploy", "--yes", "inference")
    answer = json.loads(demo.kennel("classify", str(folder / "青い ボール/bild 3.png"), "--json"))
    assert {found["label"] for found in answer["predictions"]} == {"Röd boll", "grön boll", "青い ボール"}
    figures = json.loads(demo.kennel("evaluate", "data/shapes", "--json").splitlines()[-1])
    assert figures["accuracy_online"] == figures["accuracy_offline"]


def test_destroy_leaves_nothing(demo: Project, client: Callable[[str], Any]) -> None:
    demo.kennel("local", "down")
    demo.start_local_aws("--access-log-delay", "3600")  # with logs that arrive meanwhile it takes half a minute longer
    demo.kennel("destroy", "--yes")
    stacks = client("cloudformation").describe_stacks()["Stacks"]
    assert [stack["StackName"] for stack in stacks if stack["StackStatus"] != "DELETE_COMPLETE"] == ["CDKToolkit"]
    targets = client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")
    lists = [
        client("sagemaker").list_endpoints()["Endpoints"],
        client("sagemaker").list_endpoint_configs()["EndpointConfigs"],
        client("sagemaker").list_models()["Models"],
        client("lambda").list_functions()["Functions"],
        targets["ScalableTargets"],
    ]
    assert lists == [[]] * 5
    names = [bucket["Name"] for bucket in client("s3").list_buckets()["Buckets"]]
    names += [role["RoleName"] for role in client("iam").list_roles()["Roles"]]
    names += [group["logGroupName"] for group in client("logs").describe_log_groups()["logGroups"]]
    assert [name for name in names if "kennel" in name or "Endpoints" in name] == []
