"""Makes one table of what the conformance runs of all languages left, row by language, and fails if it has a gap.

    conformance_report.py [--require python,go]

Prints it and writes build/conformance/matrix.md. A language that left nothing is a gap only if it is required.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conformance_rows import LANGUAGES, RESULTS, load

_PASSED, _FAILED, _MISSING = "ok", "FAILED", "-"
_MATRIX = "matrix.md"

Results = Mapping[str, Mapping[str, Any]]


def main(arguments: Sequence[str] | None = None, directory: Path = RESULTS) -> int:
    """Print and write the table, and return the exit status: 1 if it has a gap."""
    parser = argparse.ArgumentParser(description="Make one table of the conformance runs of all languages.")
    parser.add_argument("--require", default="", metavar="LANGUAGES", help="which must be there, e.g. python,go")
    required = {name for name in parser.parse_args(arguments).require.split(",") if name}
    if unknown := required - set(LANGUAGES):
        parser.error(f"--require: there is no {', '.join(sorted(unknown))}")
    results = {
        language: json.loads(path.read_text("utf-8"))
        for language in LANGUAGES
        if (path := directory / f"{language}.json").exists()
    }
    results |= {language: {} for language in LANGUAGES if language in required and language not in results}
    rows = [row.name for row in load()]
    cells = {name: [_cell(results[language].get(name)) for language in results] for name in rows}
    gaps = _gaps(rows, results)
    sys.stdout.write(_text(results, cells) + "".join(f"{gap}\n" for gap in gaps))
    directory.mkdir(parents=True, exist_ok=True)
    (directory / _MATRIX).write_text(_markdown(results, cells), "utf-8")
    return 1 if gaps or not results else 0


def _cell(result: Mapping[str, Any] | None) -> str:
    if result is None:
        return _MISSING
    return _FAILED if result["problems"] else _PASSED


def _gaps(rows: Sequence[str], results: Mapping[str, Results]) -> list[str]:
    """Return what failed, a line for each row of a language, and what is missing, a line for each language."""
    gaps = [] if results else ["no language has been run"]
    for language, of_language in results.items():
        failed = {name: problems for name in rows if (problems := of_language.get(name, {}).get("problems"))}
        gaps += [f"{language}: {name}: {'; '.join(problems)}" for name, problems in failed.items()]
        if missing := [name for name in rows if name not in of_language]:
            gaps.append(f"{language}: {len(missing)} rows have not been run: {', '.join(missing)}")
    return gaps


def _text(results: Mapping[str, Results], cells: Mapping[str, Sequence[str]]) -> str:
    width = max(map(len, cells)) + 2
    lines = ["".ljust(width) + "".join(language.ljust(len(language) + 2) for language in results)]
    lines += [
        name.ljust(width) + "".join(cell.ljust(len(language) + 2) for language, cell in zip(results, row, strict=True))
        for name, row in cells.items()
    ]
    lines.append(_summary(results, cells))
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _markdown(results: Mapping[str, Results], cells: Mapping[str, Sequence[str]]) -> str:
    lines = [
        f"{_summary(results, cells)}",
        "",
        f"| row | {' | '.join(results)} |",
        f"| --- | {' | '.join('---' for _ in results)} |",
        *(f"| {name} | {' | '.join(row)} |" for name, row in cells.items()),
    ]
    return "".join(f"{line}\n" for line in lines)


def _summary(results: Mapping[str, Results], cells: Mapping[str, Sequence[str]]) -> str:
    passed = [
        f"{language} {sum(row[index] == _PASSED for row in cells.values())}" for index, language in enumerate(results)
    ]
    return f"Passed, of {len(cells)} rows: {', '.join(passed) or 'nothing was run'}."


if __name__ == "__main__":
    sys.exit(main())
