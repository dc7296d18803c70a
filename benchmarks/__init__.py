"""Measurements: each script prints what it measured and can record it beside its command."""
