"""How URLs are read; what is refused is in tests/security/hostile_input/test_ssrf.py."""

import contextlib

import idna
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lambda_fn.errors import UrlNotAllowedError
from lambda_fn.image_url import ImageUrl, parse_image_url


@pytest.mark.parametrize(
    ("text", "host", "target"),
    [
        ("https://EXAMPLE.com:443/a?b=c#d", "example.com", "/a?b=c"),
        ("https://example.com./x", "example.com", "/x"), ("HTTPS://my_host.example.com/x", "my_host.example.com", "/x"),
        ("https://example.com/caf\u00e9/%C3%A9?q=\u00fc", "example.com", "/caf%C3%A9/%C3%A9?q=%C3%BC"),
        ("https://b\u00fccher.example/x", "xn--bcher-kva.example", "/x"),
        ("https://fa\u00df.de/x", "xn--fa-hia.de", "/x"), ("https://FA\u1e9e.de:443/", "xn--fa-hia.de", "/"),
        ("https://fa\u00df.de:/", "xn--fa-hia.de", "/"),
        ("https://\u039d\u038a\u039a\u039f\u03a3.gr/", "xn--kxawhku.gr", "/"),
        ("https://\u2615\ufe0f.ws/", "xn--53h.ws", "/"), ("https://exa\u00admple\u3002com/", "example.com", "/"),
        (" https://example.com/a dog.jpg?q=a b|c[0]\n", "example.com", "/a%20dog.jpg?q=a%20b|c[0]"),
        ("https://example.com/\u200d\u00a0?\ufeff", "example.com", "/%E2%80%8D%C2%A0?%EF%BB%BF"),
        ("https://93.184.215.14/x", "93.184.215.14", "/x"),
        ("https://[2606:4700::1111]/x", "2606:4700::1111", "/x"),
    ],
)  # fmt: skip
def test_ordinary_urls_are_read(text, host, target):
    assert parse_image_url(text) == ImageUrl(host, target)


LETTERS = st.characters(min_codepoint=0x80, exclude_categories=["Cn", "Co", "Cs"]) | st.sampled_from(
    "aZ\u00df\u03c2\u03a3\u1e9e.\u3002"
)


@given(st.text(LETTERS, min_size=1, max_size=6))
def test_an_international_name_is_that_of_uts_46_or_refused(name):
    try:
        host = parse_image_url(f"https://{name}.de/").host
    except UrlNotAllowedError:
        return
    with contextlib.suppress(idna.IDNAError):  # disallowed: nobody's
        labels = idna.uts46_remap(f"{name}.de", std3_rules=False, transitional=False).split(".")
        assert host == ".".join(x if x.isascii() else "xn--" + x.encode("punycode").decode() for x in labels)


@given(st.text() | st.text().map("https://".__add__))
@example("https://\u2100.com/")  # normalises to a/c: urlsplit raises
def test_no_text_escapes_the_check(text):
    try:
        url = parse_image_url(text)
    except UrlNotAllowedError:
        return
    assert url.host.isascii() and url.target.isascii()
    assert url.target.startswith("/")
    assert not set(" \r\n\t\\@") & set(url.host)
    assert not set(" \r\n\t\\#") & set(url.target)
