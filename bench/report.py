"""Puts figures where people read them: tables between the marks of a page of docs/, and a plot beside it."""

import importlib

from figures import median, put
from sides import NAMES, REPOSITORY

PAGES = [REPOSITORY / "docs" / name for name in ("performance.md", "reliability.md")]
PLOT = REPOSITORY / "docs/performance.svg"
COLOURS = {"dask": "#f4a261", "mainstay": "#264653"}
LABELS = {"dask": "stock dask scheduler", "mainstay": "Mainstay"}


def begin(topic):
    return f"<!-- by bench/run.py: {topic} -->"


def text_of(topic, results, machine):
    where = f"{machine['what']}; {machine['date']}; others kept {machine['others']:.0%} of it busy."
    return f"{importlib.import_module(topic).show(results)}\n\n{where}"


def write(measured):
    for topic, results in measured["topics"].items():
        pages = [page for page in PAGES if begin(topic) in page.read_text()]
        if not pages:
            raise SystemExit(f"no page has a place for {topic}: {begin(topic)}")
        for page in pages:
            put(page, begin(topic), text_of(topic, results, measured["machine"]))
    if measured["topics"].get("scheduler"):
        plot(measured["topics"]["scheduler"])


def plot(results):
    """CPU time and memory a task of both sides, one row a program."""
    import matplotlib

    matplotlib.use("svg")
    # The same figures give the same file.
    matplotlib.rcParams |= {"svg.hashsalt": "mainstay", "svg.fonttype": "none", "font.size": 9}
    from matplotlib import pyplot

    panels = [("cpu_us", "CPU of the scheduler, µs a task"), ("held_bytes", "memory held, bytes a task")]
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 0.9 + 0.25 * len(results)), sharey=True, layout="constrained")
    for axis, (name, title) in zip(axes, panels):
        sides = [
            [max(1, median([pair[side] for pair in result["pairs"]], name)) for result in results] for side in NAMES
        ]
        rows = range(len(results))
        axis.hlines(rows, *sides, color="#cccccc", zorder=1)
        for side, values in zip(NAMES, sides):
            axis.scatter(values, rows, color=COLOURS[side], label=LABELS[side], zorder=2)
            ahead = -1 if side == "mainstay" else 1
            for row, value in zip(rows, values):
                shown = f"{value:,.{1 if value < 100 else 0}f}"
                place = {
                    "xytext": (7 * ahead, 0),
                    "textcoords": "offset points",
                    "ha": "right" if ahead < 0 else "left",
                }
                axis.annotate(shown, (value, row), va="center_baseline", fontsize=7, **place)
        axis.set(xscale="log", title=title, yticks=rows, yticklabels=[result["name"] for result in results])
        axis.margins(x=0.2, y=0.03)
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.xaxis.set_minor_formatter("")
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    # The first program is at the top of both, for they share the axis.
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(PLOT, metadata={"Date": None})
    pyplot.close(figure)
