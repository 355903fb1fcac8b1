"""A running model server: the contract over HTTP, callers who misbehave, and how it starts, survives and stops."""

import contextlib
import http.client
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from serving_fixtures import COLOURS, DISPLAY_LABELS, image_bytes, make_artifact, make_card, write_onnx
from serving_process import LOADED, ModelServer, Reply, model_server
from waiting import wait_until

from model.core.artifact import ONNX_FILE

MAX_BODY_BYTES = 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    folder = tmp_path_factory.mktemp("server")
    limit = {"MODEL_SERVER_MAX_BODY_BYTES": str(MAX_BODY_BYTES)}
    with model_server(make_artifact(folder / "artifact"), folder / "log", workers=2, **limit) as running:
        yield running
        assert running.errors() == []  # and every line of the log is JSON


def connect(server: ModelServer) -> contextlib.closing[http.client.HTTPConnection]:
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30))


def test_headers_of_the_request_and_the_answer_are_the_contracts(server: ModelServer) -> None:
    reply = server.invoke(image_bytes("lime"), content_type="image/png; top_k=2; scores=true")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.document["predictions"][0]["label"] == "Grüner Hund"
    assert (len(reply.document["predictions"]), len(reply.document["scores"])) == (2, 3)


@pytest.mark.parametrize("accept", ["*/*", "application/x-npy", "application/json, */*", ""])
@pytest.mark.parametrize("attributes", ["c0ffee00-0000-4697-b07a-ac58fc914c95", "trace_id=abc", "top_k=x"])
def test_custom_attributes_and_accept_are_ignored(server: ModelServer, accept: str, attributes: str) -> None:
    headers = {"X-Amzn-SageMaker-Custom-Attributes": attributes, "accept": accept}
    assert server.invoke(image_bytes(), content_type="file-path/raw-bytes", **headers).status == 200


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 3 * MAX_BODY_BYTES])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused(server: ModelServer, size: int, chunked: bool) -> None:
    with connect(server) as connection:
        chunks = (b"x" * 1000 for _ in range(size // 1000 + 1))
        connection.request("POST", "/invocations", chunks if chunked else b"x" * size, encode_chunked=chunked)
        response = connection.getresponse()
        assert response.status == 413
        assert f"at most {MAX_BODY_BYTES:,} bytes" in response.read().decode()
    assert server.invoke(image_bytes() + b"\0" * (MAX_BODY_BYTES - len(image_bytes()))).status == 200, "at the limit"


@pytest.mark.parametrize(
    "rest", ["Content-Length: 10000000000\r\n\r\n", "X: ", "Transfer-Encoding: chunked\r\n\r\n0\r\nX: "]
)
def test_an_endless_body_or_header_is_cut_off(server: ModelServer, rest: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(f"POST /invocations HTTP/1.1\r\nHost: x\r\n{rest}".encode())
        with pytest.raises(ConnectionError):
            while True:
                connection.sendall(b"x" * 65536)
    assert server.invoke(image_bytes()).status == 200


def test_one_connection_carries_many_requests_and_no_answer_waits_for_an_acknowledgement(server: ModelServer) -> None:
    seconds = []
    with connect(server) as connection:
        for _ in range(60):
            started = time.perf_counter()
            connection.request("POST", "/invocations", image_bytes(), {"Content-Type": "image/png"})
            assert connection.getresponse().read()
            seconds.append(time.perf_counter() - started)
    # With Nagle's algorithm on, an answer's body waits for the delayed acknowledgement of its headers: 40 ms, once the
    # kernel has seen some exchanges and takes its time.
    assert min(seconds[30:]) < 0.03


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that computes for about a second on a blue image."""
    return make_artifact(tmp_path_factory.mktemp("models") / "slow", blue_steps=3000)


@pytest.fixture(scope="module")
def stuck_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that does not come back from a blue image."""
    return make_artifact(tmp_path_factory.mktemp("models") / "stuck", blue_steps=10**8)


def used_seconds(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])


@contextlib.contextmanager
def blue_in_background(server: ModelServer) -> Iterator[Future[Reply]]:
    """Send a blue image; the body runs while a worker computes on it."""
    with ThreadPoolExecutor(1) as caller:
        idle = {worker.pid: used_seconds(worker) for worker in server.workers()}
        reply = caller.submit(server.invoke, image_bytes("blue"))
        at_work = lambda: any(used_seconds(w) > idle.get(w.pid, 1e9) + 0.05 for w in server.workers())  # noqa: E731
        wait_until(lambda: reply.done() or at_work())
        assert not reply.done(), "the image was answered too soon for this test to mean anything"
        yield reply


def test_it_is_not_healthy_before_the_model_has_run(artifact: Path, tmp_path: Path) -> None:
    with model_server(artifact, tmp_path / "log", ready=False) as server:
        wait_until(lambda: server.ping() is not None)
        early = server.invoke(image_bytes())
        assert (early.status, early.document["error"]["code"]) == (503, "not_ready")
        assert early.headers["retry-after"] == "1"
        assert LOADED not in server.log()
        server.wait_until_ready()
        assert LOADED in server.log()
        assert server.invoke(image_bytes()).status == 200


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("flipped byte", "damaged or belongs to another model"), ("other classes", "the model card has 3 labels"),
        ("setting", "MODEL_SERVER_MODE is 'tpu'"), ("port", "Address already in use"),
    ],
)  # fmt: skip
def test_what_cannot_start_ends_the_program_with_the_reason(damage: str, message: str, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "artifact")
    network = artifact / ONNX_FILE
    if damage == "flipped byte":
        network.write_bytes(network.read_bytes()[:-1] + b"\xff")
    elif damage == "other classes":
        write_onnx(network, outputs=5)
        make_card(network).save(artifact)
    variables = {"MODEL_SERVER_MODE": "tpu"} if damage == "setting" else {}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        if damage == "port":
            variables["SAGEMAKER_BIND_TO_PORT"] = str(taken.getsockname()[1])
        with model_server(artifact, tmp_path / "log", workers=2, ready=False, **variables) as server:
            assert server.wait_until_gone() == 1
            assert any(message in error for error in server.errors())
            assert "Traceback" not in server.log()


def test_an_image_that_keeps_killing_workers_is_given_up(stuck_artifact: Path, tmp_path: Path) -> None:
    with model_server(stuck_artifact, tmp_path / "log") as server:
        with blue_in_background(server) as reply:
            for attempt in (1, 2):
                wait_until(lambda: server.log().count(LOADED) >= attempt)  # noqa: B023
                (worker,) = server.workers()
                worker.kill()
            document = reply.result().document
        assert (reply.result().status, document["error"]["code"]) == (500, "model_failed")
        assert "crashed" in document["error"]["message"]
        assert server.wait_until_ready().invoke(image_bytes("red")).status == 200


def test_an_image_that_takes_too_long_fails_and_the_worker_is_replaced(stuck_artifact: Path, tmp_path: Path) -> None:
    with model_server(stuck_artifact, tmp_path / "log", SAGEMAKER_MODEL_SERVER_TIMEOUT="1") as server:
        reply = server.invoke(image_bytes("blue"))
        assert (reply.status, reply.document["error"]["code"]) == (500, "model_failed")
        assert "took more than 1 s" in reply.document["error"]["message"]
        assert server.wait_until_ready().invoke(image_bytes("red")).status == 200


def test_a_killed_worker_costs_no_answer_and_no_wrong_one(artifact: Path, tmp_path: Path) -> None:
    asked = list(zip(COLOURS[:2], DISPLAY_LABELS, strict=False)) * 100

    def label(question: tuple[str, str]) -> str:
        return server.invoke(image_bytes(question[0])).document["predictions"][0]["label"]

    with model_server(artifact, tmp_path / "log", workers=2) as server, ThreadPoolExecutor(8) as callers:
        answers = callers.map(label, asked)
        server.workers()[0].kill()
        assert list(answers) == [expected for _, expected in asked]


def test_workers_that_cannot_come_back_end_the_program(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "artifact")
    with model_server(artifact, tmp_path / "log") as server:
        (artifact / ONNX_FILE).unlink()
        (worker,) = server.workers()
        worker.kill()
        assert server.wait_until_gone() == 1
        assert "has no model.onnx" in server.errors()[-1]


def test_workers_end_when_the_server_is_killed(artifact: Path, tmp_path: Path) -> None:
    with model_server(artifact, tmp_path / "log", workers=2) as server:
        os.kill(server.process.pid, signal.SIGKILL)
        assert server.wait_until_gone() == -signal.SIGKILL


def test_more_requests_than_may_be_held_are_told_to_come_back(artifact: Path, tmp_path: Path) -> None:
    with model_server(artifact, tmp_path / "log", MODEL_SERVER_MAX_REQUESTS="1") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        with blue_in_background(server) as reply:
            assert server.ping() == 200  # although every worker computes
            # The whole body is sent before the answer is read, as most clients do.
            connection.request("POST", "/invocations", b"x" * 5_000_000)
            response = connection.getresponse()
            assert (response.status, response.headers["retry-after"]) == (503, "1")
            assert b"overloaded" in response.read()
        assert reply.result().status == 200
        connection.request("POST", "/invocations", image_bytes())  # the connection is still good
        assert connection.getresponse().status == 200
        connection.close()


@pytest.mark.parametrize(("number", "whole_group"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_requests_under_way_are_finished_before_it_stops(artifact, tmp_path, number, whole_group):
    with model_server(artifact, tmp_path / "log") as server:
        idle = socket.create_connection(("127.0.0.1", server.port))  # which does not delay the stop
        with idle, blue_in_background(server) as reply:
            (os.killpg if whole_group else os.kill)(server.process.pid, number)
            assert reply.result().status == 200
            assert server.wait_until_gone() == 0
        assert server.errors() == []
