"""Many runs of the notebooks, with other values and seeds, on one machine or many: Ray executes, papermill fills in.

python run.py sweep --notebooks 2 --set LEARNING_RATE=0.06,0.12,0.24 --seeds 0-2 --profile quick
python run.py sweep --notebooks 1 2 3 --profile full --seeds 0-2 --in-place      # the seeds of the README's table
python run.py sweep --resume runs/sweep-2026-11-29_18-00-00                      # what is missing of an earlier one

Each combination is one trial: one execution of the notebook, in a folder of its own (docs/sweeps.md).
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from helpers import execute, records
from helpers.files import REPOSITORY, STAND_IN, InputError, duration, write_text
from helpers.profiles import PROFILES, check

SHIPPED = ("*.ipynb", "*.py", "*.toml", "*.json")  # of the repository's files, to machines that do not have it
PATIENCE = 10  # seconds for a cluster to answer

# ----------------------------------------------------------------------------------------------- the plan


def parse(words: list[str]) -> argparse.Namespace:
    """The options. Ends with one line for what is wrong."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python run.py sweep", description=__doc__, formatter_class=layout)
    add = parser.add_argument
    add("--notebooks", nargs="+", default=["2"], metavar="N", choices=execute.NOTEBOOKS, help="default: 2")
    add("--set", nargs="+", action="extend", metavar="NAME=A,B", default=[], help="values of a parameter, all tried")
    add("--grid", metavar="FILE", help="the same as JSON or YAML: {NAME: [A, B]}, for lists and texts with commas")
    add("--seeds", default="0", metavar="0-4", help="0, 0,3 or 0-4")
    add("--profile", choices=PROFILES, default="quick")
    add("--data", metavar="DIR", help='where CIFAR-10 is on every machine, or "stand-in"')
    add("--jobs", type=int, metavar="N", help="trials at once on this machine (default: as many as fit)")
    add("--cpus", type=int, default=1, help="threads of a trial (1)")
    add("--gpus", type=float, help="GPUs of a trial, or a share of one (default: one, where there are any)")
    add("--address", metavar="auto|ray://HOST:10001", help="a Ray cluster that runs (default: this machine)")
    add("--in-place", action="store_true", help="records and weights go to results/ and weights/, too")
    add("--resume", metavar="DIR", help="run what is missing of an earlier sweep")
    add("--no-venv", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(words)


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
        if not any(name in names for names in known.values()) or name == "SEED":
            hint = "--seeds 0-4" if name == "SEED" else ", ".join(next(iter(known.values())))
            raise InputError(f"--set {name}: there is no such parameter to sweep; expected {hint}.")
        if not isinstance(values, list) or not values:
            raise InputError(f"{name} is {values}: expected a list of values to try.")
        if options.in_place and len(values) > 1:
            raise InputError(f"--in-place keeps one record for each seed: expected one value of {name}, not {values}.")
        for value in values:
            check(name, value)
    for number in options.notebooks:
        mine = {name: values for name, values in grid.items() if name in known[number]}
        for values in itertools.product(*mine.values()):
            for seed in seeds:
                settings = dict(zip(mine, values)) | {"SEED": seed}
                trials.append({"trial": f"{len(trials):03d}", "notebook": number, "values": settings})
    return trials


def _read_grid(path: Path) -> dict:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            found = json.loads(text)
        else:
            import yaml

            found = yaml.safe_load(text)
    except (OSError, ValueError) as error:
        raise InputError(f"--grid {path}: {error}.") from None
    if not isinstance(found, dict):
        raise InputError(f"--grid {path}: expected {{NAME: [A, B]}}.")
    return found


def _seeds(text: str) -> list[int]:
    """ "0-2,5" -> [0, 1, 2, 5]"""
    found = []
    for part in text.split(","):
        ends = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not ends or int(ends[2] or ends[1]) < int(ends[1]):
            raise InputError(f"--seeds {text}: expected numbers, as in 0, 0,3 or 0-4.")
        found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return list(dict.fromkeys(found))


# ------------------------------------------------------------------------------------------ one trial


def work(trial: dict, common: dict) -> dict:
    """Execute one trial on the machine where it lands: {"error": why or "", "seconds", "files": {name: content}}."""
    began, root = time.monotonic(), Path(common["root"] or os.getcwd())
    missing = [name for name in ("torch", "papermill") if importlib.util.find_spec(name) is None]
    if missing or not (root / "helpers").is_dir():
        lacks = ", ".join(missing) or "the repository"
        return {"error": f"{socket.gethostname()} lacks {lacks}: pip install -r requirements.txt there.",
                "seconds": 0.0, "files": {}}  # fmt: skip
    folder = root / "runs" / common["name"] / trial["trial"]
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that died
    folder.mkdir(parents=True)
    env = os.environ | common["env"] | {"CIFAR10_OUTPUT": str(folder), "PYTHONPATH": str(root)}
    notebook = root / execute.NOTEBOOKS[trial["notebook"]]
    code = "import json, sys; from pathlib import Path; from helpers import execute; a = json.loads(sys.argv[1]); "
    code += "execute.execute(Path(a[0]), Path(a[1]), a[2])"
    asked = json.dumps([str(notebook), str(folder / notebook.name), trial["values"]])
    done = subprocess.run([sys.executable, "-P", "-c", code, asked], cwd=root, env=env, capture_output=True, text=True)
    made = [] if common["root"] else folder.rglob("*")  # on the driver's own disk they are where they belong
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in made if path.is_file()}
    error = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it ended without a word"])[0]
    return {"error": error, "seconds": time.monotonic() - began, "files": files, "host": socket.gethostname()}


# ----------------------------------------------------------------------------------------------- on Ray


def connect(options: argparse.Namespace):
    """Ray, started here or found; one line where it is not to be found."""
    os.environ |= {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
    if options.address and Path.home().joinpath(".ray", "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # `ray start` asks for it where there is one
    import ray

    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if not options.address:
        jobs = options.jobs or max((os.cpu_count() or 1) // options.cpus, 1)
        ray.init(num_cpus=jobs * options.cpus, include_dashboard=False, **quiet)  # (it finds the GPUs itself)
        if (options.gpus or 0) > (here := ray.cluster_resources().get("GPU", 0)):
            raise InputError(f"--gpus {options.gpus:g}: this machine has {here:g}.")
        return ray
    if (place := re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", options.address)) is not None:
        try:
            socket.create_connection((place[1], int(place[2])), PATIENCE).close()
        except OSError as error:
            raise InputError(f"--address {options.address}: nothing answers there ({error}).") from None
    environment = {"working_dir": str(shipped()), "env_vars": {"PYTHONPATH": "."}}
    try:
        ray.init(address=options.address, runtime_env=environment, **quiet)
    except Exception as error:
        hint = "was the cluster started as docs/sweeps.md says?"
        raise InputError(f"--address {options.address}: {str(error).splitlines()[0]} ({hint})") from None
    return ray


def shipped() -> Path:
    """A copy of what a trial needs of this repository, for machines that do not have it."""
    target = REPOSITORY / "runs" / "shipped"
    shutil.rmtree(target, ignore_errors=True)
    folders = (".", "helpers", "further", "results")
    for path in (p for folder in folders for kind in SHIPPED for p in (REPOSITORY / folder).glob(kind)):
        place = target / path.relative_to(REPOSITORY)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return target


def run(options: argparse.Namespace, trials: list[dict], folder: Path) -> dict[str, str]:
    """Execute the trials; what each ended with: "" or an error. Files are in `folder` as trials end."""
    ray = connect(options)
    env = {"CIFAR10_PROFILE": options.profile}
    env |= {"CIFAR10_ROOT": options.data} if options.data else {}
    there = ray.cluster_resources()
    gpus = min(there.get("GPU", 0), 1) if options.gpus is None else options.gpus
    env |= {"OMP_NUM_THREADS": str(options.cpus)} | ({} if gpus else {"CUDA_VISIBLE_DEVICES": ""})
    common = {"root": "" if options.address else str(REPOSITORY), "name": folder.name, "env": env}
    task = ray.remote(num_cpus=options.cpus, num_gpus=gpus, max_retries=5)(work)
    waiting = {task.remote(trial, common): trial for trial in trials}
    ended: dict[str, str] = {}
    slots = min(there.get("CPU", 1) // options.cpus, there.get("GPU", 0) // gpus if gpus else math.inf)
    began, shown = time.monotonic(), 0.0
    try:
        while waiting:
            ready, _ = ray.wait([*waiting], timeout=1)
            for one in ready:
                trial = waiting.pop(one)
                ended[trial["trial"]] = keep(ray, one, trial, folder)
                if ended[trial["trial"]]:
                    print(f"trial {trial['trial']} {_words(trial)} failed: {ended[trial['trial']]}", flush=True)
            if time.monotonic() - shown > (2 if sys.stdout.isatty() else 30) or not waiting:
                shown = time.monotonic()
                print(_progress(ended, len(waiting), int(max(slots, 1)), shown - began), flush=True)
    finally:
        for one in waiting:
            ray.cancel(one, force=True)
        ray.shutdown()
    return ended


def keep(ray, reference, trial: dict, folder: Path) -> str:
    """Write what a trial gave into its folder; its error."""
    try:
        found = ray.get(reference)
    except ray.exceptions.RayError as error:
        return f"its machine was lost ({type(error).__name__})"
    place = folder / trial["trial"]
    for name, content in found["files"].items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    if not found["error"]:
        kept = {key: found[key] for key in ("seconds", "host")}
        write_text(place / "trial.json", json.dumps(trial | kept, indent=1) + "\n")
    return found["error"]


def put_in_place(folder: Path) -> None:
    """The records of the recipe to results/, their weights to weights/; what is unlike its record there stays."""
    for path in sorted(folder.glob("*/results/*.json")):
        if own := records.own_folder(json.loads(path.read_text(encoding="utf-8"))):
            print(f"{execute.shown(path)} stays there: results/ has no place for {own}.")
            continue
        for made in (path, records.weights_path(path)):
            if made.exists():
                place = REPOSITORY / made.parent.name / made.name
                place.parent.mkdir(exist_ok=True)
                shutil.copy(made, place)


def _words(trial: dict) -> str:
    return ", ".join(f"{name} = {value}" for name, value in trial["values"].items())


def _progress(ended: dict[str, str], left: int, slots: int, seconds: float) -> str:
    failed, running = sum(map(bool, ended.values())), min(left, slots)
    half = running / 2  # of what runs is done
    rest = f", about {duration(seconds / (len(ended) + half) * (left - half))} left" if ended and left else ""
    return f"{len(ended) - failed} done, {running} running, {left - running} waiting, {failed} failed{rest}"


# ---------------------------------------------------------------------------------------------- all of it


def main(words: list[str]) -> int:
    """The exit status: 0 when all ran, 1 when a trial failed, 2 for bad input, 130 after Ctrl-C."""
    from further import sweep_tables

    try:
        options = parse(words)
        if options.resume:
            folder = Path(options.resume).resolve()
            try:
                saved = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                raise InputError(f"--resume {options.resume}: expected the folder of a sweep.") from None
            trials = saved.pop("trials")
            vars(options).update(saved)
        else:
            trials = plan(options)
            folder = REPOSITORY / "runs" / time.strftime("sweep-%Y-%m-%d_%H-%M-%S")
            folder.mkdir(parents=True)
            settings = {key: getattr(options, key) for key in ("profile", "data", "cpus", "gpus", "in_place")}
            write_text(folder / "sweep.json", json.dumps({"trials": trials, **settings}, indent=1) + "\n")
        missing = [trial for trial in trials if not (folder / trial["trial"] / "trial.json").exists()]
        print(f"{len(trials)} trials, {len(trials) - len(missing)} of them done before: {execute.shown(folder)}")
        if not options.address and not options.data and missing:
            execute.find_data(argparse.Namespace(data=None, in_place=options.in_place))
            options.data = STAND_IN if os.environ.get("CIFAR10_ROOT") == STAND_IN else None
        ended = run(options, missing, folder) if missing else {}
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nStopped; what is done is kept: python run.py sweep --resume {execute.shown(folder)}", file=sys.stderr)
        return 130
    if options.in_place:
        put_in_place(folder)
    print(sweep_tables.write(folder, options.profile))
    return int(any(ended.values()))


if __name__ == "__main__":
    execute.end_like_ctrl_c()
    sys.exit(main(sys.argv[1:]))
