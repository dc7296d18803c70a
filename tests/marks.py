"""Marks of tests in several folders."""

from __future__ import annotations

import pytest

from tune_ssl.machine import missing_to_compile

needs_a_compiler = pytest.mark.skipif(
    missing_to_compile() is not None, reason=f"this host has {missing_to_compile()}"
)
