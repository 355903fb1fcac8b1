"""`kennel load-test` and a load that goes on: an open loop that waits for nobody, checked answers, the knee."""

from __future__ import annotations

import json
import re
import threading
import tomllib
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import boto3
import pytest
from fake_stage import FakeStage
from hypothesis import given
from hypothesis import strategies as st
from lambda_fakes import fake_server, raw, reply
from serving_fixtures import COLOURS, LABELS, image_bytes, make_artifact
from waiting import wait_until

from cli.errors import NotReadyError, WorkFailedError
from cli.load import running
from cli.load.command import write_rate
from cli.load.generator import Call, Result, open_loop
from cli.load.running import Step, find_knee
from cli.load.stream import RIGHT, TRY_AGAIN, Stream, labels_of, tally
from cli.load.target import Target, check, check_labels
from cli.local.bad_model import make_bad_model
from cli.serving.classify import load_predictor
from infra.settings import ENVIRONMENTS
from model.core.artifact import ArtifactError
from model.core.packaging import package


def calls(port: int) -> list[Call]:
    return [Call(f"http://127.0.0.1:{port}/", {"Content-Type": "image/jpeg"}, b"image")]


def step(rate: float, **changes: object) -> Step:
    result = replace(Result(0, 0, 0.1, 200, None), **changes)  # type: ignore[arg-type]
    return Step.of(rate, [result] * 100, 2)


def test_requests_leave_while_others_still_wait() -> None:
    together = threading.Barrier(5)

    def answer_when_all_are_there(handler: BaseHTTPRequestHandler) -> None:
        together.wait(30)
        reply()(handler)

    with fake_server(answer_when_all_are_there) as server:
        results = open_loop(calls(server.port), [0.0] * 5, check, timeout=30)
    assert [result.fault for result in results] == [None] * 5


def test_latency_counts_from_the_scheduled_time() -> None:
    with fake_server(reply()) as server:
        (result,) = open_loop(calls(server.port), [-7.0], check, timeout=30)
    assert result.latency_ms >= 7000


def test_errors_are_told_apart() -> None:
    answers = (reply(), reply(429), reply(503), reply(504), reply(document={"labels": []}), raw())
    with fake_server(*answers) as server:
        results = [open_loop(calls(server.port), [0.0], check, timeout=30)[0] for _ in answers]
    found = Step.of(1, results, None)
    assert (found.right, found.throttled, found.unavailable) == (1, 1, 1)
    assert found.faults == {"HTTP 504": 1, "200 without a label": 1, "no response: ServerDisconnectedError": 1}


def test_the_knee_is_the_highest_rate_that_held() -> None:
    slow, failing, late = step(30, ended=0.5), step(40, status=503, fault="HTTP 503"), step(50, sent=0.09)
    assert find_knee([step(10), step(20), slow, failing, late], goal_ms=300) == step(20)
    assert find_knee([slow], goal_ms=300) is None


def test_a_load_test_finds_the_knee_and_draws_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(running, "LEAD_SECONDS", 0.0)
    (tmp_path / "dog.jpg").write_bytes(b"image")
    session = boto3.session.Session("AKIDEXAMPLE", "secret", region_name="us-east-1")
    answers = [reply()] * 7 + [reply(503)]  # the first request, two steps of three, then no more
    with fake_server(*answers) as server:
        outputs = {"FunctionUrl": f"http://127.0.0.1:{server.port}/"}
        target = Target.of(FakeStage(outputs=outputs, session=session), tmp_path, direct=False)
        monkeypatch.setattr(Target, "instances", lambda _: 2)
        steps = running.measure(target, [30, 30.1, 30.2, 30.3], 0.1, 60_000)
    assert [found.broken(60_000) for found in steps] == ["", "", "100.0% errors"]
    assert running.report(steps, 60_000, tmp_path / "figures.json") == 30.1 / 2
    assert json.loads((tmp_path / "figures.json").read_text())["knee_rate"] == 30.1
    assert (tmp_path / "figures.png").stat().st_size
    assert "Knee: 30.1 requests/s" in capsys.readouterr().out
    with pytest.raises(WorkFailedError, match="No rate held"):
        running.report(steps[2:], 60_000, tmp_path / "figures.json")


@given(st.sampled_from(sorted(ENVIRONMENTS.glob("*.toml"))), st.floats(0.02, 100_000))
def test_writing_the_rate_changes_one_number(tmp_path_factory: pytest.TempPathFactory, file: Path, rate: float) -> None:
    before, copy = file.read_text(), tmp_path_factory.mktemp("stage") / file.name
    copy.write_text(before)
    if "max_rps_per_instance" not in before:
        return
    write_rate(copy, rate)
    number = re.compile(r"(max_rps_per_instance = )\S+")
    assert number.sub(r"\1?", copy.read_text()) == number.sub(r"\1?", before)
    written = tomllib.loads(copy.read_text())["serving"]["scaling"]["max_rps_per_instance"]
    assert written == pytest.approx(rate, rel=0.005)


def test_a_rate_that_is_written_otherwise_is_left_to_the_person(tmp_path: Path) -> None:
    file = tmp_path / "dev.toml"
    file.write_text("serving = { scaling = { max_rps_per_instance = 20 } }\n")
    with pytest.raises(NotReadyError, match=r"could not be changed"):
        write_rate(file, 31.4)


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
