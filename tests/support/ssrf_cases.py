"""Cases for the guard: URLs, the addresses to which their hosts resolve, and whether and where they may be called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

PUBLIC, PUBLIC_V6 = "93.184.215.14", "2606:4700:4700::1111"
METADATA = "169.254.169.254"
HANGS = ["the resolver does not answer"]

TEXT, ADDRESS, TIME = "refused by its text", "refused by its address", "no answer in time"
"""How a call is refused: before any name is resolved, before any connection is made, or at the time limit."""


@dataclass(frozen=True)
class Case:
    """One URL, the addresses that the resolver returns in turn, and the outcome of one or more calls."""

    why: str
    url: str
    ends: str | tuple[str, ...]
    """One of the constants above, or the addresses and ports that are connected to."""
    answers: tuple[list[str], ...] = ()
    allow: tuple[str, ...] = ()
    posts: int = 1
    status: int = 200

    def __str__(self) -> str:
        return f"{self.why}: {self.url[:80].encode('unicode_escape').decode()}"


def text(why: str, *urls: str, allow: Sequence[str] = ()) -> Iterator[Case]:
    """Refused at submission."""
    return (Case(why, url, TEXT, allow=tuple(allow)) for url in urls)


def goes(why: str, url: str, to: str, answer: Sequence[str] = (PUBLIC,), allow: Sequence[str] = ()) -> Iterator[Case]:
    """Called at this address."""
    yield Case(why, url, (to,), (list(answer),), tuple(allow))


def nowhere(why: str, address: str) -> Iterator[Case]:
    """An address that is refused as a literal, and as a resolved address, alone and among public ones."""
    literal = f"[{address.replace('%', '%25')}]" if ":" in address else address
    yield Case(why, f"https://{literal}/", TEXT)
    for addresses in ([address], [PUBLIC_V6, PUBLIC, address]):
        yield Case(why, "https://rebind.example.com/", ADDRESS, (addresses,))


SPECIAL = {
    "this host": "0.0.0.0/8",
    "private": "10.0.0.0/8",
    "carrier-grade NAT": "100.64.0.0/10",
    "loopback": "127.0.0.0/8",
    "link-local": "169.254.0.0/16",
    "private, 172": "172.16.0.0/12",
    "protocol assignments": "192.0.0.0/24",
    "documentation": "192.0.2.0/24",
    "6to4 relays": "192.88.99.0/24",
    "private, 192": "192.168.0.0/16",
    "benchmarks": "198.18.0.0/15",
    "documentation, 2": "198.51.100.0/24",
    "documentation, 3": "203.0.113.0/24",
    "multicast": "224.0.0.0/4",
    "reserved": "240.0.0.0/4",
    "Azure's host": "168.63.129.16/32",
    "unspecified v6": "::/128",
    "loopback v6": "::1/128",
    "discard only": "100::/64",
    "Teredo and other assignments": "2001::/23",
    "Teredo": "2001::/32",
    "ORCHID": "2001:10::/28",
    "ORCHID, 2": "2001:20::/28",
    "benchmarks v6": "2001:2::/48",
    "documentation v6": "2001:db8::/32",
    "documentation v6, 2": "3fff::/20",
    "6to4": "2002::/16",
    "segment routing": "5f00::/16",
    "unassigned v6": "4000::/3",
    "unique local": "fc00::/7",
    "link-local v6": "fe80::/10",
    "site-local": "fec0::/10",
    "multicast v6": "ff00::/8",
    "mapped": "::ffff:0:0/96",
    "compatible": "::/96",
    "translated": "::ffff:0:0:0/96",
    "NAT64": "64:ff9b::/96",
    "NAT64, local": "64:ff9b:1::/48",
}


def edges(network: str) -> Iterator[str]:
    """The first and the last address of a network."""
    found = ip_network(network)
    return (str(found[place]) for place in {0, found.num_addresses - 1})


HIDDEN = ("127.0.0.1", "10.0.0.1", METADATA, "8.8.8.8")
"""IPv4 inside IPv6. Public ones are refused too, because legitimate URLs do not contain them."""


def inside(address: str) -> Iterator[tuple[str, str]]:
    """Every IPv6 address that embeds this IPv4 address."""
    bits = int(IPv4Address(address))
    for why, base, shift in (
        ("mapped", "::ffff:0:0", 0),
        ("compatible", "::", 0),
        ("translated", "::ffff:0:0:0", 0),
        ("NAT64", "64:ff9b::", 0),
        ("NAT64, local", "64:ff9b:1::", 0),
        ("6to4", "2002::", 80),
        ("6to4 with a host part", "2002::1", 80),
        ("Teredo's server", "2001::", 64),
    ):
        yield why, str(IPv6Address(int(IPv6Address(base)) | bits << shift))
    yield "Teredo's client", str(IPv6Address(int(IPv6Address("2001:0:4136:e378:8000:63bf::")) | bits ^ 0xFFFFFFFF))


ADJACENT_PUBLIC = (
    "1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
    "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255",
    "192.0.1.0", "192.0.3.0", "192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0", "198.17.255.255",
    "198.20.0.0", "198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0", "223.255.255.255",
    "2001:200::1", "2001:db7::1", "2001:db9::1", "2003::1", "2400::1", "2606:4700:4700::1111", "2a00:1450:4001::1", "3ffe::1",
)  # fmt: skip
"""Public addresses next to networks that are not public."""


def table() -> Iterator[Case]:
    # public ones pass, TLS and Host keep the name
    yield from goes("public", "https://example.com/hook?a=b#c", f"{PUBLIC}:443")
    yield from goes("public", "HTTPS://EXAMPLE.com:443/", f"{PUBLIC}:443")
    yield from goes("public, odd port", "https://hooks.example.com:8443/", f"{PUBLIC}:8443")
    yield from goes("public, odd port", "https://hooks.example.com:1/", f"{PUBLIC}:1")
    yield from goes("public, odd port", "https://hooks.example.com:65535/", f"{PUBLIC}:65535")
    yield from goes("public, port as it needs no mention", "https://hooks.example.com:/", f"{PUBLIC}:443")
    yield from goes("public, IPv6", "https://example.com/", f"{PUBLIC_V6}:443", [PUBLIC_V6, PUBLIC])
    yield from goes("public, not ASCII", "https://bücher.example.com/", f"{PUBLIC}:443")
    yield from goes("a name that begins like an address", "https://10.example.com/", f"{PUBLIC}:443")
    for address in ADJACENT_PUBLIC:
        literal = f"[{address}]" if ":" in address else address
        yield from goes("public address", f"https://{literal}/", f"{address}:443")
        yield from goes("public answer", "https://example.com/", f"{address}:443", [address])

    # addresses that are not public
    for why, network in SPECIAL.items():
        for address in edges(network):
            yield from nowhere(why, address)
    for hidden in HIDDEN:
        for why, address in inside(hidden):
            yield from nowhere(f"{hidden} as {why}", address)
    for address in ("fe80::1%eth0", "fe80::1%2", f"{PUBLIC_V6}%eth0", "::1%lo"):
        yield from nowhere("zone id", address)
    yield from text("zone id", f"https://[{PUBLIC_V6}%eth0]/", "https://[fe80::1%25]/", "https://[::1%25lo]:443/")

    # loopback in the spellings that resolvers understand
    yield from text("decimal", "https://2130706433/", "https://2130706433:443/", "https://4294967295/", "https://0/")
    yield from text(
        "hex", "https://0x7f000001/", "https://0x7F.0.0.1/", "https://0x7f.1/", "https://127.0.0.0x1/", "https://0x/"
    )
    yield from text("octal", "https://017700000001/", "https://0177.0.0.1/", "https://0177.0.0.01/", "https://127.0.0.01/")
    yield from text("few parts", "https://127.1/", "https://127.0.1/", "https://1.1/")
    yield from text("too many parts or too large", "https://1.1.1.1.1/", "https://256.0.0.1/", "https://127.0.0.1.1/")
    yield from text("with a dot", "https://127.0.0.1./", "https://2130706433./", "https://0x7f000001./")
    yield from text(
        "other digits and dots",
        "https://①②⑦.⓪.⓪.①/",
        "https://127。0。0。1/",
        "https://127\uff0e0\uff0e0\uff0e1/",
        "https://\uff11\uff12\uff17.0.0.1/",
    )
    yield from text("percent", "https://%31%32%37.0.0.1/", "https://127.0.0.1%2f.example.com/", "https://example.com%00/")
    yield from text("v6 in other spellings", "https://[0:0:0:0:0:0:0:1]/", "https://[0000::0001]/", "https://[::ffff:7f00:1]/")
    yield from text(
        "v6 that is none", "https://[::1/", "https://::1/", "https://[v1.fe80]/", "https://[]/", "https://[127.0.0.1]/"
    )

    # names of the local network
    yield from text(
        "local name", "https://localhost/", "https://LOCALHOST./", "https://a.localhost/", "https://localhost.localdomain/",
        "https://printer.local/", "https://metadata.google.internal/", "https://router.home.arpa/", "https://redis/",
        "https://nas.lan/", "https://wiki.intranet/", "https://ⓛocalhost/",
    )  # fmt: skip

    # user info, which some parsers take for the host
    yield from text(
        "user info", "https://user@example.com/", "https://user:password@example.com/", "https://@example.com/",
        "https://example.com@127.0.0.1/", "https://127.0.0.1@example.com/", "https://a@b@example.com/",
        "https://example.com:443@127.0.0.1/", "https://example.com\\@127.0.0.1/",
    )  # fmt: skip
    yield from text(
        "two readings", "https://127.0.0.1#@example.com/", "https://127.0.0.1?@example.com/", "https://127.0.0.1;x/"
    )
    yield from goes("an @ that is no user info", "https://example.com/@127.0.0.1", f"{PUBLIC}:443")

    # ports that do not exist, and other schemes
    yield from text(
        "port", "https://example.com:0/", "https://example.com:65536/", "https://example.com:-1/", "https://example.com:80a/",
        "https://example.com:443:443/", "https://example.com:٤٤٣/", "https://example.com: 443/",
    )  # fmt: skip
    yield from text(
        "unix socket", "unix:///var/run/docker.sock", "http+unix://%2fvar%2frun%2fdocker.sock/", "https+unix://x/",
        "https://unix:/var/run/docker.sock", "https:///var/run/docker.sock",
    )  # fmt: skip
    yield from text(
        "scheme", "http://example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "//example.com/",
        "example.com", "javascript:alert(1)", "data:,x", "https:example.com", "https:/example.com", "",
    )  # fmt: skip
    yield from text(
        "control bytes", "https://example.com/\r\nHost: 127.0.0.1", "https://exa\tmple.com/", " https://example.com/"
    )
    yield from text("too long", "https://example.com/" + "a" * 2030)

    # several answers of which one is bad
    for addresses in ([METADATA, PUBLIC], [PUBLIC, METADATA], ["::1", PUBLIC_V6], [PUBLIC_V6, "::ffff:10.0.0.1", PUBLIC]):
        yield Case("one bad answer", "https://example.com/", ADDRESS, (addresses,))

    # names whose addresses change
    yield Case("rebinding between check and connect", "https://example.com/", (f"{PUBLIC}:443",), ([PUBLIC], ["127.0.0.1"]))
    yield Case("rebinding between two attempts", "https://example.com/", ADDRESS, ([PUBLIC], [METADATA]), posts=2)
    yield Case("the resolver hangs", "https://example.com/", TIME, (HANGS,))

    # redirects
    for status in (301, 302, 303, 307, 308):
        yield Case("a redirect to the metadata", "https://example.com/", (f"{PUBLIC}:443",), ([PUBLIC],), status=status)

    # what the operator allows
    yield from goes("opened: address", "http://127.0.0.1:9000/hook", "127.0.0.1:9000", allow=["127.0.0.1"])
    yield from goes("opened: address, v6", "http://[::1]:9000/", "::1:9000", allow=["::1"])
    yield from goes("opened: network", "http://10.1.2.3/", "10.1.2.3:80", allow=["10.0.0.0/8"])
    yield from goes("opened: network, v6", "https://[fd00::7]/", "fd00::7:443", allow=["fd00::/8"])
    yield from goes("opened: network, by name", "https://in.example.com/", "10.1.2.3:443", ["10.1.2.3"], ["10.0.0.0/8"])
    yield from goes("opened: host", "http://localhost:9000/", "127.0.0.1:9000", ["127.0.0.1"], ["localhost"])
    yield from goes("opened: host, plain http", "http://example.com/", f"{PUBLIC}:80", allow=["example.com"])
    yield from goes("opened: host, TLS", "https://redis/", "10.0.0.9:443", ["10.0.0.9"], ["redis"])
    yield from goes("opened: suffix", "http://a.b.internal:81/", "10.0.0.9:81", ["10.0.0.9"], ["*.internal"])
    yield from text(
        "opened, and another address", "http://127.0.0.2/", "http://[::1]/", "http://localhost/", allow=["127.0.0.1"]
    )
    yield from text("opened, in another spelling", "http://2130706433/", "http://[::ffff:7f00:1]/", allow=["127.0.0.1"])
    yield from text("opened, with user info", "http://user@127.0.0.1/", allow=["127.0.0.1"])
    yield from text("a suffix is not its own member", "http://internal/", "http://badinternal/", allow=["*.internal"])
    yield from text("opened, and what only looks like it", "http://127.0.0.1.example.com/", allow=["127.0.0.1"])
    yield Case("one opened, one not", "https://x.example.com/", ADDRESS, (["10.0.0.1", "192.168.0.1"],), ("10.0.0.0/8",))
    yield Case("a private network does not open plain http", "http://example.com/", TEXT, ([PUBLIC],), ("10.0.0.0/8",))
