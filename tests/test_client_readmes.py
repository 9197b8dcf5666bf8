"""What a client's README shows is what its examples do, and those are run."""

import re
import textwrap
from pathlib import Path

import pytest

CLIENTS = Path(__file__).parents[1] / "clients"
LANGUAGES = {"python": {"python"}, "go": {"go"}, "java": {"java"}, "typescript": {"ts", "typescript"}}
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(readme: Path, tags: set[str]) -> list[str]:
    """Return the code that the page shows in a language."""
    return [code for tag, code in FENCED.findall(readme.read_text()) if tag in tags]


def shown(code: str, source: str) -> bool:
    """Whether the lines stand in the source one after the other, indented alike."""
    lines = source.splitlines()
    wanted = code.strip("\n").splitlines()
    for start in range(len(lines) - len(wanted) + 1):
        excerpt = textwrap.dedent("\n".join(lines[start : start + len(wanted)]))
        if excerpt.splitlines() == wanted:
            return True
    return False


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_clients_readme_shows_code_of_its_examples(language: str) -> None:
    _assert_shown(CLIENTS / language / "README.md", language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_projects_readme_shows_code_of_the_examples(language: str) -> None:
    _assert_shown(CLIENTS.parent / "README.md", language)


def test_a_line_that_no_example_has_is_noticed() -> None:
    assert shown("a\n  b\n", "if:\n    a\n      b\n")
    assert not shown("a\nb\n", "a\n  b\n")
    assert not shown("a\nc\n", "a\nb\n")


def _assert_shown(readme: Path, language: str) -> None:
    code = blocks(readme, LANGUAGES[language])
    assert code, f"{readme} shows no {language}"
    suffixes = {"python": "*.py", "go": "*.go", "java": "*.java", "typescript": "*.ts"}
    examples = (CLIENTS / language / "examples").rglob(suffixes[language])
    sources = [path.read_text() for path in examples if "node_modules" not in path.parts]
    for block in code:
        assert any(shown(block, source) for source in sources), f"{readme}: no example has\n{block}"
