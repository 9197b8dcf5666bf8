"""The command that reads a policy: it names a mistake with its line, and explains what a good one decides."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from facade import COMMAND, environment
from servicecatalog_grpc.cli import main

ALLOWED, DENIED, USAGE = 0, 1, 2

ROLE = "arn:aws:iam::123456789012:role/orders"

POLICY = f"""
# Who may do what.
callers:
  - identity: spiffe://example.org/ns/shop/sa/orders
    role: {ROLE}
    grants:
      - methods: [ProvisionProduct, UpdateProvisionedProduct]
        product_names: &ours [s3-*]
        product_ids: [prod-s3, prod-s4]
        provisioned_product_names: [orders-*]
      - methods: [DescribeProduct]
        product_names: *ours
      - methods: [WatchRecord]
        provisioned_product_names: [orders-*]
      - methods: [SearchProducts]
  - identity: spiffe://example.org/ns/shop/sa/nobody
  - identity: spiffe://example.org/ns/shop/*
    grants:
      - methods: "*"
  - identity: anonymous
    grants: [{{methods: [SearchProducts]}}]
  - identity: "*.example.org"
    grants: [{{methods: ["*"], product_names: ["a*b*c", "aba*aba"]}}]
"""
ORDERS = "spiffe://example.org/ns/shop/sa/orders"


class Ended(NamedTuple):
    """What a command ends with."""

    status: int
    out: str
    err: str


Check = Callable[..., Ended]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Check:
    """The command, in this process: there are many of them."""
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")  # which the command sets itself, and this process then forgets

    def run(policy: Path, *arguments: str) -> Ended:
        try:
            status: Any = main(["policy", "check", f"--policy={policy}", *arguments])
        except SystemExit as error:
            status = error.code
        return Ended(status, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    path.write_text(POLICY.removeprefix("\n"))
    return path


# What it decides


@pytest.mark.parametrize(
    ("identity", "method", "named", "expected", "said"),
    [
        (ORDERS, "SearchProducts", "", ALLOWED, ["line 3:", "line 14: this grant allows it", ROLE]),
        (
            ORDERS,
            "ProvisionProduct",
            "--product-name=s3-bucket --provisioned-product-name=orders-1",
            ALLOWED,
            ["line 6: this grant allows it"],
        ),
        (ORDERS, "ProvisionProduct", "--product-id=prod-s4 --provisioned-product-name=orders-1", ALLOWED, ["line 6"]),
        (
            ORDERS,
            "ProvisionProduct",
            "--product-id=prod-s5 --provisioned-product-name=billing",
            DENIED,
            [
                "line 6: this grant does not: prod-s5 is none of its product_ids; billing is none of its provisioned_prod"
            ],
        ),
        (
            ORDERS,
            "UpdateProvisionedProduct",
            "--provisioned-product-name=orders-1",
            DENIED,
            ["line 6: this grant does not: the call names nothing for its product_names or product_ids"],
        ),
        (ORDERS, "DescribeProduct", "--product-name=s3-bucket", ALLOWED, ["line 10: this grant allows it"]),
        (ORDERS, "WatchRecord", "--provisioned-product-name=orders-1", ALLOWED, ["line 12: this grant allows it"]),
        (ORDERS, "WatchRecord", "--provisioned-product-name=x --product-id=prod-s3", DENIED, ["line 12:"]),
        (ORDERS, "ListRecordHistory", "", DENIED, ["line 14: this grant does not: ListRecordHistory is not one of"]),
        ("spiffe://example.org/ns/shop/sa/nobody", "SearchProducts", "", DENIED, ["line 15:", "it has no grants"]),
        ("spiffe://example.org/ns/shop/sa/x", "SearchProducts", "", ALLOWED, ["line 16:", "the server's own"]),
        ("spiffe://example.org/ns/elsewhere", "SearchProducts", "", DENIED, ["no entry is for this caller"]),
        ("anonymous", "SearchProducts", "", ALLOWED, ["line 19:"]),
        ("anonymous", "SearchProvisionedProducts", "", DENIED, ["line 19:"]),
        ("a.example.org", "DescribeProduct", "--product-name=abc", ALLOWED, ["line 21:"]),
        ("a.example.org", "DescribeProduct", "--product-name=a-b-b-c-c", ALLOWED, []),
        ("a.example.org", "DescribeProduct", "--product-name=abaaba", ALLOWED, []),
        ("a.example.org", "DescribeProduct", "--product-name=ababa", DENIED, []),
        ("a.example.org", "DescribeProduct", "--product-name=ac", DENIED, []),
        ("a.example.org", "DescribeProduct", "--product-name=abcd", DENIED, []),
        ("a.example.org", "DescribeProduct", "--product-name=xabc", DENIED, []),
        ("a.example.org.evil", "DescribeProduct", "--product-name=abc", DENIED, ["no entry"]),
    ],
)
def test_a_decision_is_explained(
    identity: str, method: str, named: str, expected: int, said: list[str], policy: Path, check: Check
) -> None:
    ended = check(policy, "--identity", identity, "--method", method, *named.split())
    assert (ended.status, ended.err) == (expected, "")
    decision, *_ = ended.out.splitlines()
    assert decision == ("allowed" if expected == ALLOWED else "denied")
    assert [text for text in said if text not in ended.out] == []


def test_without_a_caller_it_only_looks_for_mistakes(policy: Path, check: Check) -> None:
    ended = check(policy)
    assert (ended.status, ended.out, ended.err) == (ALLOWED, f"{policy}: no mistakes\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--identity=x"], "--method"),
        (["--method=SearchProducts"], "--identity"),
        (["--product-name=x"], "--identity"),
        (["--identity=x", "--method=Search"], "must be one of DescribeProduct, "),
        (["--identity=x", "--method=SearchProducts", "--product-name=x"], "no call of SearchProducts names"),
        (["--identity=x", "--method=DescribeRecord", "--product-name=x"], "no call of DescribeRecord names"),
        (["--identity=x", "--method=DescribeProduct", "--product-name=x", "--product-id=x"], "names all"),
        (["--bogus"], "--bogus"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_call_that_cannot_be_is_a_usage_error(arguments: list[str], said: str, policy: Path, check: Check) -> None:
    ended = check(policy, *arguments)
    assert (ended.status, ended.out) == (USAGE, "")
    assert said in ended.err
    assert ended.err.count("\n") == 1


def test_help_says_what_it_does() -> None:
    ended = subprocess.run([COMMAND, "policy", "check", "--help"], capture_output=True, text=True, check=True)
    assert [flag for flag in ("--policy", "--identity", "--method", "--product-id") if flag not in ended.stdout] == []


def test_the_readme_has_it_right(tmp_path: Path, check: Check) -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    example = re.search(r"^```yaml\n(callers:.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    session = re.search(
        r"^\$ servicecatalog-grpc policy check (.*?)\n(denied\n.*?)^```$", readme, re.DOTALL | re.MULTILINE
    )
    assert example
    assert session
    path = tmp_path / "policy.yaml"
    path.write_text(example[1])
    arguments = session[1].replace("\\\n", " ").replace("--policy policy.yaml", "").split()
    assert check(path, *arguments) == (DENIED, session[2], "")


# Mistakes

GRANT = "callers:\n- identity: a\n  grants:\n  - "

MISTAKES = {
    "empty": ("", None, "is empty"),
    "only-a-comment": ("# nothing\n", None, "is empty"),
    "not-a-mapping": ("- callers\n", 1, "a policy must be a mapping, is a list"),
    "no-callers": ("{}\n", 1, "must have 'callers'"),
    "unknown-key": ("callers: [{identity: a}]\n\nrules: []\n", 3, "has no 'rules': it has callers"),
    "unknown-key-of-an-entry": ("callers:\n- identity: a\n  grant: []\n", 3, "has no 'grant': it has identity, role"),
    "unknown-key-of-a-grant": (f"{GRANT}methods: '*'\n    products: [a]\n", 5, "has no 'products'"),
    "merge-key": (f"{GRANT}<<: &a {{methods: '*'}}\n", 4, "must be text, is a merge"),
    "repeated-key": ("callers:\n- identity: a\n  role: b\n  identity: c\n", 4, "has 'identity' on line 2 already"),
    "key-that-is-a-number": ("1: a\n", 1, "a key of a policy must be text, is a number"),
    "key-that-is-a-list": ("? [a]\n: b\n", 1, "must be text, is a list"),
    "no-identity": ("callers:\n- grants: [{methods: '*'}]\n", 2, "must have 'identity'"),
    "empty-identity": ("callers:\n- identity: ''\n", 2, "identity must not be empty"),
    "identity-that-is-nothing": ("callers:\n- identity:\n", 2, "identity must be text, is nothing"),
    "identity-that-is-a-number": ("callers:\n- identity: 7\n", 2, "identity must be text, is a number"),
    "identity-of-two-lines": ("callers:\n- identity: |\n    a\n    b\n", 2, "line breaks"),
    "callers-that-are-nothing": ("callers:\n", 1, "callers must be a list, is nothing"),
    "callers-that-are-a-mapping": ("callers: {identity: a}\n", 1, "callers must be a list, is a mapping"),
    "no-entries": ("callers: []\n", 1, "callers must not be empty"),
    "entry-that-is-text": ("callers:\n- a\n", 2, "an entry of callers must be a mapping, is text"),
    "repeated-entry": ("callers:\n- identity: a\n- identity: a\n", 3, "'a' is never reached: that on line 2 decides"),
    "hidden-entry": ("callers:\n- identity: a*\n- identity: a/b\n", 3, "'a/b' is never reached: that on line 2"),
    "hidden-glob": ("callers:\n- identity: a*\n- identity: ab*c\n", 3, "'ab*c' is never reached"),
    "anonymous-twice": ("callers:\n- identity: anonymous\n- identity: anonymous\n", 3, "never reached"),
    "role-that-is-a-name": ("callers:\n- identity: a\n  role: orders\n", 3, "the ARN of an IAM role, is 'orders'"),
    "role-that-is-a-user": (
        "callers:\n- identity: a\n  role: arn:aws:iam::123456789012:user/x\n",
        3,
        "the ARN of an IAM role",
    ),
    "role-that-is-a-number": ("callers:\n- identity: a\n  role: 123456789012\n", 3, "role must be text, is a number"),
    "no-grants": ("callers:\n- identity: a\n  grants: []\n", 3, "grants must not be empty"),
    "grants-that-are-nothing": ("callers:\n- identity: a\n  grants:\n", 3, "grants must be a list, is nothing"),
    "grant-that-is-text": (f"{GRANT}SearchProducts\n", 4, "a grant must be a mapping, is text"),
    "no-methods": (f"{GRANT}product_names: [a]\n", 4, "a grant must have 'methods'"),
    "empty-methods": (f"{GRANT}methods: []\n", 4, "methods must not be empty"),
    "methods-that-are-text": (f"{GRANT}methods: SearchProducts\n", 4, "methods must be a list, is text"),
    "unknown-method": (
        f"{GRANT}methods:\n    - SearchProducts\n    - Search*\n",
        6,
        "there is no method 'Search*', only",
    ),
    "method-that-is-true": (f"{GRANT}methods: [yes]\n", 4, "a method must be text, is true or false"),
    "empty-condition": (f"{GRANT}methods: '*'\n    product_ids: []\n", 5, "product_ids must not be empty"),
    "condition-that-is-text": (f"{GRANT}methods: '*'\n    product_ids: a\n", 5, "product_ids must be a list, is text"),
    "glob-that-is-a-number": (f"{GRANT}methods: '*'\n    product_ids: [a, 1]\n", 5, "product_ids must be text, is a n"),
    "glob-that-is-a-date": (f"{GRANT}methods: '*'\n    product_ids: [2020-01-01]\n", 5, "of the type tag:yaml.org"),
    "condition-on-a-list": (
        f"{GRANT}methods: [SearchProducts]\n    product_names: [a]\n",
        5,
        "SearchProducts is never granted here: it names nothing for product_names to match",
    ),
    "condition-that-a-method-never-meets": (
        f"{GRANT}methods: [ProvisionProduct, TerminateProvisionedProduct]\n    product_ids: [a]\n",
        5,
        "TerminateProvisionedProduct is never granted here: it names nothing for product_ids",
    ),
    "names-of-records": (
        f"{GRANT}methods: [WatchRecord]\n    product_names: [a]\n",
        5,
        "WatchRecord is never granted here",
    ),
    "star-without-quotes": ("callers:\n- identity: *\n", 2, "needs quotes"),
    "star-first-without-quotes": ("callers:\n- identity: *-orders\n", 2, "needs quotes"),
    "unclosed": ("callers: [\n", 2, "while parsing a flow"),
    "tab": ("callers:\n\t- identity: a\n", 2, "cannot start any token"),
    "two-documents": ("callers: [{identity: a}]\n---\ncallers: []\n", 2, "single document"),
    "tag": ("callers: !!python/object:os.system [a]\n", 1, "callers must be a list, is of the type tag:"),
    "recursion": ("callers: &a [*a]\n", 1, "an entry of callers must be a mapping, is a list"),
    "depth": ("callers: " + "[" * 5000 + "\n", None, "nested too deeply"),
    "control-character": ("callers: [{identity: a\x01}]\n", None, "not text that YAML allows"),
}


@pytest.mark.parametrize(("text", "line", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_line(text: str, line: int | None, said: str, tmp_path: Path, check: Check) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    ended = check(path)
    assert (ended.status, ended.out) == (USAGE, "")
    place = f"{path}:{line}: " if line else f"{path}: "
    assert ended.err.startswith(f"servicecatalog-grpc: {place}"), ended.err
    assert said in ended.err
    assert ended.err.count("\n") == 1


def test_bytes_that_are_no_text_are_a_mistake(tmp_path: Path, check: Check) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(b"callers: [{identity: \xff\xfe}]\n")
    assert "not text that YAML allows" in check(path).err


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_a_mistake(name: str, tmp_path: Path, check: Check) -> None:
    ended = check(tmp_path / name)
    assert ended.status == USAGE
    assert str(tmp_path / name) in ended.err


@pytest.mark.parametrize("mistake", ["empty", "unknown-key", "unknown-method", "two-documents"])
def test_a_mistake_stops_the_start(mistake: str, tmp_path: Path) -> None:
    text, line, said = MISTAKES[mistake]
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    ended = subprocess.run(
        [COMMAND, "serve", "--listen=127.0.0.1:0", f"--policy={path}"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (USAGE, "")
    assert ended.stderr.startswith(f"servicecatalog-grpc: --policy: {path}:{line or ''}"), ended.stderr
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
