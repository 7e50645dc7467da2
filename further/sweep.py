"""Many runs of the notebooks, with other values and seeds, on one machine or many: Ray executes, papermill fills in.

python run.py sweep --notebooks 2 --set LEARNING_RATE=0.06,0.12,0.24 --seeds 0-2 --profile quick
python run.py sweep --notebooks 1 2 3 --profile full --seeds 0-2 --in-place      # the seeds of the README's table
python run.py sweep --resume runs/sweep-2026-11-29_18-00-00                      # what is missing of an earlier one

Each combination is one trial: one execution of the notebook, in a folder of its own (docs/sweeps.md).
"""

from __future__ import annotations

import argparse
import importlib.util
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

import psutil

from further import sweep_plan
from helpers import execute, records
from helpers.files import REPOSITORY, STAND_IN, InputError, duration, first_line, new_folder, write_text

SHIPPED = ("*.ipynb", "*.py", "helpers/*.py", "further/*.py", "results/*.json")  # to machines without the repository
PATIENCE = 10  # seconds for a cluster to answer
TRIAL_BYTES = 3_000_000_000  # of memory, about, that a trial takes

# ------------------------------------------------------------------------------------------ one trial


def lacking() -> str:
    """What the machine where this lands does not have, in a line; "" where it has all."""
    missing = [name for name in ("torch", "papermill") if importlib.util.find_spec(name) is None]
    return f"{socket.gethostname()} lacks {', '.join(missing)}: pip install -r requirements.txt there." * bool(missing)


def work(trial: dict, common: dict) -> dict:
    """Execute one trial on the machine where it lands: {"error": why or "", "seconds", "files": {name: content}}."""
    began, here = time.monotonic(), bool(common["folder"])  # the driver's machine, and its disk
    root = REPOSITORY if here else Path.cwd()
    folder = Path(common["folder"] or root / "runs" / common["name"]) / trial["trial"]
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that died
    folder.mkdir(parents=True)
    env = os.environ | common["env"] | {"CIFAR10_OUTPUT": str(folder), "PYTHONPATH": str(root)}
    notebook = root / execute.NOTEBOOKS[trial["notebook"]]
    code = "import json, sys; from pathlib import Path; from helpers import execute; a = json.loads(sys.argv[1]); "
    code += "execute.execute(Path(a[0]), Path(a[1]), a[2])"
    asked = json.dumps([str(notebook), str(folder / notebook.name), trial["values"]])
    done = subprocess.run([sys.executable, "-P", "-c", code, asked], cwd=root, env=env, capture_output=True,
                          encoding="utf-8", errors="replace")  # fmt: skip
    made = [] if here else folder.rglob("*")
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in made if path.is_file()}
    said = done.stderr.strip().splitlines() or ["it ended without a word"]
    error = next((line for line in said if line.startswith(notebook.name)), said[-1]) if done.returncode else ""
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
        memory = psutil.virtual_memory().total // TRIAL_BYTES
        jobs = options.jobs or max(min((os.cpu_count() or 1) // options.cpus, memory), 1)
        ray.init(address="local", num_cpus=jobs * options.cpus, include_dashboard=False, **quiet)
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
    for path in (path for kind in SHIPPED for path in REPOSITORY.glob(kind)):
        place = target / path.relative_to(REPOSITORY)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return target


def run(options: argparse.Namespace, trials: list[dict], folder: Path) -> dict[str, str]:
    """Execute the trials; what each ended with: "" or an error. Files are in `folder` as trials end."""
    ray = connect(options)
    execute.end_like_ctrl_c()  # which Ray has changed
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    nodes = [strategy(node["NodeID"], soft=False) for node in ray.nodes() if node["Alive"] and options.address]
    asked = [ray.remote(num_cpus=0)(lacking).options(scheduling_strategy=node).remote() for node in nodes]
    if lacks := [line for line in ray.get(asked) if line]:
        raise InputError(" ".join(lacks))
    env = {"CIFAR10_PROFILE": options.profile, "JUPYTER_PREFER_ENV_PATH": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    env |= {"CIFAR10_ROOT": options.data} if options.data else {}
    there = ray.cluster_resources()
    gpus = min(there.get("GPU", 0), 1) if options.gpus is None else options.gpus
    env |= {"OMP_NUM_THREADS": str(options.cpus)} | ({} if gpus else {"CUDA_VISIBLE_DEVICES": ""})
    common = {"folder": "" if options.address else str(folder), "name": folder.name, "env": env}
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
                over = "\r" if sys.stdout.isatty() and waiting else "\n"
                print(f"{_progress(ended, len(waiting), int(max(slots, 1)), shown - began):79}", end=over, flush=True)
    finally:
        for one in waiting:
            ray.cancel(one, force=True)
        ray.shutdown()
    return ended


def keep(ray, reference, trial: dict, folder: Path) -> str:
    """Write what a trial gave into its folder; its error."""
    try:
        found = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return first_line(error.cause)
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
            print(f"{execute.shown(path)} stays there: it is unlike its record in results/ ({own}).")
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

    folder = None
    try:
        options = sweep_plan.parse(words, __doc__)
        if options.resume:
            folder = Path(options.resume).resolve()
            try:
                saved = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                raise InputError(f"--resume {options.resume}: expected the folder of a sweep.") from None
            trials = saved.pop("trials")
            vars(options).update(saved)
        else:
            trials = sweep_plan.plan(options)
            if not trials:
                return 0
            if not options.address and not options.data:
                execute.find_data(argparse.Namespace(data=None, in_place=options.in_place))
                options.data = STAND_IN if os.environ.get("CIFAR10_ROOT") == STAND_IN else None
            folder = new_folder("sweep-")
            settings = {key: getattr(options, key) for key in ("profile", "data", "cpus", "gpus", "in_place")}
            write_text(folder / "sweep.json", json.dumps({"trials": trials, **settings}, indent=1) + "\n")
        missing = [trial for trial in trials if not (folder / trial["trial"] / "trial.json").exists()]
        print(f"{len(trials)} trials, {len(trials) - len(missing)} of them done before: {execute.shown(folder)}")
        ended = run(options, missing, folder) if missing else {}
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        go_on = f"; what is done is kept: python run.py sweep --resume {execute.shown(folder)}" if folder else "."
        print(f"\nStopped{go_on}", file=sys.stderr)
        return 130
    if options.in_place:
        put_in_place(folder)
    print(sweep_tables.write(folder, options.profile))
    return int(any(ended.values()))


if __name__ == "__main__":
    execute.end_like_ctrl_c()
    sys.exit(main(sys.argv[1:]))
