"""PNG: an SVG as pixels, by resvg. Needs the extra: `pip install 'lakebed[notebook]'`."""

from __future__ import annotations

from typing import Any

from lakebed.errors import FontMissing

__all__ = ["pixels"]

_MIN_SCALE, _MAX_SCALE = 0.1, 4.0  # at the largest, the longest chart takes 200 MB while it is drawn
_COMMON = ("DejaVu Sans", "Liberation Sans", "Noto Sans", "Roboto", "Arial", "Helvetica")
_EMPTY = '<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16">{}</svg>'
_LETTER = '<text x="2" y="14" font-family="sans-serif">A</text>'


def pixels(svg: str, scale: float, font: str | None = None) -> bytes:
    """`svg`, whose texts are sans-serif, as a PNG image.

    Raises:
        ValueError: `scale` is not from 0.1 to 4.
        FontMissing: there is no such font, or no common font.
        ImportError: resvg-py is not installed.
    """
    if not _MIN_SCALE <= scale <= _MAX_SCALE:
        raise ValueError(f"scale is {scale!r}; give a number from {_MIN_SCALE:g} to {_MAX_SCALE:g}")
    return _drawn(svg, scale, _installed(font))


def _installed(font: str | None) -> str:
    """The family to write with. resvg silently leaves out text without a font, so each family is tried."""
    for family in _COMMON if font is None else (font,):
        if _drawn(_EMPTY.format(_LETTER), 1, family) != _drawn(_EMPTY.format(""), 1, family):
            return family
    if font is not None:
        raise FontMissing(f"there is no font {font[:80]!r}", hint="`fc-list : family` lists the installed ones")
    raise FontMissing(
        f"none of the fonts {', '.join(_COMMON)} is installed",
        hint="Install one, as by apt-get install fonts-dejavu-core, or name another by font=",
    )


def _drawn(svg: str, scale: float, family: str) -> bytes:
    try:
        import resvg_py  # optional
    except ImportError as error:
        raise ImportError("png() needs resvg-py: pip install 'lakebed[notebook]' or pip install resvg-py") from error
    # Text without its font is written in the serif family: so that is the same, and a missing font is noticed.
    faces: dict[str, Any] = dict.fromkeys(("font_family", "sans_serif_family", "serif_family"), family)
    return resvg_py.svg_to_bytes(svg_string=svg, zoom=scale, **faces)
