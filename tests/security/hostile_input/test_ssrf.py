"""Every trick that has been used to reach inside a network by a URL: each is refused before a connection is made."""

from __future__ import annotations

import socket
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lambda_fakes import Send, certificate_authority, fake_server, raw

from lambda_fn.connection import Deadline
from lambda_fn.errors import ServiceError, UrlNotAllowedError
from lambda_fn.fetching import ImageFetcher
from lambda_fn.image_url import is_public_address, parse_image_url

PUBLIC = "93.184.215.14"
TABLE: dict[str, Any] = tomllib.loads(Path(__file__).with_name("ssrf.toml").read_text(encoding="utf-8"))
FORMS: list[str] = [
    *TABLE["urls"],
    *(f"https://[{address}]/" if ":" in address else f"https://{address}/latest/" for address in TABLE["addresses"]),
    *(f"https://{name}/" for name in TABLE["names"]),
    *("https://\ud800.com/", "https://example.com/\ud800", "https://example.com/" + "a" * 2048),
    *(f"https://{label}.com/" for label in ("a." * 130, "\u00fc" * 300)),
]
NOT_TEXT = [None, 7, True, ["https://example.com/"], {"https": "example.com"}]


class Network:
    """The function's own rules and port; all names but those of the table are one public server."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.names = {name: [addresses] for name, addresses in TABLE["names"].items()}
        self.dialled: list[tuple[str, int]] = []
        self.authority = certificate_authority(folder, "dogs.example", "rebinding.example")
        self.fetcher = ImageFetcher(1000, 5, resolver=self.resolve, tls=self.authority.client())
        self.port = 0
        self._connect = socket.create_connection
        patch.setattr("lambda_fn.connection.socket.create_connection", self.connect)

    def resolve(self, host: str, _: Deadline) -> list[str]:
        answers = self.names.get(host)
        if answers:
            return answers.pop(0) if len(answers) > 1 else answers[0]
        try:
            return [str(found[4][0]) for found in socket.getaddrinfo(host, 443, flags=socket.AI_NUMERICHOST)]
        except OSError:
            return [PUBLIC]

    def connect(self, address: tuple[str, int], timeout: float) -> socket.socket:
        self.dialled.append(address)
        return self._connect(("127.0.0.1", self.port), timeout)

    def fetch(self, url: object) -> bytes:
        return self.fetcher.fetch(parse_image_url(url), Deadline(20))


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Network:
    return Network(monkeypatch, tmp_path)


def redirect(location: bytes) -> Send:
    return raw(b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\n\r\n")


def test_no_form_is_connected_to(network: Network, record_property: Callable[[str, object], None]) -> None:
    said = {}
    for form in [*FORMS, *NOT_TEXT]:
        with pytest.raises(UrlNotAllowedError) as caught:
            network.fetch(form)
        assert not network.dialled, form
        said[str(form)] = caught.value.message
        assert len(caught.value.message) > 20
    # Or a caller could find out which names exist in our network.
    assert len({said["https://127.0.0.1/latest/"], *(said[f"https://{name}/"] for name in TABLE["names"])}) == 1
    record_property("SSRF: forms of a URL refused before a connection", len({*FORMS}))


def test_no_form_is_followed(network: Network, record_property: Callable[[str, object], None]) -> None:
    """Two redirects away from a public host; of a few, such as `https:x`, the rest is a path there."""
    refused = 0
    with fake_server(raw(), tls=network.authority.server) as server:
        network.port = server.port
        for form in FORMS:
            location = form.encode(errors="surrogatepass")
            if b"\n" in location:
                continue  # it would end the header
            del network.dialled[:], server.requests[:]
            server.answers[:] = [redirect(b"/hop"), redirect(location)]
            with pytest.raises(ServiceError) as caught:
                network.fetch("https://dogs.example/")
            refused += isinstance(caught.value, UrlNotAllowedError)
            assert {*network.dialled} == {(PUBLIC, 443)}, form
            assert {request.headers["host"] for request in server.requests} == {"dogs.example"}
    assert refused > 0.9 * len(FORMS)
    record_property("SSRF: forms refused at the end of two redirects", refused)


def test_a_name_that_changes_its_mind_gains_nothing(network: Network) -> None:
    """DNS rebinding: the connection goes to the address that was checked, and each redirect is checked again."""
    network.names["rebinding.example"] = [[PUBLIC], ["127.0.0.1"]]
    with fake_server(redirect(b"/again"), tls=network.authority.server) as server:
        network.port = server.port
        with pytest.raises(UrlNotAllowedError):
            network.fetch("https://rebinding.example/")
    assert network.dialled == [(PUBLIC, 443)]


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "100.128.0.1", "172.32.0.1", "192.0.1.1", "2606:4700::1111", "2a00:1450::1"]
)
def test_neighbours_of_the_ranges_are_public(address: str) -> None:
    assert is_public_address(address)
