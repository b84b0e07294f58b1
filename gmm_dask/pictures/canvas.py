"""What all pictures have in common: their canvas, their inks, and how axes are dressed."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gmm_dask.words import short

WIDTH = 1200  # pixels
DPI = 100
PAD = 12  # pixels between labels and the edge of a picture
INK, MUTED, GRID = "#1c2430", "#5a6675", "#e4e8ed"
ACCENT, BARS = "#0072b2", "#dfe4ea"
TITLE = {"fontsize": 14, "fontweight": "bold", "color": INK, "parse_math": False}


def new_figure(height: int) -> Any:
    """A figure WIDTH pixels wide and `height` high, without any global state of matplotlib."""
    with quiet_import():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        size = (WIDTH / DPI, height / DPI)
        figure = Figure(figsize=size, dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
    return figure


def make_room(figure: Any) -> None:
    """Move the edges of the axes so that their labels just fit into the figure.

    Matplotlib's own layouts measure all labels twice, which takes as long as the picture.
    """
    from matplotlib.transforms import Bbox

    renderer, now = figure.canvas.get_renderer(), figure.subplotpars
    needed = Bbox.union([axes.get_tightbbox(renderer) for axes in figure.axes])
    width, height = figure.bbox.size
    figure.subplots_adjust(
        left=now.left + (PAD - needed.x0) / width,
        right=now.right + (width - PAD - needed.x1) / width,
        bottom=now.bottom + (PAD - needed.y0) / height,
        top=now.top + (height - PAD - needed.y1) / height,
    )


def png_of(figure: Any) -> bytes:
    """The figure as PNG; equal figures are equal bytes."""
    from PIL import Image

    figure.canvas.draw()
    pixels, buffer = figure.canvas.buffer_rgba(), io.BytesIO()
    picture = Image.frombuffer("RGBA", pixels.shape[1::-1], pixels, "raw", "RGBA", 0, 1)
    # Nothing shines through, and level 3 takes half the time of the usual 6 for as many bytes.
    picture.convert("RGB").save(buffer, "png", compress_level=3)
    return buffer.getvalue()


def dress(axes: Any, across: str, up: str) -> None:
    """Grid, ticks and titles of axes."""
    axes.set_axisbelow(True)
    axes.grid(True, color=GRID, linewidth=1)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    axes.tick_params(colors=MUTED, labelsize=11, length=0, bottom=False, left=False)
    label = {"fontsize": 12, "color": MUTED, "parse_math": False}
    axes.set_xlabel(drawable(across) if across else "", **label)
    axes.set_ylabel(drawable(up) if up else "", **label)


def titled(axes: Any, title: str) -> None:
    """Give axes their title."""
    axes.set_title(drawable(title), loc="left", **TITLE)


def drawable(name: str, limit: int = 80) -> str:
    """The name with a box for each character that the font lacks."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    return "".join(c if font.get_char_index(ord(c)) else "□" for c in short(name, limit))


@contextmanager
def quiet_import() -> Iterator[None]:
    """Keep matplotlib from complaining, on import, of a home folder it may not write to."""
    logger = logging.getLogger("matplotlib")
    logger.addFilter(_is_not_about_caches)
    try:
        yield
    finally:
        logger.removeFilter(_is_not_about_caches)


def _is_not_about_caches(record: logging.LogRecord) -> bool:
    return (
        record.funcName != "_get_config_or_cache_dir" and "MPLCONFIGDIR" not in record.getMessage()
    )
