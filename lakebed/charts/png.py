"""Pixels: SVG as PNG, by resvg. Needs the extra: `pip install 'lakebed[notebook]'`."""

from __future__ import annotations

from typing import Any

from lakebed.errors import FontMissing

__all__ = ["pixels"]

_LEAST, _MOST = 0.1, 4.0  # times the size: at the most the longest picture takes 200 MB while it is drawn
_COMMON = ("DejaVu Sans", "Liberation Sans", "Noto Sans", "Roboto", "Arial", "Helvetica")
_EMPTY = '<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16">{}</svg>'
_LETTER = '<text x="2" y="14" font-family="sans-serif">A</text>'


def pixels(svg: str, scale: float, font: str | None = None) -> bytes:
    """`svg`, whose texts are sans-serif, as a PNG image.

    Raises:
        ValueError: the scale is not from 0.1 to 4.
        FontMissing: there is no such font, or none is found.
        ImportError: resvg-py is not installed.
    """
    if not _LEAST <= scale <= _MOST:
        raise ValueError(f"scale is {scale!r}: a number from {_LEAST:g} to {_MOST:g}")
    return _drawn(svg, scale, _found(font))


def _found(font: str | None) -> str:
    """The font to write with. resvg leaves out text for which it has none, without a word: so it is tried."""
    for family in _COMMON if font is None else (font,):
        if _drawn(_EMPTY.format(_LETTER), 1, family) != _drawn(_EMPTY.format(""), 1, family):
            return family
    if font is not None:
        raise FontMissing(f"there is no font {font[:80]!r}", hint="`fc-list : family` lists those that are installed")
    raise FontMissing(
        f"none of the fonts {', '.join(_COMMON)} is found",
        hint="Install one, as by apt-get install fonts-dejavu-core, or name another by font=",
    )


def _drawn(svg: str, scale: float, family: str) -> bytes:
    try:
        import resvg_py  # optional
    except ImportError as error:
        raise ImportError("png() needs resvg-py: pip install 'lakebed[notebook]' or pip install resvg-py") from error
    # What has no font is written with serifs where there are some: then the font that was asked for is not missed.
    faces: dict[str, Any] = dict.fromkeys(("font_family", "sans_serif_family", "serif_family"), family)
    return resvg_py.svg_to_bytes(svg_string=svg, zoom=scale, **faces)
