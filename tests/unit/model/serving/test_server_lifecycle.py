"""How a model server starts, survives and stops: what a container's orchestrator relies on."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from serving_fixtures import DISPLAY_LABELS, make_artifact, make_card, picture, write_onnx
from serving_process import LOADED, ModelServer, Reply, model_server, wait_until

from model.core.artifact import ONNX_FILE, ModelCard

ONE_WORKER = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
TWO_WORKERS = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2"}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifact(tmp_path_factory.mktemp("models") / "colours")


@pytest.fixture(scope="module")
def slow_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that computes for about a second on a blue picture."""
    return make_artifact(tmp_path_factory.mktemp("models") / "slow", blue_steps=3000)


@pytest.fixture(scope="module")
def stuck_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that does not come back from a blue picture."""
    return make_artifact(tmp_path_factory.mktemp("models") / "stuck", blue_steps=10**8)


@contextlib.contextmanager
def in_background(server: ModelServer, colour: str) -> Iterator[Future[Reply]]:
    """Send a picture; the body runs while a worker computes on it."""
    with ThreadPoolExecutor(1) as caller:
        idle = {worker.pid: sum(worker.cpu_times()[:2]) for worker in server.workers()}
        reply = caller.submit(server.invoke, picture(colour))

        def is_computing() -> bool:
            return any(sum(w.cpu_times()[:2]) > idle.get(w.pid, 1e9) + 0.05 for w in server.workers())

        wait_until(lambda: reply.done() or is_computing())
        assert not reply.done(), "the picture was answered too soon for this test to mean anything"
        yield reply


class TestStart:
    def test_it_is_not_healthy_before_the_model_has_run(self, artifact: Path, tmp_path: Path) -> None:
        with model_server(artifact, tmp_path / "log", **ONE_WORKER) as server:
            wait_until(server.is_listening)
            early = server.invoke(picture())
            assert (early.status, early.document["error"]["code"]) == (503, "not_ready")
            assert early.headers["retry-after"] == "1"
            assert LOADED not in server.log()
            server.wait_until_ready()
            assert LOADED in server.log()
            assert server.invoke(picture()).status == 200

    @pytest.mark.parametrize("damage", ["no folder", "flipped byte", "other classes"])
    def test_a_damaged_artifact_ends_the_program_with_the_fault(self, damage: str, tmp_path: Path) -> None:
        artifact = make_artifact(tmp_path / "artifact")
        network = artifact / ONNX_FILE
        match damage:
            case "no folder":
                artifact, message = tmp_path / "nowhere", "There is no model.json"
            case "flipped byte":
                message = "damaged or belongs to another model"
                network.write_bytes(network.read_bytes()[:-1] + b"\xff")
            case _:
                message = "the model card has 3 labels"
                write_onnx(network, outputs=5)
                make_card(network).save(artifact)
        with model_server(artifact, tmp_path / "log", **TWO_WORKERS) as server:
            assert server.wait_until_gone() == 1
            assert not server.is_listening()
            assert any(message in error for error in server.errors())
            assert "Traceback" not in server.log()

    def test_a_port_in_use_and_bad_settings_are_named(self, artifact: Path, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with model_server(artifact, tmp_path / "log", SAGEMAKER_BIND_TO_PORT=str(port)) as server:
                assert server.wait_until_gone() == 1
                (error,) = server.errors()
                assert f"127.0.0.1:{port}" in error
                assert "in use" in error
        with model_server(artifact, tmp_path / "log", MODEL_SERVER_ENGINE="tpu") as server:
            assert server.wait_until_gone() == 1
            assert "MODEL_SERVER_ENGINE is 'tpu'" in server.errors()[0]


class TestCrashes:
    def test_a_picture_that_keeps_killing_workers_is_given_up(self, stuck_artifact: Path, tmp_path: Path) -> None:
        with model_server(stuck_artifact, tmp_path / "log", **ONE_WORKER) as server:
            server.wait_until_ready()
            with in_background(server, "blue") as reply:
                for attempt in (1, 2):
                    server.wait_for_log(LOADED, times=attempt)
                    (worker,) = server.workers()
                    worker.kill()
                document = reply.result().document
            assert (reply.result().status, document["error"]["code"]) == (500, "model_failed")
            assert "crashed" in document["error"]["message"]
            assert server.wait_until_ready().invoke(picture("red")).status == 200

    def test_a_picture_of_a_list_that_takes_too_long_fails_alone_and_the_worker_is_replaced(
        self, stuck_artifact: Path, tmp_path: Path
    ) -> None:
        limit = {"SAGEMAKER_MODEL_SERVER_TIMEOUT": "1"} | TWO_WORKERS
        with model_server(stuck_artifact, tmp_path / "log", **limit) as server:
            server.wait_until_ready()
            texts = [base64.b64encode(picture(colour)).decode() for colour in ("red", "blue", "lime")]
            reply = server.invoke(json.dumps({"images": texts}).encode(), "application/json")
            first, stuck, last = reply.document["results"]
            assert (reply.status, stuck["error"]["code"]) == (200, "model_failed")
            assert "took more than 1 s" in stuck["error"]["message"]
            assert "took more than 1 s" in server.errors()[0]
            assert [each["predictions"][0]["label"] for each in (first, last)] == list(DISPLAY_LABELS[:2])
            assert server.wait_until_ready().invoke(picture("red")).status == 200

    def test_replacements_that_die_while_they_load_are_tried_again(self, artifact: Path, tmp_path: Path) -> None:
        with model_server(artifact, tmp_path / "log", **ONE_WORKER) as server:
            server.wait_until_ready()
            killed: set[int] = set()

            def kill_the_next() -> bool:
                for worker in server.workers():
                    if worker.pid not in killed:
                        killed.add(worker.pid)
                        worker.kill()
                return len(killed) == 5

            wait_until(kill_the_next)
            assert server.wait_until_ready().invoke(picture()).status == 200
            assert server.log().count(LOADED) == 2

    def test_workers_that_cannot_come_back_end_the_program(self, tmp_path: Path) -> None:
        artifact = make_artifact(tmp_path / "artifact")
        with model_server(artifact, tmp_path / "log", **ONE_WORKER) as server:
            server.wait_until_ready()
            (artifact / ONNX_FILE).unlink()
            (worker,) = server.workers()
            worker.kill()
            assert server.wait_until_gone() == 1
            assert "has no model.onnx" in server.errors()[-1]

    def test_workers_end_when_the_server_is_killed(self, artifact: Path, tmp_path: Path) -> None:
        with model_server(artifact, tmp_path / "log", **TWO_WORKERS) as server:
            server.wait_until_ready()
            os.kill(server.process.pid, signal.SIGKILL)
            assert server.wait_until_gone() == -signal.SIGKILL
            assert not server.is_listening()


class TestLoad:
    def test_more_requests_than_may_be_held_are_told_to_come_back(self, slow_artifact: Path, tmp_path: Path) -> None:
        with model_server(slow_artifact, tmp_path / "log", MODEL_SERVER_MAX_REQUESTS="1", **ONE_WORKER) as server:
            server.wait_until_ready()
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            with contextlib.closing(connection):
                with in_background(server, "blue") as reply:
                    assert server.ping() == 200  # although every worker computes
                    # The whole body is sent before the answer is read, as most clients do.
                    connection.request("POST", "/invocations", b"x" * 5_000_000)
                    response = connection.getresponse()
                    assert (response.status, response.headers["retry-after"]) == (503, "1")
                    assert b"overloaded" in response.read()
                assert reply.result().status == 200
                connection.request("POST", "/invocations", picture())  # the connection is still good
                assert connection.getresponse().status == 200

    def test_a_list_takes_as_many_places_as_it_has_pictures(self, slow_artifact: Path, tmp_path: Path) -> None:
        with model_server(slow_artifact, tmp_path / "log", MODEL_SERVER_MAX_REQUESTS="3", **ONE_WORKER) as server:
            server.wait_until_ready()
            texts = [base64.b64encode(picture()).decode()] * 4
            three, four = (json.dumps({"images": texts[:count]}).encode() for count in (3, 4))
            with in_background(server, "blue") as reply:
                refused = server.invoke(three, "application/json")
                assert (refused.status, refused.document["error"]["code"]) == (503, "overloaded")
                assert not reply.done()
            # Alone it is always taken: else it could never be answered.
            assert len(server.invoke(four, "application/json").document["results"]) == 4

    @pytest.mark.parametrize(
        "settings",
        [{"MODEL_SERVER_MODE": "latency"}, {"MODEL_SERVER_LONE_THREADS": "2", **ONE_WORKER}],
        ids=["latency", "lone pictures"],
    )
    def test_threads_sleep_while_they_have_nothing_to_do(
        self, artifact: Path, tmp_path: Path, settings: dict[str, str]
    ) -> None:
        with model_server(artifact, tmp_path / "log", **settings) as server:
            server.wait_until_ready()
            for _ in range(2):  # of lone pictures the second one has several threads
                assert server.invoke(picture("blue")).document["predictions"][0]["label"] == DISPLAY_LABELS[2]
            (worker,) = server.workers()
            used = sum(worker.cpu_times()[:2])
            idle_since = time.monotonic()
            wait_until(lambda: time.monotonic() > idle_since + 0.5)
            assert sum(worker.cpu_times()[:2]) - used < 0.1


class TestStop:
    @pytest.mark.parametrize(("number", "whole_group"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
    def test_requests_under_way_are_finished_first(
        self, slow_artifact: Path, tmp_path: Path, number: signal.Signals, whole_group: bool
    ) -> None:
        with model_server(slow_artifact, tmp_path / "log", **ONE_WORKER) as server:
            server.wait_until_ready()
            with in_background(server, "blue") as reply:
                (os.killpg if whole_group else os.kill)(server.process.pid, number)
                assert reply.result().status == 200
            assert server.wait_until_gone() == 0
            assert not server.is_listening()
            assert server.errors() == []

    def test_what_does_not_finish_in_time_is_cut_off(self, stuck_artifact: Path, tmp_path: Path) -> None:
        drain = {"MODEL_SERVER_DRAIN_SECONDS": "1"} | ONE_WORKER
        with model_server(stuck_artifact, tmp_path / "log", **drain) as server:
            server.wait_until_ready()
            started = time.monotonic()
            with (
                contextlib.suppress(http.client.HTTPException, ConnectionError),
                in_background(server, "blue") as reply,
            ):
                server.process.terminate()
                reply.result()
            server.wait_until_gone()
            assert time.monotonic() - started < 20
            assert not server.is_listening()

    def test_it_can_be_stopped_while_the_model_is_being_loaded(self, artifact: Path, tmp_path: Path) -> None:
        with model_server(artifact, tmp_path / "log", **TWO_WORKERS) as server:
            wait_until(server.is_listening)
            os.killpg(server.process.pid, signal.SIGTERM)
            assert server.wait_until_gone() == 0
            assert server.errors() == []

    def test_an_idle_connection_does_not_delay_the_stop(self, artifact: Path, tmp_path: Path) -> None:
        with model_server(artifact, tmp_path / "log", **ONE_WORKER) as server:
            server.wait_until_ready()
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            with contextlib.closing(connection):
                connection.request("POST", "/invocations", picture())
                assert connection.getresponse().read()
                started = time.monotonic()
                server.process.terminate()
                assert server.wait_until_gone() == 0
                assert time.monotonic() - started < 10


def test_the_packaged_program_serves_without_this_checkout(tmp_path: Path) -> None:
    from model.core.packaging import add_serving_program

    artifact = make_artifact(tmp_path / "artifact")
    add_serving_program(artifact)
    with model_server(artifact, tmp_path / "log", program=["code/serve"], **ONE_WORKER) as server:
        server.wait_until_ready()
        assert server.invoke(picture("blue")).document["predictions"][0]["label"] == DISPLAY_LABELS[2]
        (worker,) = server.workers()
        assert worker.environ()["PYTHONPATH"].split(os.pathsep)[0] == str((artifact / "code").resolve())
        server.process.terminate()
        assert server.wait_until_gone() == 0
    assert ModelCard.load(artifact).name == "colours"
