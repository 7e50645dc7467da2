"""What a sweep is to run: its options, and the trials that they name."""

from __future__ import annotations

import argparse
import itertools
import os
import re
from pathlib import Path

from helpers import execute, records
from helpers.files import REPOSITORY, STAND_IN, InputError, first_line
from helpers.profiles import PLACES, PROFILES, check


def parse(words: list[str], about: str) -> argparse.Namespace:
    """The options. Ends with one line for what is wrong."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python run.py sweep", description=about, formatter_class=layout)
    add = parser.add_argument
    add("--notebooks", nargs="+", default=["2"], metavar="N", choices=("1", "2", "3"), help="default: 2")
    add("--set", nargs="+", action="extend", metavar="NAME=A,B", default=[], help="values of a parameter, all tried")
    add("--grid", metavar="FILE", help="the same as JSON or YAML: {NAME: [A, B]}, for lists and texts with commas")
    add("--seeds", default="0", metavar="0-4", help="0, 0,3 or 0-4")
    add("--profile", choices=PROFILES, default="quick")
    add("--data", metavar="DIR", help='where CIFAR-10 is on every machine, or "stand-in"')
    add("--jobs", type=int, metavar="N", help="trials at once on this machine (default: as many as fit)")
    add("--cpus", type=int, default=1, help="threads of a trial (1)")
    add("--gpus", type=float, help="GPUs of a trial, or a share of one (default: one, where there are any)")
    add("--address", metavar="auto|ray://HOST:10001", help="a Ray cluster that runs (default: this machine)")
    add("--in-place", action="store_true", help="seeds of the recipe, to results/ and weights/, where there are none")
    add("--resume", metavar="DIR", help="run what is missing of an earlier sweep")
    options = parser.parse_args(words)
    options.data = options.data and os.path.expanduser(options.data)
    gpus = options.gpus or 0
    for wrong, message in (
        (min(options.cpus, options.jobs or 1) < 1, "--cpus and --jobs: expected at least 1."),
        (gpus < 0 or (gpus > 1 and gpus % 1), f"--gpus {gpus:g}: expected a share of one, or a whole number."),
        (options.in_place and (options.set or options.grid), "--in-place is for the notebooks' own values."),
        (options.in_place and options.profile == "smoke", "--in-place does not take the smoke profile."),
        (options.in_place and (options.data or os.environ.get("CIFAR10_ROOT")) == STAND_IN,
         "--in-place does not take the stand-in, only CIFAR-10."),
        (not options.address and options.data not in (None, STAND_IN) and not os.path.isdir(options.data),
         f"--data {options.data}: no such folder."),
    ):  # fmt: skip
        if wrong:
            raise InputError(message)
    if options.data not in (None, STAND_IN) and not options.address:
        options.data = os.path.abspath(options.data)
    return options


def plan(options: argparse.Namespace) -> list[dict]:
    """Every trial: its number, notebook and values."""
    grid = {}
    if options.grid:
        grid = _read_grid(Path(options.grid))
    for word in options.set:
        name, equals, text = word.partition("=")
        if not equals or not text:
            raise InputError(f'--set {word}: expected NAME=A,B, for example "LEARNING_RATE=0.06,0.12".')
        grid[name] = [execute.literal(part) for part in text.split(",")]
    seeds, trials = _seeds(options.seeds), []
    known = {number: execute.parameters(REPOSITORY / execute.NOTEBOOKS[number]) for number in options.notebooks}
    for name, values in grid.items():
        if not any(name in names for names in known.values()) or name in PLACES | {"SEED"}:
            free = [one for one in next(iter(known.values())) if one not in PLACES | {"SEED"}]
            hint = "--seeds 0-4" if name == "SEED" else ", ".join(free)
            raise InputError(f"--set {name}: there is no such parameter to sweep; expected {hint}.")
        if not values:
            raise InputError(f"{name} has no values: expected some to try.")
        for value in values:
            check(name, value)
        grid[name] = [value for place, value in enumerate(values) if value not in values[:place]]
    for number in known:
        mine = {name: values for name, values in grid.items() if name in known[number]}
        for values in itertools.product(*mine.values()):
            for seed in seeds:
                kept = f"{[*records.MODELS][int(number) - 1]}-{options.profile}-seed{seed}.json"
                if options.in_place and (REPOSITORY / "results" / kept).exists():
                    print(f"results/{kept} is there already.")
                    continue
                settings = dict(zip(mine, values)) | {"SEED": seed}
                trials.append({"trial": f"{len(trials):03d}", "notebook": number, "values": settings})
    return trials


def _read_grid(path: Path) -> dict:
    import yaml  # which reads JSON, too

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"--grid {path}: {first_line(error)}.") from None
    if not isinstance(found, dict) or not all(isinstance(values, list) for values in found.values()):
        raise InputError(f"--grid {path}: expected {{NAME: [A, B]}}.")
    return {name: [execute.literal(one) if isinstance(one, str) else one for one in found[name]] for name in found}


def _seeds(text: str) -> list[int]:
    """ "0-2,5" -> [0, 1, 2, 5]"""
    found = []
    for part in text.split(","):
        ends = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not ends or int(ends[2] or ends[1]) < int(ends[1]):
            raise InputError(f"--seeds {text}: expected numbers, as in 0, 0,3 or 0-4.")
        found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return list(dict.fromkeys(found))
