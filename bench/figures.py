"""Figures of both sides, and how they compare."""

import statistics

END = "<!-- end -->"


def median(runs, figure):
    return statistics.median(run[figure] for run in runs)


def factor(value):
    """A factor as people read it: with few digits."""
    return f"{value:.{2 if value < 1 else 1 if value < 10 else 0}f}×"


def compare(pairs, figure, shown, more_is_better=False):
    """What both sides have, and the median of the pairs' ratios: how many times better Mainstay is."""
    stock, ours = ([pair[name][figure] for pair in pairs] for name in ("dask", "mainstay"))
    ratios = [our / their if more_is_better else their / our for their, our in zip(stock, ours) if our and their]
    ratio = f" (**{factor(statistics.median(ratios))}**)" if ratios else ""
    return f"{shown.format(statistics.median(stock))} → {shown.format(statistics.median(ours))}{ratio}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def put(page, mark, text):
    """Puts a text into a page, between a mark and the end that follows it, in the place of what is there."""
    before, mark, rest = page.read_text().partition(mark)
    page.write_text(f"{before}{mark}\n{text}\n{END}{rest.partition(END)[2]}")


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]
