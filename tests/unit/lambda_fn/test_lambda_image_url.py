"""Which URLs and addresses the function refuses: every trick that has been used to reach inside a network."""

import contextlib

import idna
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lambda_fn.errors import UrlNotAllowedError
from lambda_fn.image_url import ImageUrl, is_public_address, parse_image_url


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


@pytest.mark.parametrize(
    "text",
    [
        None, "", "dog.jpg", "//example.com/x", "https:///x", "http://example.com/", "file:///etc/passwd",
        "https://user@example.com/", "https://example.com@169.254.169.254/", "https://example.com:80/",
        "https://example.com:99999/", "https://exa mple.com/", "https://example.com/\r\nHost: other",
        "https://exam\tple.com/", "https://example.com\\@169.254.169.254/", "https://[::1", "https://[fe80::1%25eth0]/",
        "https://2130706433/", "https://0x7f000001/", "https://0x7f.0.0.1/", "https://0177.0.0.1/", "https://127.1/",
        "https://127.0.0.01/", "https://1.2.3.4.5/", "https://\uff11\uff12\uff17.0.0.1/",
        "https://127\u30020\u30020\u30021/", "https://-example.com/", "https://example..com/",
        "https://" + "a" * 64 + ".com/", "https://" + "a." * 130 + "com/", "https://" + "\u00fc" * 300 + ".com/",
        "https://example.com/" + "a" * 2048, "https://\ud800.com/", "https://example.com/\ud800",
        "data:image/png;base64,aGk=", "https://127.0.0.1\uff0e/", "https://\uff11\uff12\uff17\uff0e\uff10.0.1/", "https://a\u2024b.com/",
        "https://\u0300a.com/", "https://\u2474.com/", "https://ex\u202eample.com/", "https://a\u2100b.com/",
    ],
)  # fmt: skip
def test_everything_else_is_refused_with_a_reason(text):
    with pytest.raises(UrlNotAllowedError) as caught:
        parse_image_url(text)
    assert len(caught.value.message) > 20


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


PUBLIC = ["1.1.1.1", "100.128.0.1", "172.32.0.1", "192.0.1.1", "2606:4700::1111", "2a00:1450::1"]
# Instance metadata is at 169.254.169.254 and fd00:ec2::254, container credentials at 169.254.170.2; NAT64 (64:ff9b::),
# Teredo (2001:0:) and 6to4 (2002:) lead to IPv4 addresses.
NOT_PUBLIC = [
    "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.255.255.254", "169.254.169.254", "169.254.170.2",
    "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
    "198.51.100.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1", "100::1", "2001:10::1", "2001:db8::1", "3fff::1", "4000::1", "fd00:ec2::254", "fe80::1%eth0",
    "fec0::1", "ff02::1", "64:ff9b:1::1", "64:ff9b::a9fe:a9fe", "2001:0:a9fe:a9fe::1", "2002:a9fe:a9fe::1",
    "example.com", "127.1", "2130706433", "",
]  # fmt: skip


@pytest.mark.parametrize(("address", "public"), [*((a, True) for a in PUBLIC), *((a, False) for a in NOT_PUBLIC)])
def test_only_public_addresses_are_allowed(address, public):
    assert is_public_address(address) is public
