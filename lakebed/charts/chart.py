"""Chart: a drawn result, which can become SVG, PNG, a page or a file, and appear in a notebook.

PNG needs the extra: `pip install 'lakebed[notebook]'`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from lakebed.charts import formatting
from lakebed.charts.canvas import Canvas, clean
from lakebed.errors import FontMissing

__all__ = ["Chart", "blank", "pixels"]

_MIN_SCALE, _MAX_SCALE = 0.1, 4.0  # at the largest, the longest chart takes 200 MB while it is drawn
_COMMON = ("DejaVu Sans", "Liberation Sans", "Noto Sans", "Roboto", "Arial", "Helvetica")
_EMPTY = '<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16">{}</svg>'
_LETTER = '<text x="2" y="14" font-family="sans-serif">A</text>'


def pixels(svg: str, scale: float, font: str | None = None) -> bytes:
    """A PNG image of `svg`, whose texts must be sans-serif.

    Raises:
        ValueError: `scale` is not from 0.1 to 4.
        FontMissing: there is no such font, or no common font.
        ImportError: resvg-py is not installed.
    """
    if not _MIN_SCALE <= scale <= _MAX_SCALE:
        raise ValueError(f"scale is {scale!r}; give a number from {_MIN_SCALE:g} to {_MAX_SCALE:g}")
    return _drawn(svg, scale, _installed(font))


def _installed(font: str | None) -> str:
    """The font family to use. resvg silently leaves out text if its font is missing, so each family is tested."""
    for family in _COMMON if font is None else (font,):
        if _drawn(_EMPTY.format(_LETTER), 1, family) != _drawn(_EMPTY.format(""), 1, family):
            return family
    if font is not None:
        raise FontMissing(f"there is no font {font[:80]!r}", hint="`fc-list : family` lists the installed ones")
    raise FontMissing(
        f"none of the fonts {', '.join(_COMMON)} is installed",
        hint="Install one, for example by apt-get install fonts-dejavu-core, or name another with font=",
    )


def _drawn(svg: str, scale: float, family: str) -> bytes:
    try:
        import resvg_py  # optional
    except ImportError as error:
        raise ImportError("png() needs resvg-py: pip install 'lakebed[notebook]' or pip install resvg-py") from error
    # resvg writes text without its font in the serif family. All families are set to one, so a missing font shows.
    faces: dict[str, Any] = dict.fromkeys(("font_family", "sans_serif_family", "serif_family"), family)
    return resvg_py.svg_to_bytes(svg_string=svg, zoom=scale, **faces)


_FACE = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
_INK, _PAPER = {"light": "#1f2328", "dark": "#e6edf3"}, {"light": "#fff", "dark": "#14171c"}


def _style(face: str) -> str:
    return (
        f".lb{{font:12px {face};font-variant-numeric:tabular-nums}}.lb text{{fill:currentColor}}"
        ".lb .lb-title{font-size:16px;font-weight:600}.lb .lb-soft{fill-opacity:.68}.lb .lb-strong{font-weight:600}"
        ".lb .lb-on{fill:#fff}.lb .lb-grid{stroke:currentColor;stroke-opacity:.13}"
        ".lb .lb-axis{stroke:currentColor;stroke-opacity:.5}"
    )


_STYLE = _style(_FACE)
_ALONE = (
    f".lb{{color:{_INK['light']};color-scheme:light dark}}.lb-paper{{fill:{_PAPER['light']}}}"
    f"@media(prefers-color-scheme:dark){{.lb{{color:{_INK['dark']}}}.lb-paper{{fill:{_PAPER['dark']}}}}}"
)
_PAGE = (
    f":root{{color-scheme:light dark}}body{{margin:0;padding:24px;background:{_PAPER['light']};color:{_INK['light']}}}"
    "svg{max-width:100%;height:auto}"
    f"@media(prefers-color-scheme:dark){{body{{background:{_PAPER['dark']};color:{_INK['dark']}}}}}"
)
_SHEET = '<rect class="lb-paper" width="100%" height="100%"/>'
_TOP = 44  # pixels for the title


class Chart:
    """A drawn result. A chart does not change, and the same result gives the same bytes.

    Attributes:
        title: text above the chart.
        description: text for readers who do not see the chart.
    """

    __slots__ = ("_canvas", "description", "title")

    def __init__(self, canvas: Canvas, title: str, description: str) -> None:
        self._canvas = canvas
        self.title = title
        self.description = description

    def svg(self) -> str:
        """A whole SVG document with its own background, light or dark as the reader's system prefers."""
        return self._drawn(_STYLE + _ALONE, _SHEET)

    def png(self, scale: float = 2, *, theme: Literal["light", "dark"] = "light", font: str | None = None) -> bytes:
        """A PNG image in the colours of `theme`: unlike SVG, PNG cannot follow the reader's theme. This blocks.

        The same chart gives the same bytes with the same font and version of resvg.

        Args:
            scale: pixels of the image for each pixel of the SVG, from 0.1 to 4.
            theme: "light" or "dark".
            font: family of an installed font; by default the first installed one of a few common fonts.

        Raises:
            ValueError: `scale` or `theme` is not valid.
            FontMissing: there is no such font, or no common font. No text is ever left out.
            ImportError: resvg-py is not installed.
        """
        if theme not in _INK:
            raise ValueError(f"theme is {theme!r}; use light or dark")
        colours = f".lb{{color:{_INK[theme]}}}.lb-paper{{fill:{_PAPER[theme]}}}"
        return pixels(self._drawn(_style("sans-serif") + colours, _SHEET), scale, font)

    def html(self) -> str:
        """A whole HTML page, which requests nothing from the network."""
        head = f'<meta charset="utf-8"><title>{clean(self.title)}</title><style>{_PAGE}</style>'
        return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{self._repr_html_()}\n</body></html>\n'

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the chart to a file that ends in `.svg`, `.html` or `.png`. This blocks.

        Raises:
            ValueError: the file has another ending.
            FontMissing, ImportError: as for `png`.
        """
        file = Path(path)
        ending = file.suffix.lower()
        if ending == ".png":
            file.write_bytes(self.png())
        elif ending in (".svg", ".html"):
            file.write_text(self.svg() if ending == ".svg" else self.html(), "utf-8")
        else:
            ending = repr(file.suffix) if file.suffix else "without an ending"
            raise ValueError(f"a chart is saved as .svg, .html or .png, not {ending}: {file.name}")

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_html_(self) -> str:
        return self._drawn(_STYLE, "")  # the page's own colours: a notebook's theme may differ from the system's

    def __repr__(self) -> str:
        return f"<Chart {self.title!r}: {self.description}>"

    def _drawn(self, style: str, paper: str) -> str:
        canvas, notes = self._canvas, Canvas()
        for line, text in enumerate(canvas.notes):
            notes.text(
                24, _TOP + canvas.height + 14 + 16 * line, text, kind="lb-soft", max_width=canvas.width - 48, size=11
            )
        height = _TOP + canvas.height + (16 * len(canvas.notes) + 8 if canvas.notes else 0)
        title = Canvas()
        title.text(24, 28, self.title, kind="lb-title", max_width=canvas.width - 48, size=16)
        size = f'width="{canvas.width:g}" height="{height:g}" viewBox="0 0 {canvas.width:g} {height:g}"'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="lb" role="img" aria-label="{clean(self.title)}" {size}>\n'
            f"<title>{clean(self.title)}</title><desc>{clean(self.description)}</desc><style>{style}</style>{paper}\n"
            f'{title.body()}\n<g transform="translate(0 {_TOP})">\n{canvas.body()}\n</g>\n{notes.body()}</svg>'
        )


def blank(title: str) -> Chart:
    """The chart of a result without rows."""
    canvas = Canvas(height=160)
    canvas.text(canvas.width / 2, 80, "no rows", anchor="middle", kind="lb-soft", size=16)
    return Chart(canvas, title, "The result has no rows.")


def counted(count: int, noun: str) -> str:
    """A number with its noun, which is in the plural unless the number is 1."""
    return f"{formatting.figure(count)} {noun}{'' if count == 1 else 's'}"
