"""Metrics over steps as SVG pictures, a line a run."""

import hashlib
import io
import math
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

COLOURS = ("#2f6fed", "#e8590c", "#2b9348", "#9c36b5", "#c2255c", "#0c8599", "#a07800", "#6c757d")
_GREY = "#868e96"
#: Matplotlib computes with differences and margins of the values, which overflow beyond it.
_FARTHEST = 1e300
#: Bytes of a file's name, without its ending.
_LONGEST_NAME = 200


def draw_curves(name: str, labels: Sequence[str], lines: Sequence[Sequence[tuple[int, float]]]) -> str:
    """One metric over steps, a line a run, as SVG text; the same input gives the same bytes.

    A value that is not finite is a gap, one beyond 1e300 is drawn there: the line below counts both.
    """
    every = [value for points in lines for _, value in points]
    gaps = sum(not math.isfinite(value) for value in every)
    beyond = sum(abs(value) > _FARTHEST for value in every) - sum(math.isinf(value) for value in every)
    notes = [f"{gaps} not finite"] * bool(gaps) + [f"{beyond} beyond {_FARTHEST:g}"] * bool(beyond)
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.family": "sans-serif"}):
        fig = Figure(figsize=(4.4, 2.7), layout="constrained")
        axes = fig.add_subplot()
        for index, (label, points) in enumerate(zip(labels, lines, strict=True)):
            if points:
                marker = "o" if len(points) < 12 else ""
                colour = COLOURS[index % len(COLOURS)]
                steps, values = zip(*points, strict=True)
                values = tuple(min(max(v, -_FARTHEST), _FARTHEST) if math.isfinite(v) else math.nan for v in values)
                axes.plot(steps, values, label=label, color=colour, linewidth=1.8, marker=marker, markersize=3)
        axes.set_title(name, color=_GREY, fontsize=10, loc="left", parse_math=False)
        axes.set_xlabel(", ".join(["step", *notes]), color=_GREY, fontsize=9)
        axes.tick_params(colors=_GREY, labelsize=9)
        axes.set_facecolor("none")
        axes.grid(color=_GREY, alpha=0.2, linewidth=0.6)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(_GREY)
        stream = io.StringIO()
        fig.savefig(stream, format="svg", facecolor="none", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def curve_file(name: str) -> str:
    """Return the name of the file of a metric's curve, without its ending."""
    kept = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)
    if len(kept.encode()) <= _LONGEST_NAME:
        return kept
    start = kept.encode()[: _LONGEST_NAME - 17].decode(errors="ignore")
    return f"{start}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
