"""Which URLs the function fetches, and which addresses it connects to.

A service that fetches what it is told to can be told to look behind the firewall: at metadata services, at the loopback
interface, at neighbours. So only https on its own port, only to public addresses, judged by the addresses themselves
and never by how a URL spells them.
"""

from __future__ import annotations

import contextlib
import re
import string
import unicodedata
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import quote, urljoin, urlsplit

from .errors import UrlNotAllowedError

MAX_URL_LENGTH = 2048

# What IANA's registries call special-purpose, and multicast and reserved space. Written out because what `ipaddress`
# calls global has changed between Python versions and never meant "safe to connect to".
_NOT_PUBLIC: tuple[IPv4Network | IPv6Network, ...] = (
    IPv4Network("0.0.0.0/8"),  # this network
    IPv4Network("10.0.0.0/8"),  # private
    IPv4Network("100.64.0.0/10"),  # carrier-grade NAT
    IPv4Network("127.0.0.0/8"),  # loopback
    IPv4Network("168.63.129.16/32"),  # Azure's host, on every virtual machine there
    IPv4Network("169.254.0.0/16"),  # link-local, where the metadata services live
    IPv4Network("172.16.0.0/12"),  # private
    IPv4Network("192.0.0.0/24"),  # protocol assignments
    IPv4Network("192.0.2.0/24"),  # documentation
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
    IPv4Network("192.168.0.0/16"),  # private
    IPv4Network("198.18.0.0/15"),  # benchmarking
    IPv4Network("198.51.100.0/24"),  # documentation
    IPv4Network("203.0.113.0/24"),  # documentation
    IPv4Network("224.0.0.0/3"),  # multicast, reserved, broadcast
    IPv6Network("2001::/23"),  # protocol assignments, Teredo with an IPv4 address inside
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4, with an IPv4 address inside
    IPv6Network("3fff::/20"),  # documentation
)
# All public IPv6 addresses begin with the bits 001. Outside lie loopback, IPv4-mapped, NAT64, unique-local, link-local
# and multicast addresses.
_GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# What looks like a number to a resolver, which may read 0x7f.1 and 2130706433 as IPv4 addresses.
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
_PATH_CHARACTERS = "/%:@!$&'()*+,;=~[]|"
_SPACES = " \t\r\n"
# What parsers disagree on: urlsplit drops tabs and line breaks, and browsers read a backslash as a slash.
_AMBIGUOUS = re.compile(r"[\x00-\x1f\x7f\\]")
# Letters of their own, which `casefold` and IDNA 2003 replace; the joiners are none of the other invisible characters.
_DEVIATIONS = "\u00df\u03c2\u200c\u200d"
_IGNORED = re.compile(
    "[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2060\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0100-\U000e01ef]"
)
_DOTS = re.compile("[.\u3002\uff0e\uff61]")
_HOW = 'Give a public address such as "https://example.com/dog.jpg".'


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """A URL that may be fetched, if its host's addresses are public.

    `host` is in lower case and ASCII, without the brackets of IPv6; `target` is the percent-encoded path and query.
    """

    host: str
    target: str

    def join(self, location: str) -> ImageUrl:
        """Return where a redirect from here leads; raise UrlNotAllowedError when that is not fetched.

        `location` is the header as ``http.client`` gives it, in Latin-1, whatever the server's bytes are.
        """
        sent = location.encode("latin-1")
        try:
            location = sent.decode()
        except UnicodeDecodeError:
            location = quote(sent, safe=string.punctuation)
        try:
            _refuse_ambiguous(location.strip(_SPACES))  # before `urljoin` drops what is
            return parse_image_url(urljoin(f"https://{self.host_header}{self.target}", location))
        except (ValueError, UrlNotAllowedError) as error:
            raise UrlNotAllowedError(f"The URL redirects to one that is not fetched. {error}") from None

    @property
    def host_header(self) -> str:
        """The host as HTTP's ``Host`` header has it."""
        return f"[{self.host}]" if ":" in self.host else self.host


def parse_image_url(text: object) -> ImageUrl:
    """Check a URL's form; an UrlNotAllowedError says which rule it breaks."""
    if not isinstance(text, str):
        raise UrlNotAllowedError(f'"url" must be a string. {_HOW}')
    if text.startswith("data:"):
        raise UrlNotAllowedError(
            'A data URL is not fetched. Send the base64 behind its comma as "image" in place of "url".'
        )
    if len(text) > MAX_URL_LENGTH:
        raise UrlNotAllowedError(f"The URL has {len(text)} characters; at most {MAX_URL_LENGTH} are allowed.")
    text = text.strip(_SPACES)
    _refuse_ambiguous(text)
    try:
        url = urlsplit(text)
        # `hostname` is in lower case by rules of its own.
        host, port = url.hostname if url.netloc.isascii() else url.netloc.partition(":")[0], url.port
        # What is percent-encoded already stays as it is; the fragment is the browser's business.
        target = quote(url.path or "/", safe=_PATH_CHARACTERS)
        if url.query:
            target += "?" + quote(url.query, safe=_PATH_CHARACTERS + "?")
    except ValueError:
        raise UrlNotAllowedError(f"The URL is malformed. {_HOW}") from None
    if url.scheme != "https":
        raise UrlNotAllowedError(f"Only https URLs are fetched. {_HOW}")
    if "@" in url.netloc:
        raise UrlNotAllowedError("A URL with a user name or password is not fetched.")
    if port not in (None, 443):
        raise UrlNotAllowedError(f"Only port 443 is fetched from, not {port}.")
    if not host:
        raise UrlNotAllowedError(f"The URL names no host. {_HOW}")
    if "[" in url.netloc and ":" not in host:  # [v1.a], an address of the future, is no name
        raise UrlNotAllowedError(f"The URL's host is malformed. {_HOW}")
    return ImageUrl(_ascii_host(host), target)


def is_public_address(address: str) -> bool:
    """Tell whether an IP address, in any of its forms, is one of the public Internet."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and parsed not in _GLOBAL_UNICAST_V6:
        return False
    return not any(parsed in network for network in _NOT_PUBLIC)


def _refuse_ambiguous(text: str) -> None:
    if _AMBIGUOUS.search(text):
        raise UrlNotAllowedError("The URL holds a backslash, a tab, a line break or another control character.")


def _ascii_host(host: str) -> str:
    """Return a host's one spelling; refuse those that only some parsers read as an address."""
    if "%" not in host:  # a zone (fe80::1%eth0) names one of our own interfaces
        with contextlib.suppress(ValueError):
            return str(ip_address(host))
    name = (host if host.isascii() else _international(host)).lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UrlNotAllowedError(f"The URL's host is malformed. {_HOW}")
    if _NUMBER.fullmatch(labels[-1]):
        raise UrlNotAllowedError("The URL's host is a number; write an address as four decimal numbers.")
    return name


def _international(host: str) -> str:
    """Return a name as browsers and curl look it up, by UTS 46 without its transition; "" where that refuses it.

    The standard library's ``idna`` is IDNA 2003, which leads to another owner's host: to fass.de from fa\u00df.de.
    """

    labels = [_folded(_folded(_IGNORED.sub("", label))) for label in _DOTS.split(host)]
    for label in labels:
        kinds = [unicodedata.category(c)[0] for c in label if c not in _DEVIATIONS]
        # A mark without its letter, control characters, spaces, or a dot that is part of another character.
        if kinds[:1] == ["M"] or {"C", "Z"} & {*kinds} or "." in label:
            return ""
    return ".".join(label if label.isascii() else "xn--" + label.encode("punycode").decode() for label in labels)


def _folded(label: str) -> str:
    label = label.replace("\u1e9e", "\u00df")  # the capital of that letter
    lower = (c if c in _DEVIATIONS else unicodedata.normalize("NFKC", c).casefold() for c in label)
    return unicodedata.normalize("NFKC", "".join(lower))
