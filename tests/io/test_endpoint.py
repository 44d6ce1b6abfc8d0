"""Where a relay is: URLs, names, and what TLS checks (spec/wire.md, "Transport")."""

import ssl

import pytest

from e2ecall.errors import LocalProtocolError
from e2ecall.io.endpoint import RelayEndpoint, tls_context

GOOD = {
    "wss://relay.example": ("relay.example", "wss://relay.example/v1"),
    "wss://relay.example:443": ("relay.example", "wss://relay.example/v1"),
    "wss://relay.example:8443": ("relay.example:8443", "wss://relay.example:8443/v1"),
    "wss://relay.example/": ("relay.example", "wss://relay.example/v1"),
    "wss://relay.example/v1": ("relay.example", "wss://relay.example/v1"),
    "ws://127.0.0.1:4567": ("127.0.0.1:4567", "ws://127.0.0.1:4567/v1"),
    "ws://localhost": ("localhost", "ws://localhost/v1"),
    "ws://[::1]:4567": ("[::1]:4567", "ws://[::1]:4567/v1"),
    "wss://127.0.0.1:80": ("127.0.0.1:80", "wss://127.0.0.1:80/v1"),
}

BAD = [
    "",
    "relay.example",
    "https://relay.example",
    "wss://",
    "wss://:443",
    "wss://relay.example:port",
    "wss://relay.example:70000",
    "wss://relay.example:0",
    "wss://relay_example",
    "ws://relay.example",
    "ws://10.0.0.1:80",
    "ws://127.0.0.1.example",
    "ws://localhost.example",
    "wss://user:secret@relay.example",
    "wss://relay.example/other/path",
    "wss://relay.example?x=1",
    "wss://relay.example#x",
]


@pytest.mark.parametrize("url", GOOD)
def test_url(url):
    """A URL gives the relay's name, without the default port, and the URL that is dialled."""
    endpoint = RelayEndpoint.parse(url)
    assert (endpoint.name, endpoint.url) == GOOD[url]


@pytest.mark.parametrize("url", BAD)
def test_bad_url(url):
    """What is no URL of a relay is refused: without TLS only this very machine is dialled."""
    with pytest.raises(LocalProtocolError):
        RelayEndpoint.parse(url)


@pytest.mark.parametrize("url", GOOD)
def test_name_leads_back(url):
    """The relay of an address is dialled with TLS, or without on this very machine."""
    endpoint = RelayEndpoint.parse(url)
    again = RelayEndpoint.of_name(endpoint.name)
    if url.startswith("wss://127"):
        assert (again.tls, again.port) == (False, 80)  # a loopback name always means without
    else:
        assert again == endpoint


def test_name_with_an_impossible_port():
    """An address whose relay has a port that cannot exist is refused when it is to be dialled."""
    with pytest.raises(LocalProtocolError, match="no valid port"):
        RelayEndpoint.of_name("relay.example:99999")


def test_tls_is_strict(tmp_path):
    """Certificates and host names are verified, and nothing older than TLS 1.3 is spoken."""
    context = tls_context(None)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    with pytest.raises(LocalProtocolError, match="cannot read CA"):
        tls_context(tmp_path / "none.pem")
