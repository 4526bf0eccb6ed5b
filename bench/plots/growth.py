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


def draw(axes, rounds, parts, name):
    """Medians of the sum of some parts, with least and most, and the line a * log10(n) with the least squares."""
    sizes = list(rounds)
    sums = [[sum(costs[PARTS.index(part)] for part in parts) for costs in rounds[entries]] for entries in sizes]
    medians = [statistics.median(values) for values in sums]
    below = [median - min(values) for median, values in zip(medians, sums)]
    above = [max(values) - median for median, values in zip(medians, sums)]
    points = axes.errorbar(sizes, medians, yerr=[below, above], fmt="o", capsize=4, label=name)
    logs = [math.log10(entries) for entries in sizes]
    a = sum(x * y for x, y in zip(logs, medians)) / sum(x * x for x in logs)
    line = [a * x for x in logs]
    axes.plot(sizes, line, "--", color=points[0].get_color(), label=f"{a:.1f} ms * log10(entries)")


def main():
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    rounds = read()
    draw(axes, rounds, PARTS, "a block and its part of a checkpoint")
    draw(axes, rounds, ["root", "commit"], "root and commit alone")
    draw(axes, rounds, ["commit"], "commit alone")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("entries of the state")
    axes.set_ylabel("ms a block of 2,000 slots and 1,000 accounts")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(DOCS / "growth.png", dpi=120, bbox_inches="tight", metadata={"Software": None})


if __name__ == "__main__":
    main()
