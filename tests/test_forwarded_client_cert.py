"""What Envoy says of the certificates it has verified, and what else may be in its header."""

import re
import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from servicecatalog_grpc.forwarded_client_cert import forwarded_identity
from servicecatalog_grpc.identity import UnclearIdentityError, identity_of

ORDERS = "spiffe://example.org/ns/shop/sa/orders"
BY = "By=spiffe://example.org/ns/ops/sa/gateway"
HASH = "Hash=468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688"

# Elements as Envoy writes them; see its documentation of the header.
READ = {
    "uri": (f"{BY};{HASH};URI={ORDERS}", ORDERS),
    "subject": (f'{BY};{HASH};Subject="/C=US/ST=CA/L=San Francisco/OU=Lyft/CN=Client";URI={ORDERS}', ORDERS),
    "subject-with-separators": (rf'{BY};Subject="CN=a\,b\;c\=\"d\"\\,O=x";URI={ORDERS}', ORDERS),
    "subject-that-ends-in-a-backslash": (rf'{BY};Subject="CN=a\\";URI={ORDERS}', ORDERS),
    "subject-that-looks-like-a-uri": (rf'{BY};Subject="CN=\";URI=spiffe://evil/x\"";URI={ORDERS}', ORDERS),
    "empty-subject": (f'{BY};{HASH};Subject="";URI={ORDERS}', ORDERS),
    "certificate": (f'{BY};Cert="-----BEGIN%20CERTIFICATE-----%0A";Chain="-----";URI={ORDERS}', ORDERS),
    "uri-before-dns": (f"{BY};{HASH};DNS=lyft.com;URI={ORDERS};DNS=www.lyft.com", ORDERS),
    "first-dns": (f"{BY};{HASH};URI=;DNS=lyft.com;DNS=www.lyft.com", "lyft.com"),
    "uri-that-is-no-spiffe-id": (f"{BY};{HASH};URI=http://testclient.lyft.com;DNS=lyft.com", "lyft.com"),
    "quoted": (f'{BY};URI="{ORDERS}"', ORDERS),
    "small-letters": (f"by=x;hash=y;uri={ORDERS}", ORDERS),
    "several-by": (f"{BY};{BY};{HASH};URI={ORDERS}", ORDERS),
    "unknown-key": (f"{BY};Issuer=x;URI={ORDERS}", ORDERS),
    "last-of-two": (f"{BY};URI=spiffe://example.org/gateway,{BY};{HASH};URI={ORDERS}", ORDERS),
    "last-of-two-with-a-space": (f"{BY};URI=spiffe://example.org/gateway, {BY};{HASH};URI={ORDERS}", ORDERS),
    "last-that-has-none": (f"{BY};URI={ORDERS},{BY};{HASH}", ""),
    "neither": (f'{BY};{HASH};Subject="CN=x"', ""),
    "uri-of-no-service-alone": (f"{BY};URI=http://testclient.lyft.com", ""),
}


@pytest.mark.parametrize(("value", "identity"), READ.values(), ids=READ)
def test_the_last_element_says_who_calls(value: str, identity: str) -> None:
    assert forwarded_identity([value]) == identity


def test_without_the_header_nobody_is_named() -> None:
    assert forwarded_identity([]) == ""


UNCLEAR = {
    "empty": "",
    "nothing": ",",
    "not-pairs": "orders",
    "no-key": f"={ORDERS}",
    "no-element-at-the-end": f"URI={ORDERS},",
    "no-pair-at-the-end": f"URI={ORDERS};",
    "unquoted-equals": f"URI={ORDERS}=x",
    "open-quote": f'{BY};Subject="CN=x;URI={ORDERS}',
    "quote-that-an-escape-keeps-open": rf'{BY};Subject="CN=x\";URI={ORDERS}',
    "text-after-a-quote": f'{BY};Subject="CN=x"y;URI={ORDERS}',
    "quote-within": f'{BY};URI={ORDERS}"',
    "malformed-before": f'x"y,{BY};URI={ORDERS}',
    # Someone's own element begins a quote that the proxy's is to end.
    "quote-over-the-comma": f'{BY};Subject=",{BY};{HASH};Subject="CN=x";URI={ORDERS}',
    "two-spiffe-ids": f"{BY};URI={ORDERS};URI=spiffe://example.org/x",
    "spiffe-id-and-another-uri": f"{BY};URI={ORDERS};URI=https://example.org/x",
    "malformed-spiffe-id": f"{BY};URI=spiffe://example.org/../x",
    "large-letters": f"{BY};URI={ORDERS.replace('spiffe', 'SPIFFE')}",
    "trust-domain-alone": f"{BY};URI=spiffe://example.org",
    "too-long": f"{BY};URI=spiffe://example.org/{'x' * 2048}",
    "wildcard": f"{BY};DNS=*.example.org",
    "dns-that-is-a-uri": f"{BY};DNS={ORDERS}",
    "dns-with-a-space": f"{BY};DNS=a b",
    "long-dns": f"{BY};DNS={'a' * 254}",
}


@pytest.mark.parametrize("value", UNCLEAR.values(), ids=UNCLEAR)
def test_a_header_that_is_not_clear_names_nobody(value: str) -> None:
    with pytest.raises(UnclearIdentityError) as raised:
        forwarded_identity([value])
    assert "example.org" not in str(raised.value)


def test_several_headers_name_nobody() -> None:
    with pytest.raises(UnclearIdentityError):
        forwarded_identity([f"URI={ORDERS}", f"URI={ORDERS}"])


# Whatever comes: pieces of the grammar in any order, so that much of it is nearly right.
_PIECES = st.sampled_from(
    [
        *'",;=\\ \t',
        "URI=",
        "DNS=",
        f"URI={ORDERS}",
        'Subject="',
        "By=",
        ORDERS,
        "a.example.org",
        "spiffe://",
        '\\"',
        "é",
        "\x00",
    ]
)
_HEADERS = st.lists(_PIECES, max_size=30).map("".join) | st.text(max_size=200)
_ELEMENT = re.compile(r'[ \t]*(?:[A-Za-z]+=(?:"(?:[^"\\]|\\.)*"|[^",;=]*)[ \t]*(?:;(?!\Z)[ \t]*|\Z))+')


@settings(max_examples=1000, deadline=None)
@given(st.lists(_HEADERS, min_size=1, max_size=2))
@example([f"URI={ORDERS},DNS=a.example.org"])
def test_whatever_comes_names_nobody_or_whom_a_well_formed_last_element_names(values: list[str]) -> None:
    try:
        identity = forwarded_identity(values)
    except UnclearIdentityError:
        return
    if identity:
        (value,) = values
        # The last comma outside of quotes, as a reader from the right finds it: such an identity has no quotes in it.
        found = max(value.rfind(f"{key}={quote}{identity}") for key in _cases() for quote in ('"', ""))
        assert found >= 0
        assert identity.isascii()
        assert identity.isprintable()
        starts = [0, *(match.end() for match in re.finditer(",", value))]
        assert any(start <= found and _ELEMENT.fullmatch(value, start) for start in starts)


def _cases() -> list[str]:
    return ["URI", "uri", "DNS", "dns"]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.text(string.printable) | st.just(ORDERS), max_size=3),
    st.lists(st.text(string.printable), max_size=3),
)
def test_whatever_a_certificate_says_one_of_its_names_is_the_identity(uris: list[str], dns_names: list[str]) -> None:
    try:
        identity = identity_of(uris, dns_names)
    except UnclearIdentityError:
        return
    assert identity in {"", *uris[:1], *dns_names[:1]}
    assert re.fullmatch(r"[!-~]*", identity)
    assert not set(identity) & set("*,;=\"'\\")


@pytest.mark.parametrize(
    "uri",
    ["spiffe://example.org/a", "spiffe://cluster.local/ns/a-b/sa/C_d.e", "spiffe://1_2-3/..."],
)
def test_a_spiffe_id_is_an_identity(uri: str) -> None:
    assert identity_of([uri], ["example.org"]) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://example.org/",
        "spiffe://example.org/a/",
        "spiffe://example.org//a",
        "spiffe://example.org/./a",
        "spiffe://example.org/a/..",
        "spiffe://Example.org/a",
        "spiffe://user@example.org/a",
        "spiffe://example.org:80/a",
        "spiffe://example.org/a?b",
        "spiffe://example.org/a#b",
        "spiffe://example.org/a%2Fb",
        "spiffe://example.org/a*",
        "spiffe:///a",
        "spiffe:example.org/a",
        f"spiffe://{'a' * 256}/a",
        "spiffe://example.org/é",
        "spiffe://example.org/a\n",
    ],
)
def test_what_is_no_spiffe_id_makes_nobody_of_a_dns_name(uri: str) -> None:
    """SPIFFE has it so that IDs cannot be confused."""
    with pytest.raises(UnclearIdentityError):
        identity_of([uri], ["example.org"])
