import ipaddress
from contextlib import nullcontext

import pytest

from queue_middleware.errors import InvalidWebhook, OutboundRefused, SettingsError
from queue_middleware.outbound.guard import Guard, parse_url

GOOD, BAD = True, False

URLS = [
    # public ones pass
    (GOOD, "https://example.com"),
    (GOOD, "https://example.com/hook?a=b&c=%20#part"),
    (GOOD, "HTTPS://EXAMPLE.COM:8443/"),
    (GOOD, "https://example.com./"),
    (GOOD, "https://bücher.example/ä"),
    (GOOD, "https://my_host.example.com/"),
    (GOOD, "https://user.example.com/@name"),
    (GOOD, "https://10.example.com/"),
    (GOOD, "https://1.1.1.1/"),
    (GOOD, "https://[2606:4700:4700::1111]/"),
    (GOOD, "https://172.15.255.255/"),
    (GOOD, "https://172.32.0.0/"),
    (GOOD, "https://100.63.255.255/"),
    (GOOD, "https://100.128.0.0/"),
    (GOOD, "https://223.255.255.255/"),
    # schemes
    (BAD, "http://example.com/"),
    (BAD, "ftp://example.com/"),
    (BAD, "file:///etc/passwd"),
    (BAD, "gopher://example.com/"),
    (BAD, "http+unix://%2fvar%2frun%2fdocker.sock/"),
    (BAD, "unix:///var/run/docker.sock"),
    (BAD, "javascript:alert(1)"),
    (BAD, "//example.com/"),
    (BAD, "example.com/hook"),
    (BAD, "/hook"),
    (BAD, ""),
    # shape
    (BAD, "https:///hook"),
    (BAD, "https:example.com"),
    (BAD, "https://"),
    (BAD, "https://:443/"),
    (BAD, "https://?a=b"),
    (BAD, "https://example..com/"),
    (BAD, "https://.example.com/"),
    (BAD, "https://exa%6dple.com/"),
    (BAD, "https://example.com:0/"),
    (BAD, "https://example.com:65536/"),
    (BAD, "https://example.com:80a/"),
    (BAD, "https://example.com:-1/"),
    (BAD, " https://example.com/"),
    (GOOD, "https://example.com/a b"),
    (BAD, "https://exa mple.com/"),
    (BAD, "https://example.com/\r\nX-A: b"),
    (BAD, "https://example.com/\x00"),
    (BAD, "https://example.com\\@127.0.0.1/"),
    (BAD, "https://example.com/" + "a" * 2030),
    # user info
    (BAD, "https://user@example.com/"),
    (BAD, "https://user:password@example.com/"),
    (BAD, "https://@example.com/"),
    (BAD, "https://example.com@127.0.0.1/"),
    (BAD, "https://127.0.0.1#@example.com/"),
    # local names
    (BAD, "https://localhost/"),
    (BAD, "https://LOCALHOST:8000/"),
    (BAD, "https://localhost./"),
    (BAD, "https://a.localhost/"),
    (BAD, "https://localhost.localdomain/"),
    (BAD, "https://printer.local/"),
    (BAD, "https://metadata.google.internal/"),
    (BAD, "https://router.home.arpa/"),
    (BAD, "https://redis/"),
    # IPv4
    (BAD, "https://0.0.0.0/"),
    (BAD, "https://0.1.2.3/"),
    (BAD, "https://10.0.0.1/"),
    (BAD, "https://100.64.0.1/"),
    (BAD, "https://100.100.100.200/"),
    (BAD, "https://127.0.0.1/"),
    (BAD, "https://127.255.255.254./"),
    (BAD, "https://168.63.129.16/"),
    (BAD, "https://169.254.169.254/latest/meta-data"),
    (BAD, "https://172.16.0.1/"),
    (BAD, "https://172.31.255.255/"),
    (BAD, "https://192.0.0.192/"),
    (BAD, "https://192.0.2.1/"),
    (BAD, "https://192.88.99.1/"),
    (BAD, "https://192.168.1.1/"),
    (BAD, "https://198.18.0.1/"),
    (BAD, "https://198.19.255.255/"),
    (BAD, "https://198.51.100.1/"),
    (BAD, "https://203.0.113.1/"),
    (BAD, "https://224.0.0.1/"),
    (BAD, "https://239.255.255.250/"),
    (BAD, "https://240.0.0.1/"),
    (BAD, "https://255.255.255.255/"),
    # IPv4 in other spellings
    (BAD, "https://2130706433/"),
    (BAD, "https://0x7f000001/"),
    (BAD, "https://0X7F.0.0.1/"),
    (BAD, "https://017700000001/"),
    (BAD, "https://0177.0.0.1/"),
    (BAD, "https://127.1/"),
    (BAD, "https://127.0.1/"),
    (BAD, "https://127.0.0.0x1/"),
    (BAD, "https://1.1.1.1.1/"),
    (BAD, "https://256.256.256.256/"),
    (BAD, "https://0x/"),
    (BAD, "https://①②⑦.⓪.⓪.①/"),
    (BAD, "https://１２７.0.0.1/"),  # noqa: RUF001
    (BAD, "https://127。0。0。1/"),
    # IPv6
    (BAD, "https://[::]/"),
    (BAD, "https://[::1]/"),
    (BAD, "https://[0:0:0:0:0:0:0:1]/"),
    (BAD, "https://[::127.0.0.1]/"),
    (BAD, "https://[::8.8.8.8]/"),
    (BAD, "https://[::ffff:127.0.0.1]/"),
    (BAD, "https://[::ffff:7f00:1]/"),
    (BAD, "https://[::ffff:8.8.8.8]/"),
    (BAD, "https://[::ffff:0:127.0.0.1]/"),
    (BAD, "https://[64:ff9b::7f00:1]/"),
    (BAD, "https://[64:ff9b::808:808]/"),
    (BAD, "https://[64:ff9b:1::7f00:1]/"),
    (BAD, "https://[100::1]/"),
    (BAD, "https://[2001::1]/"),
    (BAD, "https://[2001:10::1]/"),
    (BAD, "https://[2001:20::1]/"),
    (BAD, "https://[2001:2::1]/"),
    (BAD, "https://[2001:db8::1]/"),
    (BAD, "https://[2002:7f00:1::]/"),
    (BAD, "https://[3fff::1]/"),
    (BAD, "https://[4000::1]/"),
    (BAD, "https://[5f00::1]/"),
    (BAD, "https://[fc00::1]/"),
    (BAD, "https://[fd00:ec2::254]/"),
    (BAD, "https://[fe80::1]/"),
    (BAD, "https://[fe80::1%25eth0]/"),
    (BAD, "https://[fe80::1%eth0]/"),
    (BAD, "https://[2606:4700:4700::1111%25eth0]/"),
    (BAD, "https://[fec0::1]/"),
    (BAD, "https://[ff02::1]/"),
    (BAD, "https://[::1/"),
    (BAD, "https://[v1.fe80]/"),
]


@pytest.mark.parametrize(("good", "url"), URLS)
def test_urls(good, url):
    with nullcontext() if good else pytest.raises(InvalidWebhook, match="the webhook URL "):
        Guard().check_url(url)


@pytest.mark.parametrize(
    ("url", "value"),
    [
        ("http://localhost:9000/hook", "localhost"),
        ("https://redis/", "redis"),
        ("https://192.168.1.1/", "192.168.1.1"),
        ("http://[::1]:8000/", "::1"),
        ("http://hooks.example.com/", "hooks.example.com"),
    ],
)
def test_a_refusal_names_the_option_and_the_value_that_lifts_it(url, value):
    with pytest.raises(InvalidWebhook) as refusal:
        Guard().check_url(url)
    assert f'outbound_allow="{value}" (QUEUE_OUTBOUND_ALLOW={value})' in refusal.value.detail
    Guard([value]).check_url(url)


def test_a_refusal_of_an_address_names_the_host_and_never_the_address():
    with pytest.raises(OutboundRefused) as refusal:
        Guard().check_address("Inside.example.com.", "10.1.2.3")
    assert 'outbound_allow="inside.example.com"' in refusal.value.detail
    assert "10.1.2.3" not in refusal.value.detail
    Guard(["inside.example.com"]).check_address("Inside.example.com.", "10.1.2.3")


ALLOWED = [
    (GOOD, ["127.0.0.1"], "http://127.0.0.1:9000/hook"),
    (GOOD, ["127.0.0.1"], "https://127.0.0.1/"),
    (BAD, ["127.0.0.1"], "http://127.0.0.2/"),
    (BAD, ["127.0.0.1"], "http://localhost/"),
    (BAD, ["127.0.0.1"], "http://[::ffff:127.0.0.1]/"),
    (BAD, ["127.0.0.1"], "http://2130706433/"),
    (BAD, ["127.0.0.1"], "http://user@127.0.0.1/"),
    (BAD, ["127.0.0.1"], "ftp://127.0.0.1/"),
    (BAD, ["127.0.0.1"], "http://127.0.0.1.example.com/"),
    (GOOD, ["localhost"], "http://LOCALHOST:9000"),
    (GOOD, ["LocalHost"], "http://localhost./"),
    (BAD, ["localhost"], "http://a.localhost/"),
    (GOOD, ["*.localhost"], "http://a.localhost/"),
    (GOOD, ["*.localhost"], "http://a.b.localhost/"),
    (BAD, ["*.localhost"], "http://localhost/"),
    (BAD, ["*.example.com"], "http://badexample.com/"),
    (GOOD, ["receiver"], "http://receiver:9000/"),
    (GOOD, ["10.0.0.0/8", "fd00::/8"], "http://10.1.2.3/"),
    (GOOD, ["10.0.0.0/8", "fd00::/8"], "http://[fd00::1]:8000/"),
    (BAD, ["10.0.0.0/8"], "http://11.1.2.3/"),
    (GOOD, ["10.0.0.0/8"], "https://11.1.2.3/"),
    (GOOD, ["::1"], "http://[::1]/"),
    (GOOD, ["[::1]"], "http://[::1]/"),
]


@pytest.mark.parametrize(("good", "allow", "url"), ALLOWED)
def test_allowed_urls(good, allow, url):
    with nullcontext() if good else pytest.raises(InvalidWebhook):
        Guard(allow).check_url(url)


@pytest.mark.parametrize(
    ("good", "allow", "host", "address"),
    [
        (GOOD, [], "example.com", "93.184.215.14"),
        (GOOD, [], "example.com", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"),
        (BAD, [], "example.com", "127.0.0.1"),
        (BAD, [], "example.com", "::ffff:93.184.215.14"),
        (BAD, [], "example.com", "fe80::1%2"),
        (BAD, [], "example.com", "2606:4700:4700::1111%2"),
        (GOOD, ["127.0.0.1"], "example.com", "127.0.0.1"),
        (GOOD, ["example.com"], "example.com", "10.0.0.1"),
        (GOOD, ["example.com"], "EXAMPLE.com.", "10.0.0.1"),
        (GOOD, ["*.example.com"], "a.example.com", "fd00::1"),
        (BAD, ["*.example.com"], "example.org", "10.0.0.1"),
    ],
)
def test_addresses(good, allow, host, address):
    with nullcontext() if good else pytest.raises(OutboundRefused):
        Guard(allow).check_address(host, address)


def test_a_refusal_does_not_contain_the_address():
    with pytest.raises(OutboundRefused) as caught:
        Guard().check_address("example.com", "10.1.2.3")
    assert "10.1.2.3" not in caught.value.detail


@pytest.mark.parametrize("network", ["2000::/3", "::/0", "0.0.0.0/0"])
def test_no_special_network_is_public(network):
    """Whatever Python's own tables call private, reserved, link-local or multicast, the guard refuses too."""
    guard = Guard()
    for address in _edges(ipaddress.ip_network(network)):
        if address.is_global:
            continue
        if address.is_private or address.is_reserved or address.is_multicast or address.is_link_local:
            with pytest.raises(OutboundRefused):
                guard.check_address("example.com", str(address))


def _edges(network):
    """The first address of every /16 (IPv4) or of every 16th part of a /16 (IPv6) in it."""
    step = 2**16 if network.version == 4 else 2**108
    first = int(network.network_address)
    return (type(network.network_address)(first + number * step) for number in range(min(2**16, network.num_addresses // step)))


@pytest.mark.parametrize(
    "entry", ["", "*", "http://example.com", "example.com:80", "10.0.0.1/8", "10.0.0", "a b", "*.*.com", "127.1"]
)
def test_an_invalid_entry_is_refused(entry):
    with pytest.raises(SettingsError, match="outbound_allow"):
        Guard([entry])


def test_the_checked_url_is_the_called_url():
    parsed = parse_url("https://BÜCHER.example:443/a/../b?c#d")
    assert (parsed.raw_host, parsed.port, parsed.raw_path) == (b"xn--bcher-kva.example", None, b"/b?c")


@pytest.mark.parametrize("entry", ["localhost:9000", "http://localhost:9000", "10.0.0.1:80"])
def test_a_port_or_a_scheme_in_outbound_allow_is_explained(entry: str) -> None:
    with pytest.raises(
        SettingsError, match=r"is not a network .* write only the name, e\.g\. 'localhost', without scheme and port"
    ):
        Guard((entry,))
