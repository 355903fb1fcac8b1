"""Labelling a prefix of images: what is sent to SageMaker, what becomes of its answers, and how a batch goes on."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from batch_fakes import answer_of, stage_with
from fake_account import refusal

from cli.batch import commands as batch
from cli.batch import job as batch_job
from cli.batch.commands import deployed_model, label_images, open_folder
from cli.batch.job import BatchOptions
from cli.batch.labels import from_json_lines, match_answers
from cli.errors import AwsError, NotReadyError, WorkFailedError

SOURCE = "s3://bucket/batch/input/dogs"
LABELS = "batch/output/dogs/labels.jsonl"


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(batch_job, "_POLL_SECONDS", 0.0)
    return stage_with("a.jpg", "dir/é b.PNG")


def run(stage: Any, *, stop: bool = False, again: bool = False, **options: Any) -> None:
    model = None if stop else deployed_model(stage)
    label_images(open_folder(stage, SOURCE, None), model, BatchOptions(**options), again=again, parquet=False)


def found(stage: Any) -> dict[str, str]:
    """The label, or the code of the error, of each image."""
    labels = from_json_lines(stage.s3.objects[LABELS])
    return {name: label["error"]["code"] if "error" in label else label["label"] for name, label in labels.items()}


def test_the_request_keeps_to_the_limits_and_asks_for_errors_inline(stage: Any, capsys: pytest.CaptureFixture) -> None:
    run(stage, top_k=3, scores=True, instances=2, instance_type="ml.m5.xlarge")
    run(stage, again=True, instance_type="ml.g5.xlarge")
    request, other = stage.sagemaker.requests
    assert request["Tags"] == stage.tag_list
    assert request["ModelName"] == "model-1"
    assert request["TransformInput"]["ContentType"] == "application/x-image; errors=inline; top_k=3; scores=true"
    assert request["MaxPayloadInMB"] * request["MaxConcurrentTransforms"] <= 100
    resources = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 2, "VolumeKmsKeyId": "DataKeyArn"}
    assert request["TransformResources"] == resources
    assert "2 × ml.m5.xlarge (0.460 USD per hour" in capsys.readouterr().out
    assert "VolumeKmsKeyId" not in other["TransformResources"]  # its disks take no key


def test_nothing_is_labelled_twice_but_new_and_changed_images_are(stage: Any) -> None:
    stage.s3.objects["batch/input/dogs/notes.txt"] = b"not an image"
    stage.s3.objects["batch/input/dogs/.hidden/a.jpg"] = b"hidden"
    run(stage)
    run(stage)
    assert len(stage.sagemaker.requests) == 1
    assert found(stage) == {"a.jpg": "Akita", "dir/é b.PNG": "Akita"}
    stage.s3.objects["batch/input/dogs/new.jpg"] = b"new"
    stage.s3.objects["batch/input/dogs/a.jpg"] = b"changed"
    del stage.s3.objects["batch/input/dogs/dir/é b.PNG"]
    stage.sagemaker.answer = lambda name: answer_of("Boxer")
    run(stage)
    assert found(stage) == {"a.jpg": "Boxer", "new.jpg": "Boxer"}
    stage.sagemaker.model = "model-2"
    run(stage)
    run(stage, again=True)
    assert len(stage.sagemaker.requests) == 4


def test_errors_of_images_are_listed_and_final_ones_are_not_tried_again(stage, capsys):
    stage.s3.objects["batch/input/dogs/huge.jpg"] = bytes(6 * 2**20 + 1)
    codes = {"a.jpg": "unsupported_image", "dir/é b.PNG": "model_failed"}
    stage.sagemaker.answer = lambda name: json.dumps({"error": {"code": codes[name], "message": "It is bad."}}).encode()
    run(stage)
    printed = capsys.readouterr().out
    assert "a.jpg: It is bad." in printed
    assert "huge.jpg: The image has 6,291,457 bytes; at most 6,291,456 are allowed; kennel data shrink" in printed
    assert "0 of 3 images are labelled, 3 could not be, 0 are left" in printed
    stage.sagemaker.answer = lambda name: answer_of("Akita")
    run(stage)
    assert found(stage) == {"a.jpg": "unsupported_image", "dir/é b.PNG": "Akita", "huge.jpg": "image_too_large"}


def test_an_interrupted_batch_goes_on_with_the_job_that_runs(stage: Any) -> None:
    stage.s3.objects["batch/output/dogs/.jobs/lost/images.json"] = b'{"model": "model-1", "etags": {"a.jpg": "1"}}'
    stage.sagemaker.running = True
    with pytest.raises(KeyboardInterrupt):
        run(stage)
    stage.sagemaker.running = False
    run(stage)
    assert len(stage.sagemaker.requests) == 1
    assert found(stage).keys() == {"a.jpg", "dir/é b.PNG"}
    assert not [key for key in stage.s3.objects if "/." in key]  # not of the job that never began either


def test_a_failed_job_keeps_what_it_answered_and_gives_up_no_earlier_label(stage: Any) -> None:
    run(stage)
    stage.s3.objects["batch/input/dogs/new.jpg"] = b"new"
    stage.sagemaker.status = "Failed"
    stage.sagemaker.answer = lambda name: answer_of("Boxer") if name == "a.jpg" else None
    with pytest.raises(WorkFailedError, match="out of luck"):
        run(stage, again=True)
    assert found(stage) == {"a.jpg": "Boxer", "dir/é b.PNG": "Akita", "new.jpg": "no_answer"}
    stage.sagemaker.status = "Completed"
    with pytest.raises(WorkFailedError, match=r"gave no answer to 1 images: new\.jpg"):
        run(stage)
    stage.sagemaker.answer = lambda name: answer_of("Chow")
    run(stage)
    assert found(stage) == {"a.jpg": "Boxer", "dir/é b.PNG": "Akita", "new.jpg": "Chow"}


def test_stopping_keeps_what_has_been_done_and_leaves_the_rest_for_later(stage, capsys):
    stage.sagemaker.running = True
    with pytest.raises(KeyboardInterrupt):
        run(stage)
    stage.sagemaker.running, stage.sagemaker.status = False, "Stopped"
    stage.sagemaker.answer = lambda name: answer_of("Akita") if name == "a.jpg" else None
    run(stage, stop=True)
    assert "1 of 2 images are labelled, 0 could not be, 1 are left" in capsys.readouterr().out
    assert len(stage.sagemaker.requests) == 1


@pytest.mark.parametrize(
    ("answers", "matched"),
    [
        # AWS's own example: <input prefix>/dataset01/data.csv is answered in <input prefix>/data.csv.out.
        (["dogs/c.jpg.out"], {"two/c.jpg": "dogs/c.jpg.out"}),
        (["batch/input/dogs/one/b.jpg.out"], {"one/b.jpg": "batch/input/dogs/one/b.jpg.out"}),
        (["b.jpg.out"], {}),  # one/b.jpg or two/b.jpg
        (["a.jpg.out", "x/a.jpg.out"], {"a.jpg": "a.jpg.out"}),
        (["x/one/b.jpg.out", "one/b.jpg.out"], {"one/b.jpg": "one/b.jpg.out"}),
        (["a.jpg", "ba.jpg.out", "d.jpg.out", ".out"], {}),
    ],
)
def test_an_answer_is_to_the_image_that_agrees_with_it_over_most_folders(answers, matched):
    images = ["a.jpg", "one/b.jpg", "two/b.jpg", "two/c.jpg", "one/a.jpg"]
    assert match_answers(answers, images, "batch/input/dogs/") == matched


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("s3://other/batch/input/dogs/", None), ("s3://bucket/batch/input/", None),
        ("s3://bucket/batch/input-2/dogs/", None), ("https://bucket/batch/input/dogs/", None),
        (SOURCE, "s3://bucket/batch/input/dogs/"), (SOURCE, "labels"),
    ],
)  # fmt: skip
def test_other_places_than_those_of_the_models_role_are_refused(stage, source, destination):
    with pytest.raises(NotReadyError, match=r"is not below s3://bucket/batch/(in|out)put/NAME/"):
        open_folder(stage, source, destination)


def test_without_a_deployed_model_nothing_is_pushed(stage, tmp_path, monkeypatch):
    monkeypatch.setattr(stage.sagemaker, "describe_endpoint", Mock(side_effect=refusal("ValidationException")))
    monkeypatch.setattr(batch, "announce", lambda stage: None)
    monkeypatch.setattr(batch, "push_files", None)
    with pytest.raises(AwsError, match="refused"):
        batch.batch(SimpleNamespace(obj=stage), str(tmp_path))  # type: ignore[arg-type]


def test_a_serverless_stage_is_refused(stage: Any) -> None:
    stage.configure("serving", kind="serverless")
    with pytest.raises(NotReadyError, match="is serverless"):
        deployed_model(stage)


def test_the_buckets_copy_is_made_equal_to_a_local_folder_first(stage, tmp_path, capsys):
    folder = tmp_path / "dogs"
    (folder / ".git").mkdir(parents=True)
    (folder / "@eaDir").mkdir()
    for name in ("c.jpg", "notes.txt", ".git/d.jpg", "@eaDir/e.jpg"):
        (folder / name).write_bytes(name.encode())
    opened = open_folder(stage, str(folder), None)
    assert (opened.source, opened.destination) == ("batch/input/dogs/", "batch/output/dogs/")
    assert [key for key in stage.s3.objects if key.startswith("batch/input/")] == ["batch/input/dogs/c.jpg"]
    said = capsys.readouterr().out
    assert "2 left out, hidden or of the system: .git/, @eaDir/" in said
    assert "1 left out, no image by its name: notes.txt" in said


@pytest.mark.parametrize("content", [b"hello", b'{"a": 1}', b"[" * 10**5], ids=len)
def test_a_file_that_is_not_ours_is_not_overwritten(stage: Any, content: bytes) -> None:
    stage.s3.objects[LABELS] = content
    with pytest.raises(NotReadyError, match="is not what this command wrote"):
        run(stage)
    assert stage.s3.objects[LABELS] == content
