"""Draws docs/growth.png from docs/growth.csv, which `cargo bench -p bench --bench store -- growth` fills.

pip install -r bench/plots/requirements.txt
python3 bench/plots/growth.py
"""

import csv
import math
import statistics
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

PARTS = ["root", "commit", "checkpoint"]
DOCS = Path(__file__).resolve().parents[2] / "docs"


def read():
    """Milliseconds of each round's parts, by number of entries."""
    rounds = defaultdict(list)
    with (DOCS / "growth.csv").open() as file:
        for row in csv.DictReader(file):
            rounds[int(row["entries"])].append([int(row[f"{part}_us"]) / 1e3 for part in PARTS])
    return dict(sorted(rounds.items()))


def main():
    rounds = read()
    sizes = list(rounds)
    totals = {entries: [sum(parts) for parts in rounds[entries]] for entries in sizes}
    medians = [statistics.median(totals[entries]) for entries in sizes]
    # The one line through the origin with the least squares: a * log10(n).
    logs = [math.log10(entries) for entries in sizes]
    a = sum(x * y for x, y in zip(logs, medians)) / sum(x * x for x in logs)
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    below = [median - min(totals[entries]) for entries, median in zip(sizes, medians)]
    above = [max(totals[entries]) - median for entries, median in zip(sizes, medians)]
    axes.errorbar(sizes, medians, yerr=[below, above], fmt="o", capsize=4, label="a block: median, least and most")
    axes.plot(sizes, [a * x for x in logs], "--", label=f"{a:.2f} ms * log10(entries)")
    for index, part in enumerate(PARTS):
        values = [statistics.median(parts[index] for parts in rounds[entries]) for entries in sizes]
        axes.plot(sizes, values, ".-", linewidth=1, alpha=0.6, label=part)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("entries of the state")
    axes.set_ylabel("ms a block of 2,000 slots and 1,000 accounts")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(DOCS / "growth.png", dpi=120, bbox_inches="tight", metadata={"Software": None})


if __name__ == "__main__":
    main()
