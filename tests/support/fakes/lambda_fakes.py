"""Real servers on the loopback interface for the function's tests: a fake endpoint and a TLS host with its own CA."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lambda_fn.config import Settings

ANSWER = {
    "predictions": [{"label": "Carolina Dog", "probability": 0.75}, {"label": "Köter", "probability": 0.25}],
    "model": {"name": "dogs", "version": "sha256:abc"},
}
JPEG = b"\xff\xd8\xff\xe0 not decoded here"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}

Send = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Received:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass
class FakeServer:
    """A server that answers what it is told to; each answer is a function of the handler, the last one repeats."""

    port: int
    answers: list[Send] = field(default_factory=list)
    requests: list[Received] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def settings(self, **changes: Any) -> Settings:
        url = f"http://127.0.0.1:{self.port}"
        environ = {"ENDPOINT_NAME": "dogs-1", "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": url}
        return replace(Settings.from_environment(environ), **changes)

    @property
    def connections(self) -> int:
        return len({request.connection for request in self.requests})


def http_event(
    body: bytes | str = JPEG, content_type: str = "image/jpeg", *, method: str = "POST", path: str = "/", **more: Any
) -> dict[str, Any]:
    """What Lambda makes of a request to the function's URL."""
    event = {"rawPath": path, "headers": {"CONTENT-Type": content_type}, "requestContext": {"http": {"method": method}}}
    text = base64.b64encode(body).decode() if isinstance(body, bytes) else body
    return {**event, "body": text, "isBase64Encoded": isinstance(body, bytes), **more}


def reply(
    status: int = 200, document: object = None, *, headers: dict[str, str] | None = None, raw: bytes | None = None
) -> Send:
    """Answer with a document (by default the model's usual answer) or with raw bytes."""
    body = raw if raw is not None else json.dumps(ANSWER if document is None else document).encode()

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def aws_error(status: int, kind: str, message: str = "no", **members: object) -> Send:
    return reply(status, {"Message": message, **members}, headers={"x-amzn-ErrorType": f"{kind}:http://internal/"})


def model_error(original_status: int, original_message: object) -> Send:
    """Answer as SageMaker Runtime does when the model's server answered with an error."""
    text = original_message if isinstance(original_message, str) else json.dumps(original_message)
    return aws_error(
        424,
        "ModelError",
        f'Received client error ({original_status}) from primary with message "{text}". See '
        "https://us-east-1.console.aws.amazon.com/cloudwatch in account 123456789012 for more information.",
        OriginalStatusCode=original_status,
        OriginalMessage=text,
        LogStreamArn="arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/Endpoints/dogs-1",
    )


def raw(*blocks: bytes) -> Send:
    """Send these bytes, whatever they mean in HTTP, and close the connection."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.wfile.write(b"".join(blocks))

    return send


def drip(server: FakeServer, head: bytes | None) -> Send:
    """Send a head, then one byte at a time, for half a minute; without a head, nothing."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.wfile.write(head or b"")
            for _ in range(600):
                if server.closing.wait(0.05):
                    break
                handler.wfile.write(b"" if head is None else b"x")
                handler.wfile.flush()

    return send


@contextlib.contextmanager
def fake_server(*answers: Send, tls: ssl.SSLContext | None = None) -> Iterator[FakeServer]:
    """Run a server that gives these answers in turn."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            fake.requests.append(Received(self.command, self.path, headers, body, self.client_address[1]))
            (fake.answers.pop(0) if len(fake.answers) > 1 else fake.answers[0])(self)

        do_GET = do_PUT = do_POST

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self) -> Any:
            connection, peer = super().get_request()
            if tls:  # the handshake happens in the connection's own thread, on its first read
                connection = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            return connection, peer

        def handle_error(self, *_: object) -> None:
            pass  # clients that give up, or do not trust us, are what is being tested

    with Server(("127.0.0.1", 0), Handler) as server:
        fake = FakeServer(server.server_address[1], list(answers))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield fake
        finally:
            fake.closing.set()
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Authority:
    """A certificate that vouches for itself, in PEM to trust and as a server's context."""

    certificate: str
    server: ssl.SSLContext

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.certificate)


def certificate_authority(folder: Path, *names: str) -> Authority:
    """Make a certificate for these host names."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(certificate.public_bytes(pem) + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return Authority(certificate.public_bytes(pem).decode(), context)
