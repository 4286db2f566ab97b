"""The one error for data that cannot be had."""

from __future__ import annotations


class DataError(RuntimeError):
    """Data or weights cannot be had; the message says what was wanted, why not, and the way out."""
