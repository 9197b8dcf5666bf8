"""Writes the table of settings in docs/operations.md from the settings themselves; with --check only sees whether it is so."""

import sys
from dataclasses import fields
from pathlib import Path

from servicecatalog_grpc.config import Settings

PAGE = Path(__file__).parent.parent / "docs" / "operations.md"
BEGIN, END = "<!-- settings: make generate writes them -->\n", "<!-- end of settings -->\n"


def table() -> str:
    """Return the table, in Markdown."""
    rows = ["| flag | default | meaning |", "| --- | --- | --- |"]
    for each in fields(Settings):
        flag = f"--{each.name.replace('_', '-')}"
        default = f"{each.default:g}" if isinstance(each.default, float) else str(each.default)
        shown = f"`{default}`" if default else "none"
        rows.append(f"| `{flag}` | {shown} | {each.metadata['help']} |")
    return "\n".join([*rows, ""])


def main() -> int:
    """Return the exit status: 1 if the page is to be written anew and --check is given."""
    text = PAGE.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"{PAGE.name}: the marks between which the settings stand are missing")
    current = f"{before}{BEGIN}{table()}{END}{after}"
    if text == current:
        return 0
    if sys.argv[1:] == ["--check"]:
        sys.stderr.write("docs/operations.md does not have the settings as they are: run make generate and commit\n")
        return 1
    PAGE.write_text(current)
    return 0


if __name__ == "__main__":
    sys.exit(main())
