"""What a trial costs beside its cells, and how a sweep of many goes: notebooks that do nothing, on Ray.

    python -m benchmarks.sweep [--quick] [--write]
    python -m benchmarks.sweep --example [--write]     # the table and figure of the sweep in results/sweep-example/

In a copy of helpers/ and further/: one trial at a time on Ray and the same execution without it, taking turns; then
many trials at once.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import nbformat
import psutil

from benchmarks.report import options, publish, spread, take_turns
from further import sweep_tables
from helpers import plots
from helpers.files import REPOSITORY, duration

CELL = """import json, os
from pathlib import Path
out = Path(os.environ["CIFAR10_OUTPUT"]) / "results"
out.mkdir()
record = {"model": "custom_cnn", "history": [{"validation_accuracy": 0.5}], "test": {"accuracy": 0.5}}
record["train_seconds"] = 0
(out / f"custom_cnn-smoke-seed{SEED}.json").write_text(json.dumps(record))"""
BARE = """import os, sys
from pathlib import Path
from helpers import execute
source = Path(execute.NOTEBOOKS["2"]).resolve()
for trial in range(int(sys.argv[1])):
    folder = source.parent / "runs" / f"bare-{os.getpid()}-{trial}"
    folder.mkdir(parents=True)
    os.environ["CIFAR10_OUTPUT"] = str(folder)
    execute.execute(source, folder / source.name, {"SEED": trial})"""


def copied(folder: Path, cell: str = CELL, parameters: str = 'PROFILE = "auto"\nSEED = 0') -> Path:
    """What a sweep needs, with a notebook of one cell behind that of its parameters."""
    for name in ("helpers", "further"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.ipynb"))
    shutil.copy(REPOSITORY / "run.py", folder)
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook = nbformat.v4.new_notebook(cells=[first, nbformat.v4.new_code_cell(cell)], metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "2_Model_Training_CNN.ipynb")
    return folder


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds of a command, and the most memory of its own process in bytes."""
    began, most = time.perf_counter(), 0
    env = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            most = max(most, watched.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.2)
    said = process.communicate()[0]
    assert process.returncode == 0 and not re.search(r"[1-9]\d* failed", said), said
    return time.perf_counter() - began, most


def example(write: bool) -> None:
    """What `further.sweep_tables` makes of a sweep whose trials are in the repository."""
    score, table = "validation accuracy", sweep_tables.read(REPOSITORY / "results" / "sweep-example")
    best = sweep_tables.by_setting(table, score)
    rows = [{
        **{name: row[name] for name in sweep_tables.swept(table)}, "seeds": row["seeds"], score: f"{row[score]:.2%}",
        "spread, points": f"{100 * row['spread']:.2f}",
        "95 % interval, points": f"± {100 * row['95 % interval ±']:.2f}",
    } for _, row in best.iterrows()]  # fmt: skip
    if write:
        plots.save(sweep_tables.figure(table, best, score), "sweep_example")
    note = sweep_tables.verdict(table, best, score)
    publish("sweep-example", rows, [], note, ["ray", "papermill"], script="sweep --example", write=write)


def main() -> None:
    parser = options("sweep", __doc__)
    parser.add_argument("--example", action="store_true", help="the table of results/sweep-example/")
    arguments = parser.parse_args()
    if arguments.example:
        return example(arguments.write)
    few, many, rounds = (1, 4, 1) if arguments.quick else (5, 200, 3)
    with tempfile.TemporaryDirectory() as place:
        folder, cores = copied(Path(place) / "project"), os.cpu_count() or 1

        def on_ray(trials: int, jobs: int) -> tuple[float, float]:
            words = ["--seeds", f"0-{trials - 1}", "--jobs", str(jobs), "--data", "stand-in", "--profile", "smoke"]
            return timed([sys.executable, "run.py", "sweep", "--no-venv", *words], folder)

        ways = {
            "Ray, one trial": lambda: on_ray(1, 1)[0],
            "Ray": lambda: on_ray(few + 1, 1)[0],
            "bare": lambda: timed([sys.executable, "-c", BARE, str(few)], folder)[0] / few,
        }
        found = take_turns(ways, rounds)
        starts, bare = found["Ray, one trial"], found["bare"]
        trial = [(more - one) / few for one, more in zip(starts, found["Ray"])]
        seconds, memory = on_ray(many, cores)
    an_hour = f"{duration(seconds)}, {3600 * many / seconds:,.0f} an hour"
    table = [
        {"what": "a trial, executed without Ray", "measured": f"{median(bare):.1f} s ({spread(bare, 1)})"},
        {"what": "one more trial of a sweep", "measured": f"{median(trial):.1f} s ({spread(trial, 1)})"},
        {"what": "Ray's start and end, with the first trial", "measured": f"{median(starts):.1f} s"},
        {"what": f"{many} trials, {cores} at once", "measured": an_hour},
        {"what": "as many times as fast as one after the other", "measured": f"{median(trial) * many / seconds:.1f}"},
        {"what": "the driver's memory then, at most", "measured": f"{memory / 1e6:.0f} MB"},
    ]
    note = f"Trials whose cells do nothing, medians of {rounds} rounds."
    publish("sweep", table, [found], note, ["ray", "papermill"], script="sweep", write=arguments.write)


if __name__ == "__main__":
    main()
