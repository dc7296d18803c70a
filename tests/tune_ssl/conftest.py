"""Fixtures of the tests of the search."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def no_fsync(monkeypatch) -> None:
    """Do not wait for the disk at every record: no test cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
