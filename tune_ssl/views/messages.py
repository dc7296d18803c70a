"""Messages on stderr: plain text as it is, whatever brackets it holds, in lines of their own length."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def say(console: Console, text: str) -> None:
    """Print a message; a path in it is not broken, and markup in it is not read."""
    console.print(Text(text), soft_wrap=True)
