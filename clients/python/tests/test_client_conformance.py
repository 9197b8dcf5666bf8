"""`servicecatalog.Client` keeps to the table in tests/conformance."""

import pytest
from table_runner import run_table


def test_conformance(subtests: pytest.Subtests) -> None:
    run_table("python", subtests)
