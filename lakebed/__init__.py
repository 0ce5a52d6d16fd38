"""Lakebed: product analytics that you import.

Events settle through four tiers; every answer is exact, survives a crash, and says which tiers it came from.
"""

from __future__ import annotations

from lakebed.analytics import Analytics
