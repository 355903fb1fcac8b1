"""The endpoint client against a server with real sockets: connections, deadlines, and the meaning of every answer."""

import socket
import struct
import threading
import time

import pytest
from lambda_fakes import (
    ANSWER,
    CREDENTIALS,
    aws_error,
    certificate_authority,
    drip,
    fake_server,
    model_error,
    raw,
    reply,
)

from lambda_fn import errors
from lambda_fn.aws.endpoint import EndpointClient
from lambda_fn.connection import Deadline
from model.serving.request import Options, parse

SECRETS = ("arn:", "123456789012", "dogs-1", "127.0.0.1", "/aws/", "amazonaws", "role", "credentials")
DROP = raw()


def classify(server, *, seconds=5.0, client=None, **options):
    client = client or EndpointClient(server.settings(), CREDENTIALS)
    return client.classify(b"image", **{"top_k": 5, "scores": False, "deadline": Deadline(seconds), **options})


def failure(server, **options):
    with pytest.raises(errors.ServiceError) as caught:
        classify(server, **options)
    assert caught.value.detail, "the operator needs to know more"
    assert not [secret for secret in SECRETS if secret in caught.value.message]
    return caught.value


def test_the_request_is_invoke_endpoint():
    scores = [0.1, 1 / 3, 1e-30]
    environ = dict(CREDENTIALS)
    optional = {"scores": scores, "known": False, "ood_score": 1.5}
    with fake_server(reply(document={**ANSWER, **optional, "extra": 1})) as server:
        client = EndpointClient(server.settings(runtime_url=f"http://127.0.0.1:{server.port}/aws"), environ)
        result = classify(server, client=client, top_k=3, scores=True)
        environ["AWS_ACCESS_KEY_ID"] = "ROTATED"
        classify(server, client=client)
    request, second = server.requests
    assert (request.method, request.path) == ("POST", "/aws/endpoints/dogs-1/invocations")
    understood = parse(request.body, request.headers["content-type"])
    assert understood == (b"image", Options(top_k=3, scores=True))
    assert request.headers["x-amz-security-token"] == "token"
    assert "AKIDEXAMPLE/" in request.headers["authorization"]
    assert "/us-east-1/sagemaker/" in request.headers["authorization"]
    assert "ROTATED/" in second.headers["authorization"]
    assert (result.predictions, result.model, result.optional) == (ANSWER["predictions"], ANSWER["model"], optional)


def test_one_connection_serves_many_requests_and_errors():
    with fake_server(aws_error(429, "ThrottlingException"), model_error(500, "boom"), reply()) as server:
        client = EndpointClient(server.settings(), CREDENTIALS)
        failure(server, client=client)
        failure(server, client=client)
        classify(server, client=client)
    assert (len(server.requests), server.connections) == (3, 1)


def test_a_kept_connection_that_was_closed_meanwhile_is_replaced_once_and_a_fresh_one_that_breaks_is_not():
    with fake_server(reply(), DROP, reply(), DROP, DROP) as server:
        client = EndpointClient(server.settings(), CREDENTIALS)
        classify(server, client=client)
        classify(server, client=client)
        assert (len(server.requests), server.connections) == (3, 2)
        assert isinstance(failure(server, client=client), errors.NotReadyError)
    assert (len(server.requests), server.connections) == (5, 3)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_connection_that_the_other_side_closed_while_we_were_frozen_fails_no_request(tmp_path, scheme, reset):
    threads, frozen = [], threading.Event()

    def answer_and_close(handler):
        threads.append(threading.current_thread())
        reply()(handler)
        frozen.wait(10)
        handler.close_connection = True
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", reset, 0))

    authority = certificate_authority(tmp_path, "localhost")
    (tmp_path / "ca.pem").write_text(authority.certificate)
    with fake_server(answer_and_close, reply(), tls=authority.server if scheme == "https" else None) as server:
        settings = server.settings(runtime_url=f"{scheme}://localhost:{server.port}")
        client = EndpointClient(settings, {**CREDENTIALS, "AWS_CA_BUNDLE": str(tmp_path / "ca.pem")})
        classify(server, client=client)
        frozen.set()
        threads[0].join()  # nothing in the answer announced it
        assert classify(server, client=client).predictions == ANSWER["predictions"]
    assert (len(server.requests), server.connections) == (2, 2)


@pytest.mark.parametrize("head", [None, b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"])
def test_a_late_answer_ends_at_the_deadline_and_is_not_asked_for_again(head):
    with fake_server(reply()) as server:
        client = EndpointClient(server.settings(), CREDENTIALS)
        classify(server, client=client)
        server.answers[:] = [drip(server, head)]
        started = time.monotonic()
        assert isinstance(failure(server, client=client, seconds=0.4), errors.TimedOutError)
        assert time.monotonic() - started < 10  # not half a minute
        server.answers[:] = [reply()]
        classify(server, client=client)  # and the connection that timed out is not used again
    assert (len(server.requests), server.connections) == (3, 2)


@pytest.mark.parametrize(
    "body",
    [
        b"not json", b"[]", b'{"predictions": {}, "model": {}}',
        b'{"predictions": [{"label": "x", "probability": NaN}], "model": {}}',
        b'{"predictions": [], "model": {}, "scores": "all"}', b'{"predictions": [], "model": {}, "known": 1}',
        b'{"predictions": [], "model": {}, "ood_score": true}', b'{"predictions": [], "model": {}, "ood_score": -1}',
        b'{"predictions": [], "model": {}, "ood_score": 1e999}', b"[" * 100_000, b"x" * (8 * 2**20),
    ],
)  # fmt: skip
def test_an_answer_that_is_not_the_contract_is_the_models_failure(body):
    with fake_server(reply(raw=body)) as server:
        assert isinstance(failure(server), errors.ModelFailedError)


CALLER_ERROR = {"error": {"code": "image_too_large", "message": "The image has 90 megapixels; 50 are allowed."}}
LONG = {"error": {"code": "bad_request", "message": "x" * 100_000}}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (model_error(413, CALLER_ERROR), errors.ImageTooLargeError),
        (model_error(400, LONG), errors.BadRequestError),
        (model_error(400, {"error": {"code": ["bad_request"], "message": "no"}}), errors.ModelFailedError),
        (model_error(500, CALLER_ERROR), errors.ModelFailedError),
        (model_error(503, "loading"), errors.NotReadyError),
        (model_error(429, "busy"), errors.ThrottledError),
        (model_error(0, "Your invocation timed out while waiting for a response"), errors.TimedOutError),
        (model_error(0, "Amazon SageMaker could not get a response from the dogs-1 endpoint."), errors.NotReadyError),
        (model_error(502, "<html>"), errors.NotReadyError),
        (reply(424, raw=b"junk"), errors.ModelFailedError),
        (aws_error(503, "ServiceUnavailable"), errors.NotReadyError),
        (aws_error(530, "InternalDependencyException"), errors.NotReadyError),
        (aws_error(400, "ThrottlingException"), errors.ThrottledError),
        (aws_error(429, "ModelNotReadyException"), errors.NotReadyError),
        (aws_error(400, "ValidationError", "Endpoint dogs-1 of account 123456789012 not found."), errors.NotReadyError),
        (aws_error(403, "AccessDeniedException", "arn:aws:sts::123456789012:assumed-role/role"), errors.InternalError),
        (reply(400, {"__type": "com.amazonaws#ThrottlingException"}), errors.ThrottledError),
        (reply(502, raw=b"<html>"), errors.NotReadyError),
    ],
)
def test_every_answer_has_its_meaning_and_tells_nothing_of_ours(answer, expected):
    with fake_server(answer) as server:
        error = failure(server)
    assert type(error) is expected
    assert len(error.message) <= 500 and len(error.detail) < 2000
    assert expected is not errors.ImageTooLargeError or error.message == CALLER_ERROR["error"]["message"]
