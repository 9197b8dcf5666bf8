"""docs/operations.md has what is there: every setting, every alert, every reason, and links that lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from facade import COMMAND, environment
from servicecatalog_grpc.failure import Reason

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "operations.md"
TEXT = PAGE.read_text()
ALERTS = yaml.safe_load((ROOT / "deploy" / "observability" / "alerts.yaml").read_text())


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Return where links within a page lead, as GitHub makes them of headings."""
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings(text)}


def test_the_settings_are_those_of_the_server() -> None:
    script = ROOT / "scripts" / "settings_table.py"
    checked = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_every_alert_is_explained_and_no_other() -> None:
    names = [rule["alert"] for group in ALERTS["groups"] for rule in group["rules"]]
    assert [heading for heading in headings(TEXT) if heading.startswith("ServiceCatalogGrpc")] == names


def test_every_reason_is_explained_once() -> None:
    explained = re.findall(r"^\| `([A-Z_]+)` \|", TEXT, re.MULTILINE)
    assert sorted(explained) == sorted(reason.name for reason in Reason)


def test_the_rows_of_a_table_have_as_many_cells() -> None:
    tables = re.findall(r"(?:^\|.*\|\n)+", TEXT, re.MULTILINE)
    assert tables
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT))))
def test_links_lead_somewhere(link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (PAGE.parent / path).resolve() if path else PAGE
    assert target.exists()
    assert not anchor or anchor in anchors(target.read_text())


def test_flags_are_there() -> None:
    helps = [
        subprocess.run([COMMAND, *command, "--help"], env=environment(), capture_output=True, text=True, check=True)
        for command in (["serve"], ["policy", "check"])
    ]
    known = {flag for each in helps for flag in re.findall(r"--[a-z-]+", each.stdout)}
    assert set(re.findall(r"`(--[a-z-]+)[ =`]", TEXT)) - known == {"--build-arg", "--some-thing"}
