"""How figures look: one column wide, readable on a phone, colours that colour-blind readers can tell apart.

Colours come from Okabe & Ito's palette ("Color universal design", 2008), darker where it is too light for lines on
white. Markers and dashes repeat what colour says. On a page, inks are replaced by variables of the style sheet, so that
one drawing serves a light and a dark screen.
"""

import io
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from html import escape
from typing import TYPE_CHECKING, Any, Literal
from zlib import crc32

from capacity_analysis.words import minus

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas
    from matplotlib.lines import Line2D
    from matplotlib.transforms import Bbox

    from capacity_reports.blocks import Figure

WIDTH = 4.6  # inches, a column of a paper and a half of a page
WIDE = 7.4  # inches, of the figure that opens a page
INK, FAINT = "#1b1c1e", "#8b8d92"  # text and axes; grid and reference lines
# Method → colour, marker, dashes.
METHODS: dict[str, tuple[str, str, str]] = {
    "sft": ("#d55e00", "s", "-"),
    "grpo": ("#0072b2", "o", "-"),
    "rft": ("#008060", "^", "-"),
    "rft-online": ("#a8538a", "v", "--"),
    "sft+grpo": ("#7a5c00", "D", "--"),
    "random-reward": ("#6b6e75", "X", ":"),
}
# The same on a dark screen.
DARK = {
    INK: "#e9eaec",
    FAINT: "#85888f",
    "#d55e00": "#ff8a3d",
    "#0072b2": "#5ab4f0",
    "#008060": "#35c99b",
    "#a8538a": "#e08cc4",
    "#7a5c00": "#e0b83c",
    "#6b6e75": "#a9acb3",
}
# Colours of methods that the table does not know, light and dark.
_OTHERS = (
    ("#1b6f9c", "#8fd0f7", "P"),
    ("#9a4b00", "#ffb370", "p"),
    ("#4b6b00", "#b5d95a", "h"),
    ("#5b4bb0", "#b9adff", "<"),
    ("#a02c2c", "#ff9a94", ">"),
)
_DASHES = ("-", "--", ":", "-.")
_SHADES = (0.0, 0.34, 0.62)  # how far lines of one method go towards the ink, so that no two share a colour


def _mixed(colour: str, other: str, share: float) -> str:
    """A colour on the way to another one."""
    pairs = [(int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in pairs)


def _shade(colour: str, place: int) -> str:
    """The colour of the n-th line of a method, on white. Shades on a dark screen stand in `DARK`."""
    return _mixed(colour, "#000000", _SHADES[place % len(_SHADES)])


DARK |= {light: dark for light, dark, _ in _OTHERS}
DARK |= {
    _shade(light, place): _mixed(dark, "#ffffff", 1.1 * _SHADES[place])
    for light, dark in tuple(DARK.items())
    for place in range(1, len(_SHADES))
    if light not in (INK, FAINT)
}


def method_style(label: str) -> tuple[str, str, str]:
    """The colour, the marker and the dashes of a method, or of a curve, whose label begins with its method.

    They are the same in every figure.
    """
    method = label.partition(" ")[0].rstrip(":")
    if method in METHODS:
        return METHODS[method]
    digest = crc32(method.encode())  # letters in another order are another method
    colour, _, _ = _OTHERS[digest % len(_OTHERS)]
    return colour, _OTHERS[digest // len(_OTHERS) % len(_OTHERS)][2], "-"


def line_styles(labels: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """The colour, the marker and the dashes of every line of one figure; no two lines share a colour.

    Lines of one method have its colour in several shades, and dashes of their own. A line takes a colour that no other
    has if its own is taken.

    Args:
        labels: labels that begin with their methods, each once.
    """
    taken: set[str] = set()
    counts: dict[str, int] = {}
    found = {}
    for label in labels:
        method = label.partition(" ")[0].rstrip(":")
        place = counts[method] = counts.get(method, -1) + 1
        colour, marker, style = method_style(label)
        own = [_shade(colour, i) for i in range(place, len(_SHADES))]
        colour = next(c for c in (*own, *_every_ink()) if c not in taken or len(taken) >= len(_every_ink()))
        taken.add(colour)
        found[label] = colour, marker, style if place == 0 else dashes(place)
    return found


def line_colour(place: int) -> str:
    """The colour of the n-th line of a figure whose lines are no methods."""
    return _every_ink()[place % len(_every_ink())]


def _every_ink() -> tuple[str, ...]:
    """All colours of lines: those of methods first, then the others, then their shades."""
    return tuple(ink for ink in DARK if ink not in (INK, FAINT))


def dashes(place: int) -> str:
    """The line style of the n-th size of a method."""
    return _DASHES[place % len(_DASHES)]


def levels(count: int) -> list[str]:
    """Colours of an ordered quantity, from few to many, dark enough for lines on white and light enough on black."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"]((place + 1) / (count + 2))) for place in range(count)]


def log_axis(axes: "Axes", which: Literal["x", "y"], label: str) -> None:
    """A logarithmic axis with whole numbers: 1, 100, 10k, 1M."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_locator(NullLocator())
    axis.set_label_text(label)


def percent_axis(axes: "Axes", label: str = "accuracy, %") -> None:
    """A vertical axis of shares, written in percent."""
    from matplotlib.ticker import FuncFormatter

    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: minus(f"{100 * value:g}")))
    axes.set_ylabel(label)


def moved(axes: "Axes", drawn: "Sequence[Line2D]", right: float = 0.0, up: float = 0.0) -> None:
    """Moves what is drawn by some points, so that it hides nothing. The limits of the axes stay those of the values."""
    from matplotlib.transforms import ScaledTranslation

    for line in drawn:
        line.set_transform(axes.transData + ScaledTranslation(right / 72, up / 72, axes.figure.dpi_scale_trans))


def numbers(values: Iterable[str | float | None]) -> list[float]:
    """Values as coordinates: NaN, which is not drawn, where a value is absent."""
    return [float("nan") if value is None else float(value) for value in values]


def short(value: float) -> str:
    """A number in few characters: 0.01, 1, 100, 10k, 1M."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor * 0.9999:
            return f"{value / factor:.4g}{unit}"
    return minus(f"{value:.3g}")


def legend(axes: "Axes", columns: int = 2) -> None:
    """Draws the key below the axes, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if unique:
        axes.legend(
            unique.values(), unique.keys(), loc="upper center", bbox_to_anchor=(0.5, -0.2), ncol=columns, frameon=False
        )


def _settings(*, text_as_paths: bool) -> "AbstractContextManager[None]":
    import matplotlib as mpl

    settings: dict[Any, Any] = {
        "svg.fonttype": "path" if text_as_paths else "none",
        "svg.hashsalt": "capacity",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9.0,
        "axes.labelsize": 9.0,
        "axes.titlesize": 9.0,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "legend.fontsize": 8.5,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "axes.grid": True,
        "grid.alpha": 0.35,
        "grid.linewidth": 0.5,
        "grid.color": FAINT,
        "lines.linewidth": 1.6,
        "lines.markersize": 5.0,
        "hatch.linewidth": 0.5,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "lines.solid_capstyle": "round",
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    }
    return mpl.rc_context(settings)  # no global state: the style holds while a figure is drawn


def _canvas(figure: "Figure", width: float = WIDTH) -> "Canvas":
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, figure.height))
    figure.draw(canvas.add_subplot())
    return canvas


def _box(canvas: "Canvas") -> "Bbox":
    """The box around what is drawn and a little room, in inches: `bbox_inches="tight"` would draw everything twice."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(canvas).get_renderer()  # type: ignore[no-untyped-call]
    return canvas.get_tightbbox(renderer).padded(0.1)


def svg_file(figure: "Figure") -> str:
    """The figure as a file of its own: dark ink on white, letters as outlines, the same on every machine."""
    return _svg(figure, text_as_paths=True, background="white")


def png_file(figure: "Figure", dpi: int = 300) -> bytes:
    """The figure as pixels on white."""
    buffer = io.BytesIO()
    with _settings(text_as_paths=True):
        canvas = _canvas(figure)
        canvas.savefig(buffer, format="png", dpi=dpi, bbox_inches=_box(canvas), facecolor="white")
    return buffer.getvalue()


def inline_svg(figure: "Figure", width: float = WIDTH) -> str:
    """The figure as an element of a page: identifiers of its own, inks from the style sheet, `alt` as its label."""
    text = _svg(figure, text_as_paths=False, background="none", width=width)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, count=1, flags=re.DOTALL)  # its rules are in the page's
    text = re.sub(r'(\bid="|\bhref="#|url\(#)', rf"\g<1>{figure.name}-", text)
    for ink in DARK:
        text = text.replace(ink, f"var({variable(ink)})")
    box = re.search(r'viewBox="[^"]+"', text)
    assert box is not None
    end = text.index(">")
    return (
        f'<svg {box.group()} role="img" aria-label="{escape(figure.alt)}" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink"{text[end:]}'
    )


def variable(ink: str) -> str:
    """The style sheet's name of an ink."""
    return f"--ink-{ink.removeprefix('#')}"


def _svg(figure: "Figure", *, text_as_paths: bool, background: str, width: float = WIDTH) -> str:
    buffer = io.StringIO()
    with _settings(text_as_paths=text_as_paths):
        canvas, nobody = _canvas(figure, width), {"Date": None, "Creator": None}
        canvas.savefig(buffer, format="svg", bbox_inches=_box(canvas), facecolor=background, metadata=nobody)
    return buffer.getvalue()


def joined(words: Sequence[str]) -> str:
    """Words as a list in a sentence: "a, b and c"."""
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part) if words else ""
