"""What callers are called in AWS: readable, legal, and nobody can take another one's name."""

import re

import pytest
from servicecatalog_grpc.aws.session_names import session_name

LEGAL = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        # What AWS takes as it is.
        ("orders.shop.example.org", "orders.shop.example.org"),
        ("ab", "ab"),
        ("A_=,.@-z", "A_=,.@-z"),
        ("a" * 64, "a" * 64),
        # What it does not.
        ("spiffe://example.org/ns/shop/sa/orders", "example.org-ns-shop-sa-orders+6da7e8ffe552987f"),
        ("spiffe://example.org/a//b", "example.org-a-b+160b579f3b2e40b5"),
        ("a", "a+ca978112ca1bbdca"),
        ("", "anonymous+e3b0c44298fc1c14"),
        ("a" * 65, "a" * 47 + "+635361c48bb9eab1"),
        ("spiffe://" + "/".join("abcde" * 60), None),
        ("x" * 300, None),
        ("spiffe://example.org/" + "-/" * 30 + "orders", None),
        ("bücher.example", "b-cher.example+"),
        ("заказы", "anonymous+"),
        ("\uff11\uff12\uff13", "anonymous+"),
        ("\ud800", "anonymous+"),
        ("two words", "two-words+"),
        ("line\nbreak", "line-break+"),
        ("orders\n", "orders-+"),
        ("aws:orders", "aws-orders+"),
        ("spiffe://", "anonymous+"),
    ],
)
def test_a_name_is_what_aws_takes_and_people_can_read(identity: str, name: str | None) -> None:
    assert LEGAL.fullmatch(session_name(identity))
    if name is not None and name.endswith("+"):
        assert re.fullmatch(re.escape(name) + "[0-9a-f]{16}", session_name(identity))
    elif name is not None:
        assert session_name(identity) == name
    assert session_name(identity) == session_name(identity)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("spiffe://example.org/ns/a-b", "spiffe://example.org/ns/a/b"),
        ("spiffe://example.org/orders", "spiffe://example.org/orders/"),
        ("spiffe://example.org/orders", "example.org/orders"),
        ("spiffe://example.org/Orders", "spiffe://example.org/orders"),
        ("x" * 64 + "a", "y" + "x" * 63 + "a"),
        ("", "anonymous"),
        ("", "spiffe://"),
        ("заказы", "товары"),
    ],
)
def test_two_callers_have_two_names(one: str, other: str) -> None:
    assert session_name(one) != session_name(other)


@pytest.mark.parametrize("identity", ["spiffe://example.org/ns/shop/sa/orders", "", "x" * 300])
def test_nobody_is_called_what_another_one_was_made_fit_to(identity: str) -> None:
    name = session_name(identity)
    assert session_name(name) != name
    assert session_name(session_name(name)) not in {name, session_name(name)}
