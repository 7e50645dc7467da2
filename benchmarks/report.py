"""What the benchmarks share: options, turns, and where a table and its numbers go: results/benchmarks/*.json."""

import argparse
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable

import pandas as pd

from helpers.files import output_folder, relative, write_text
from helpers.tables import markdown


def options(script: str, about: str, quick: bool = True) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{script}", description=about.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="save what it prints to results/benchmarks/")
    if quick:
        parser.add_argument("--quick", action="store_true", help="a few images, once: a trial, no measurement")
    return parser


def take_turns(ways: dict[str, Callable], repeats: int) -> dict[str, list]:
    """What each way gives, `repeats` times, one way after the other, so that a busy moment does not hit one alone."""
    rounds = [{way: run() for way, run in ways.items()} for _ in range(repeats)]
    return {way: [one[way] for one in rounds] for way in ways}


def spread(numbers: list[float], digits: int = 0) -> str:
    return f"{min(numbers):,.{digits}f} to {max(numbers):,.{digits}f}"


def publish(name: str, table: list, measurements: list, note: str, packages: list, *, script: str, write: bool) -> None:
    """Print the table and its note; with `write`, save them to results/benchmarks/<name>.json for docs/."""
    print(f"\n{markdown(pd.DataFrame(table))}\n\n{note}")
    if write:
        versions = {package: importlib.metadata.version(package) for package in packages}
        content = {"date": time.strftime("%Y-%m-%d"), "python": platform.python_version(), "versions": versions,
                   "script": script, "table": table, "note": note, "measurements": measurements}  # fmt: skip
        path = output_folder("results") / "benchmarks" / f"{name}.json"
        write_text(path, json.dumps(content, indent=1) + "\n")
        print(f"Written: {relative(path)}")
