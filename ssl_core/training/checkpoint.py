"""A training's state as bytes, and back; nothing but tensors and plain values, never a pickle of code."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import torch

from ssl_core.errors import UserError


def to_bytes(state: dict[str, Any]) -> bytes:
    """Return the state of ``Training.state_dict`` as bytes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def from_bytes(data: bytes, *, sha256: str, name: str) -> dict[str, Any]:
    """Return the state stored in ``data``, on the CPU.

    Raises:
        UserError: the bytes are not those that were stored; the message gives ``name``.
    """
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(
            f"checkpoint {name} is damaged or half written ({len(data)} bytes, another SHA-256 than the "
            "journal names); allowed: the file as it was stored; restore it or delete the trial's folder."
        )
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state
