"""What the serving benchmark compares, on a model that loads at once, and how it reads the results."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
from serving_fixtures import image_bytes, make_artifact

from benchmarks.load import Expected, Load, WrongAnswerError
from benchmarks.measuring import Memory
from benchmarks.serving import goals, main
from benchmarks.serving_model import CLASSES, distinguishing_network, draw_pictures, read_pictures
from benchmarks.serving_systems import BrokenSystemError, ModelError, Plan, Served, Turn, in_process, our_server
from model.core.packaging import add_serving_program
from model.core.predictor import Predictor

PICTURES = [image_bytes("red"), image_bytes("lime")]
PLAN = Plan(PICTURES, clients=(1, 3), seconds=0.2, warm_up_seconds=0.05, workers=2)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder = make_artifact(tmp_path_factory.mktemp("artifact"))
    add_serving_program(folder)
    predictor = Predictor.load(folder)
    return Served(folder, "fp32", [Expected(*predictor.predict(data).ranked[0]) for data in PICTURES])


def wrong(served: Served) -> Served:
    """The same with the pictures' answers exchanged."""
    return dataclasses.replace(served, expected=served.expected[::-1])


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


def test_our_server_is_started_loaded_measured_and_stopped(served: Served, tmp_path: Path) -> None:
    before = set(children())
    turn = our_server(served, PLAN, tmp_path / "server.log", SAGEMAKER_MODEL_SERVER_WORKERS="2")
    assert set(children()) == before
    assert turn.loads.keys() == {1, 3}
    assert all(load.latencies_ms and load.cpu_ms for load in turn.loads.values())
    assert turn.start_seconds is not None and 0 < turn.start_seconds < 60
    assert turn.memory is not None and turn.memory.uss > 3 * 10_000_000  # two workers and the server


def test_a_server_with_wrong_answers_gets_no_figures(served: Served, tmp_path: Path) -> None:
    before = set(children())
    with pytest.raises(WrongAnswerError, match="the reference says"):
        our_server(wrong(served), PLAN, tmp_path / "server.log")
    assert set(children()) == before


def test_a_server_that_does_not_start_shows_its_log(served: Served, tmp_path: Path) -> None:
    with pytest.raises(BrokenSystemError, match="MODEL_SERVER_MODE is 'abacus'"):
        our_server(served, PLAN, tmp_path / "server.log", MODEL_SERVER_MODE="abacus")


def test_the_limit_is_the_sum_over_all_processes(served: Served) -> None:
    (clients, load), *others = in_process(served, PLAN).loads.items()
    assert (clients, others) == (2, [])
    assert load.cpu_ms is not None
    # Two processes that are busy all the time.
    assert sum(load.latencies_ms) == pytest.approx(2 * PLAN.seconds * 1000, rel=0.2)


def test_the_limit_checks_its_answers_too(served: Served) -> None:
    with pytest.raises(WrongAnswerError, match="the reference says"):
        in_process(wrong(served), PLAN)


def turn(rates: dict[int, float], *, latency_ms: float = 10.0, start: float | None = None, pss: int = 0) -> Turn:
    loads = {clients: Load(1.0, round(rate), (latency_ms,) * round(rate), 0.0) for clients, rate in rates.items()}
    return Turn(loads, start, Memory(pss, pss) if pss else None)


def test_goals_compare_within_each_round() -> None:
    # The second round was twice as slow for all of them.
    results = {
        "no server, int8": [turn({2: 100}), turn({2: 50}), turn({2: 100})],
        "our server, int8": [
            turn({1: 50, 8: 90}, latency_ms=20, start=1.0, pss=200_000_000),
            turn({1: 25, 8: 45}, latency_ms=40, start=5.0, pss=210_000_000),
            turn({1: 50, 8: 95}, latency_ms=21, start=1.5, pss=190_000_000),
        ],
        "LitServe, PyTorch": [turn({1: 9, 8: 30}, latency_ms=100)] * 3,
    }
    found = {goal.name: goal for goal in goals(results, Served(Path(), "int8", []))}
    assert found["our server / no server, 8 callers"].measured == 0.9
    assert found["our server / LitServe, PyTorch, 8 callers"].measured == 3.0
    assert found["our server / LitServe, PyTorch, 8 callers"].met is False
    assert found["our server / BentoML, PyTorch, 8 callers"].met is None
    assert found["p50 with one caller"].measured == 21
    assert found["p50 with one caller, LitServe, PyTorch / our server"].measured == pytest.approx(100 / 21)
    assert found["first answer after start"].measured == 1.5
    assert found["memory (PSS) of server and workers"].measured == 210  # the largest


def test_without_the_callers_of_a_goal_it_is_not_measured() -> None:
    results = {"no server, fp32": [turn({2: 10})], "our server, fp32": [turn({32: 9}, start=1.0, pss=1)]}
    unmeasured = {goal.name for goal in goals(results, Served(Path(), "fp32", [])) if goal.measured is None}
    assert {"our server / no server, 8 callers", "p50 with one caller"} <= unmeasured


def test_the_network_gives_every_picture_a_class_of_its_own() -> None:
    torch = pytest.importorskip("torch")
    inputs = np.random.default_rng(1).normal(size=(5, 3, 32, 32)).astype(np.float32)
    network = distinguishing_network("resnet9", inputs)
    with torch.inference_mode():
        logits = network(torch.from_numpy(inputs))
        assert logits.shape == (5, CLASSES)
        assert logits.argmax(dim=1).tolist() == [0, 1, 2, 3, 4]
        again = distinguishing_network("resnet9", inputs)
        assert torch.equal(again(torch.from_numpy(inputs)), logits)


def test_a_network_without_a_linear_last_layer_is_refused() -> None:
    with pytest.raises(ModelError, match="does not end in a linear layer"):
        distinguishing_network("squeezenet1_1", np.zeros((2, 3, 64, 64), np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--network", "resnet05"], "unknown architecture 'resnet05'"),
        (["--pictures", "nowhere"], "nowhere has 0 JPEG pictures"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_sentence(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # it is the tests' process whose signals would change
    assert main(["--no-peers", "--no-chain", *options]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--clients", "0"], ["--seconds", "-1"], ["--clients", "many"]])
def test_bad_options_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(options)
    assert options[0] in capsys.readouterr().err


def test_pictures_are_drawn_as_large_as_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.serving_model.PICTURES", 2)
    pictures = draw_pictures()
    assert len(set(pictures)) == 2
    assert all(100_000 < len(data) <= 124_000 for data in pictures)
    assert draw_pictures() == pictures


def test_pictures_are_read_from_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has 0 JPEG pictures"):
        read_pictures(tmp_path)
    (tmp_path / "b.JPG").write_bytes(b"2")
    (tmp_path / "a.jpeg").write_bytes(b"1")
    (tmp_path / "README.md").write_text("no picture")
    assert read_pictures(tmp_path) == [b"1", b"2"]
