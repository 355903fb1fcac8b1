"""A load that goes on until it is stopped, and what counts as right, to be repeated, or lost."""

from __future__ import annotations

from pathlib import Path

import boto3
import pytest
from fake_stage import FakeStage
from lambda_fakes import fake_server, reply
from serving_fixtures import COLOURS, LABELS, image_bytes, make_artifact
from waiting import wait_until

from cli.load.stream import RIGHT, TRY_AGAIN, Stream, labels_of, tally
from cli.load.target import Target, check_labels
from cli.local.bad_model import make_bad_model
from cli.serving.classify import load_predictor
from model.core.artifact import ArtifactError
from model.core.packaging import package

IMAGES = [image_bytes(colour) for colour in COLOURS]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    archive = tmp_path / "model.tar.gz"
    package(make_artifact(tmp_path / "model", display_labels=LABELS), archive)
    return archive


def test_a_load_goes_on_until_it_is_stopped_and_tells_right_from_wrong_lost_and_to_be_repeated(model: Path) -> None:
    labels = labels_of(model, IMAGES)
    ((version, red),) = [key for key in labels if key[1] == IMAGES[0]]

    def answer(label: str) -> dict[str, object]:
        return {"predictions": [{"label": label, "probability": 1.0}], "model": {"name": "m", "version": version}}

    answers = (
        reply(document=answer(labels[version, red])),
        reply(document=answer("another")),
        reply(503, headers={"Retry-After": "1"}),
        reply(503),
    )
    session = boto3.session.Session("AKIDEXAMPLE", "secret", region_name="us-east-1")
    with fake_server(*answers) as server:
        target = Target(FakeStage(session=session), [red], f"http://127.0.0.1:{server.port}/", "lambda")
        with Stream(target, 50, check_labels(labels)) as load:
            wait_until(lambda: len(load.results) >= 6)
    found = tally(load.results)
    assert (found[RIGHT], found["200 with a wrong label"], found[TRY_AGAIN]) == (1, 1, 1)
    assert found["HTTP 503"] == len(load.results) - 3


def test_the_bad_model_is_packaged_and_answers_grey_images_but_none_with_colour(model: Path, tmp_path: Path) -> None:
    version = make_bad_model(model, tmp_path / "bad.tar.gz")
    predictor = load_predictor(tmp_path / "bad.tar.gz")
    assert predictor.card.version == version
    assert predictor.predict(image_bytes("grey"))
    with pytest.raises(ArtifactError, match="not finite"):
        predictor.predict(image_bytes("red"))
