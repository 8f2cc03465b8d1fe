"""Puts figures where people read them: tables between the marks of docs/performance.md, and a plot beside it."""

import importlib

from figures import median
from sides import NAMES, REPOSITORY

DOCS = REPOSITORY / "docs/performance.md"
PLOT = REPOSITORY / "docs/performance.svg"
END = "<!-- end -->"
COLOURS = {"dask": "#f4a261", "mainstay": "#264653"}
LABELS = {"dask": "stock dask scheduler", "mainstay": "Mainstay"}


def begin(topic):
    return f"<!-- by bench/run.py: {topic} -->"


def text_of(topic, results, machine):
    where = f"{machine['what']}; {machine['date']}; others kept {machine['others']:.0%} of it busy."
    return f"{importlib.import_module(topic).show(results)}\n\n{where}"


def write(measured):
    text = DOCS.read_text()
    for topic, results in measured["topics"].items():
        before, mark, rest = text.partition(begin(topic))
        if not mark:
            raise SystemExit(f"{DOCS} has no place for {topic}: {begin(topic)}")
        _, _, after = rest.partition(END)
        text = f"{before}{mark}\n{text_of(topic, results, measured['machine'])}\n{END}{after}"
    DOCS.write_text(text)
    if measured["topics"].get("scheduler"):
        plot(measured["topics"]["scheduler"])


def plot(results):
    """CPU time and memory a task of both sides, one group a program."""
    import matplotlib

    matplotlib.use("svg")
    # The same figures give the same file.
    matplotlib.rcParams |= {"svg.hashsalt": "mainstay", "svg.fonttype": "none", "font.size": 9}
    from matplotlib import pyplot

    names = [result["name"] for result in results][::-1]
    panels = [("cpu_us", "CPU of the scheduler, µs a task"), ("held_bytes", "memory held, bytes a task")]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 0.9 + 0.34 * len(names)), sharey=True, layout="constrained")
    for axis, (figure_name, title) in zip(axes, panels):
        for offset, side in zip((0.2, -0.2), NAMES):
            values = [max(0.1, median([pair[side] for pair in result["pairs"]], figure_name)) for result in results][::-1]
            places = [place + offset for place in range(len(names))]
            axis.barh(places, values, height=0.38, color=COLOURS[side], label=LABELS[side])
            for place, value in zip(places, values):
                axis.annotate(f"{value:,.{1 if value < 100 else 0}f}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=7)
        axis.set(xscale="log", title=title, yticks=range(len(names)), yticklabels=names)
        axis.margins(x=0.15)
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=2, frameon=False)
    figure.savefig(PLOT, metadata={"Date": None})
    pyplot.close(figure)
