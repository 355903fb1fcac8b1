"""The endpoint client against a server with real sockets: connections, deadlines, and the meaning of every answer."""

import json
import socket
import time

import botocore.session
import pytest
from lambda_fakes import (
    ANSWER,
    CREDENTIALS,
    aws_error,
    certificate_authority,
    drip,
    drop,
    fake_server,
    hang,
    model_error,
    reply,
)

from lambda_fn import errors
from lambda_fn.connection import Deadline
from lambda_fn.endpoint import EndpointClient, error_of
from model.serving.request import Options, parse

SECRETS = ("arn:", "123456789012", "dogs-1", "127.0.0.1", "/aws/", "amazonaws", "role")


def classify(server, *, seconds=5.0, client=None, **options):
    client = client or EndpointClient(server.settings(), CREDENTIALS)
    return client.classify(b"image", **{"top_k": 5, "scores": False, "deadline": Deadline(seconds), **options})


def failure(server, **options):
    with pytest.raises(errors.ServiceError) as caught:
        classify(server, **options)
    return caught.value


def test_the_request_is_invoke_endpoint():
    with fake_server(reply()) as server:
        result = classify(server, top_k=3, scores=True)
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/endpoints/dogs-1/invocations")
    assert request.body == b"image"
    assert request.headers["content-type"] == "application/x-image; top_k=3; scores=true"
    understood = parse(request.body, request.headers["content-type"], request.headers["accept"], max_images=1)
    assert (understood.images, understood.options) == ((b"image",), Options(top_k=3, scores=True))
    assert request.headers["x-amz-security-token"] == "token"
    assert (
        "AKIDEXAMPLE/" in request.headers["authorization"]
        and "/us-east-1/sagemaker/" in request.headers["authorization"]
    )
    assert (result.predictions, result.model, result.scores) == (ANSWER["predictions"], ANSWER["model"], None)


def test_scores_pass_through_with_full_precision():
    scores = [0.1, 1 / 3, 1e-30]
    with fake_server(reply(document={**ANSWER, "scores": scores})) as server:
        assert classify(server, scores=True).scores == scores


def test_one_connection_serves_many_requests_and_errors():
    with fake_server(aws_error(429, "ThrottlingException"), model_error(500, "boom"), reply()) as server:
        client = EndpointClient(server.settings(), CREDENTIALS)
        for _ in range(2):
            failure(server, client=client)
        for _ in range(3):
            classify(server, client=client)
    assert (len(server.requests), server.connections) == (5, 1)


def test_credentials_are_read_for_each_request():
    environ = dict(CREDENTIALS)
    with fake_server(reply()) as server:
        client = EndpointClient(server.settings(), environ)
        classify(server, client=client)
        environ["AWS_ACCESS_KEY_ID"] = "ROTATED"
        classify(server, client=client)
    assert "ROTATED/" in server.requests[1].headers["authorization"]


def test_a_kept_connection_that_was_closed_meanwhile_is_replaced_and_the_request_repeated_once():
    with fake_server(reply(), drop, reply()) as server:
        client = EndpointClient(server.settings(), CREDENTIALS)
        classify(server, client=client)
        classify(server, client=client)
    assert (len(server.requests), server.connections) == (3, 2)


def test_a_fresh_connection_that_breaks_is_not_tried_again():
    with fake_server(drop) as server:
        assert isinstance(failure(server), errors.NotReadyError)
    assert len(server.requests) == 1


def test_an_idle_connection_is_not_trusted(monkeypatch):
    with fake_server(reply()) as server:
        client = EndpointClient(server.settings(), CREDENTIALS)
        classify(server, client=client)
        later = time.time() + 60
        monkeypatch.setattr("lambda_fn.endpoint.time.time", lambda: later)
        classify(server, client=client)
    assert server.connections == 2


def test_nobody_listening_means_not_ready():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, never listening: connections are refused
        port = unused.getsockname()[1]
        with fake_server(reply()) as server:
            client = EndpointClient(server.settings(runtime_url=f"http://127.0.0.1:{port}"), CREDENTIALS)
            error = failure(server, client=client)
    assert isinstance(error, errors.NotReadyError)
    assert str(port) not in error.message


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"]
)
def test_a_dripping_answer_ends_at_the_deadline(head):
    with fake_server(reply()) as server:
        server.answers[:] = [drip(server, head)]
        started = time.monotonic()
        error = failure(server, seconds=0.4)
        assert time.monotonic() - started < 2
    assert isinstance(error, errors.TimedOutError)


def test_a_read_timeout_is_never_repeated():
    with fake_server(reply()) as server:
        client = EndpointClient(server.settings(), CREDENTIALS)
        classify(server, client=client)
        server.answers[:] = [hang(server)]
        assert isinstance(failure(server, client=client, seconds=0.3), errors.TimedOutError)
        assert len(server.requests) == 2
        server.answers[:] = [reply()]
        classify(server, client=client)  # and the connection that timed out is not used again
    assert server.connections == 2


def test_the_limit_on_connecting_is_none_on_reading(monkeypatch):
    monkeypatch.setattr("lambda_fn.endpoint._CONNECT_SECONDS", 0.2)

    def slow(handler):
        server.closing.wait(0.4)
        reply()(handler)

    with fake_server(slow) as server:
        assert classify(server).predictions == ANSWER["predictions"]


def test_no_time_left_means_timed_out_without_a_request():
    with fake_server(reply()) as server:
        assert isinstance(failure(server, seconds=-1), errors.TimedOutError)
    assert not server.requests


def test_missing_credentials_are_our_fault():
    with fake_server(reply()) as server:
        error = failure(server, client=EndpointClient(server.settings(), {}))
    assert isinstance(error, errors.InternalError)
    assert "credentials" in error.detail and "credentials" not in error.message


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"not json", b"[]", b"null", b'{"predictions": []}', b'{"predictions": {}, "model": {}}',
        b'{"predictions": [{"label": "x", "probability": NaN}], "model": {}}',
        b'{"predictions": [], "model": {}, "scores": "all"}', b"[" * 100_000, b"\xff\xfe",
    ],
)  # fmt: skip
def test_an_answer_that_is_not_the_contract_is_the_models_failure(raw):
    with fake_server(reply(raw=raw)) as server:
        assert isinstance(failure(server), errors.ModelFailedError)


def test_an_endless_answer_is_cut_off():
    def endless(handler):
        handler.close_connection = True
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 65536)
        except OSError:
            pass

    with fake_server(endless) as server:
        assert isinstance(failure(server), errors.ModelFailedError)


CALLER_ERROR = {"error": {"code": "image_too_large", "message": "The picture has 90 megapixels; 50 are allowed."}}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (model_error(413, CALLER_ERROR), errors.ImageTooLargeError),
        (model_error(415, {"error": {"code": "unsupported_image", "message": "no"}}), errors.UnsupportedImageError),
        (model_error(400, {"error": {"code": "bad_request", "message": "no"}}), errors.BadRequestError),
        (model_error(400, {"error": {"code": "made_up", "message": "no"}}), errors.ModelFailedError),
        (model_error(400, {"error": {"code": ["bad_request"], "message": "no"}}), errors.ModelFailedError),
        (model_error(415, {"error": {"code": "unsupported_image", "message": 5}}), errors.ModelFailedError),
        (model_error(415, "<html>"), errors.ModelFailedError),
        (model_error(404, CALLER_ERROR), errors.ModelFailedError),
        (model_error(500, CALLER_ERROR), errors.ModelFailedError),
        (model_error(503, "loading"), errors.NotReadyError),
        (model_error(429, "busy"), errors.ThrottledError),
        (model_error(0, "Your invocation timed out while waiting for a response"), errors.TimedOutError),
        (model_error(504, "gateway"), errors.TimedOutError),
        (reply(424, raw=b"junk"), errors.ModelFailedError),
        (aws_error(429, "ThrottlingException"), errors.ThrottledError),
        (aws_error(400, "ThrottlingException"), errors.ThrottledError),
        (aws_error(429, "ModelNotReadyException"), errors.NotReadyError),
        (aws_error(503, "ServiceUnavailable"), errors.NotReadyError),
        (aws_error(500, "InternalFailure"), errors.NotReadyError),
        (aws_error(530, "InternalDependencyException"), errors.NotReadyError),
        (aws_error(400, "ValidationError", "Endpoint dogs-1 of account 123456789012 not found."), errors.NotReadyError),
        (aws_error(400, "ValidationError", "Inference Component has no capacity"), errors.NotReadyError),
        (aws_error(403, "AccessDeniedException", "arn:aws:sts::123456789012:assumed-role/role"), errors.InternalError),
        (aws_error(403, "ExpiredTokenException"), errors.InternalError),
        (reply(400, {"__type": "com.amazonaws#ThrottlingException"}), errors.ThrottledError),
        (reply(400, {"code": "ValidationException"}), errors.NotReadyError),
        (reply(404, raw=b"<html>"), errors.InternalError),
        (reply(502, raw=b"<html>"), errors.NotReadyError),
    ],
)
def test_every_answer_has_its_meaning_and_tells_nothing_of_ours(answer, expected):
    with fake_server(answer) as server:
        error = failure(server)
    assert type(error) is expected
    assert error.detail, "the operator needs to know what AWS said"
    assert not [secret for secret in SECRETS if secret in error.message]


def test_the_models_own_words_reach_the_caller_but_not_without_end():
    with fake_server(model_error(413, CALLER_ERROR)) as server:
        assert failure(server).message == CALLER_ERROR["error"]["message"]
    long = {"error": {"code": "bad_request", "message": "x" * 100_000}}
    with fake_server(model_error(400, long)) as server:
        error = failure(server)
    assert len(error.message) <= 500 and len(error.detail) < 2000


def test_https_trusts_the_configured_authority_and_no_other(tmp_path):
    authority = certificate_authority(tmp_path, "localhost", "127.0.0.1")
    with fake_server(reply(), tls=authority.server) as server:
        settings = server.settings(runtime_url=f"https://127.0.0.1:{server.port}")
        trusting = EndpointClient(settings, {**CREDENTIALS, "AWS_CA_BUNDLE": str(authority.ca_file)})
        for _ in range(2):
            assert classify(server, client=trusting).predictions == ANSWER["predictions"]
        assert server.connections == 1
        error = failure(server, client=EndpointClient(settings, CREDENTIALS))
    assert isinstance(error, errors.NotReadyError) and "CERTIFICATE_VERIFY_FAILED" in error.detail
    assert len(server.requests) == 2


def test_a_base_url_with_a_path_is_honoured():
    with fake_server(reply()) as server:
        settings = server.settings(runtime_url=f"http://127.0.0.1:{server.port}/aws")
        classify(server, client=EndpointClient(settings, CREDENTIALS))
    assert server.requests[0].path == "/aws/endpoints/dogs-1/invocations"


def test_the_table_covers_every_error_that_the_service_model_names():
    operation = botocore.session.get_session().get_service_model("sagemaker-runtime").operation_model("InvokeEndpoint")
    for shape in operation.error_shapes:
        error = error_of(
            shape.metadata["error"]["httpStatusCode"], {"x-amzn-errortype": shape.name}, json.dumps({}).encode()
        )
        assert not isinstance(error, errors.InternalError), shape.name
