"""The table of a benchmark, and where its numbers go: results/benchmarks/*.json."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from collections.abc import Callable

import pandas as pd

from helpers import results
from helpers.data import output_folder, relative, write_text


def markdown(rows: list[dict[str, str]]) -> str:
    """The rows as a Markdown table."""
    return results.markdown(pd.DataFrame(rows))


def take_turns(ways: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """What each way gives, `repeats` times, one way after the other, so that a busy moment does not hit one alone."""
    runs: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, run in ways.items():
            runs[way].append(run())
    return runs


def save(
    name: str, table: list[dict], measurements: list[dict], packages: list[str], note: str = "", *, medians: bool = True
) -> None:
    """Write results/benchmarks/<name>.json: the README's table and note, the measurements, and what measured them.

    `medians` says whether the table's numbers are medians of repeated measurements, as the README then says.
    """
    folder = output_folder("results", stand_in=False) / "benchmarks"
    folder.mkdir(exist_ok=True)
    content = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "versions": {package: importlib.metadata.version(package) for package in packages},
        "table": table,
        "note": note,
        "medians": medians,
        "measurements": measurements,
    }
    write_text(folder / f"{name}.json", json.dumps(content, indent=1) + "\n")
    print(f"Written: {relative(folder / f'{name}.json')}")
