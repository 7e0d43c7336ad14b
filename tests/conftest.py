"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real photographs and logs, which is not part of the project; tests that need it skip without it."""
    folder = Path(os.environ.get("HARNESS_TEST_DATA", CHECKOUT.parent / "shared" / "data"))
    if not (folder / "README.md").is_file():
        pytest.skip(f"no test data at {folder}; set HARNESS_TEST_DATA")
    return folder
