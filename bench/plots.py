"""Draw `bench/scale.json` as `bench/scale-*.svg`: `make bench-scale` runs this after `bench/scale.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib import pyplot as plt

HERE: Final = Path(__file__).parent
PLOTS: Final = {
    "append": ("Appending, bulks of 1,000, each synced", "events/s", ("append",)),
    "memory": (
        "Memory",
        "bytes an event",
        ("resident after appends", "resident after a start", "peak of a start", "hyper tree", "history tree"),
    ),
    "start": ("Start", "seconds", ("start", "start, after kill")),
    "proofs": ("Membership proof", "microseconds", ("membership, first", "membership, warm")),
}
"""The title, the unit and the lines of each plot."""


def main() -> None:
    """Draw all plots."""
    # The same input gives the same file.
    mpl.rcParams["svg.hashsalt"] = "qed"
    results = {int(events): found for events, found in json.loads((HERE / "scale.json").read_text()).items()}
    for name, (title, unit, lines) in PLOTS.items():
        figure, axes = plt.subplots(figsize=(7, 4))
        for line in lines:
            points = [(events / 1e6, found[line][0]) for events, found in sorted(results.items()) if line in found]
            axes.plot(*zip(*points, strict=True), marker="o", label=line)
        axes.set(title=title, xlabel="million events", ylabel=unit, xscale="log", ylim=(0, None))
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
        figure.savefig(HERE / f"scale-{name}.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
