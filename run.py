#!/usr/bin/env python3
"""The one command: set up, run the notebooks, test, report. It needs Python 3.11 or newer and nothing else.

python run.py                            set up if needed, find CIFAR-10, run the three notebooks
python run.py --profile quick            minutes on a CPU (full: the headline recipe; smoke: seconds)
python run.py --notebooks 2 3 --set EPOCHS=3 LEARNING_RATE=0.01
python run.py --data ~/datasets          the folder that holds cifar-10-batches-py or its archive
python run.py test -k metrics            set up, then pytest with what follows
python run.py report                     rebuild the README's tables from results/
python run.py lab                        open JupyterLab
python run.py setup                      only make .venv and install requirements.txt

Executed copies and their HTML go to runs/<time>/; the notebooks of the repository change with --in-place only.
Exit status: 0 when everything ran, 1 when something failed, 2 for bad input, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import difflib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
STAMP = VENV / "installed.txt"  # what was installed: the hash of requirements.txt and Python's version
INSTALLING = "installing"  # what the stamp says meanwhile
RUNS = HERE / "runs"
NOTEBOOKS = {
    1: "1_EDA_CIFAR10.ipynb",
    2: "2_Model_Training_CNN.ipynb",
    3: "3_Model_Training_ResNet.ipynb",
}
COMMANDS = ("setup", "test", "report", "lab")
PROFILES = ("full", "quick", "smoke")
STAND_IN = "stand-in"
INSTALLED_GB = 8  # of .venv on Linux, most of it CUDA; about 3 elsewhere
POLL = 0.5  # seconds between two looks at a child process


class Stop(Exception):
    """What a person is told instead of a traceback, with the exit status: 1 failed, 2 bad input."""

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status


# ---------------------------------------------------------------------------------------- what is shown


def duration(seconds: float) -> str:
    """ "45 s", "3 min 20 s" or "2 h 05 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def shown(path: Path) -> str:
    """`path` relative to the folder that the person is in, where it lies below it; else in full."""
    path = Path(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


class Line:
    """One line that is rewritten in place on a terminal; elsewhere its start and its end are printed."""

    def __init__(self, start: str):
        self._terminal, self._width = sys.stdout.isatty(), 0
        self.show(start) if self._terminal else print(start)

    def show(self, text: str) -> None:
        if self._terminal:
            text = text[: shutil.get_terminal_size().columns - 1]
            print("\r" + text.ljust(self._width), end="", flush=True)
            self._width = len(text)

    def end(self, text: str) -> None:
        print("\r" + " " * self._width + "\r" + text if self._terminal else text)


# --------------------------------------------------------------------------------------- child processes


def environment() -> dict[str, str]:
    """For every child: `import helpers` works, TensorFlow does not chatter, the kernel is this environment's own."""
    paths = [str(HERE), os.environ.get("PYTHONPATH", "")]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "JUPYTER_PREFER_ENV_PATH": "1", "PYTHONIOENCODING": "utf-8"}
    env = {**quiet, **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    root = env.get("CIFAR10_ROOT")
    if root and root != STAND_IN:
        env["CIFAR10_ROOT"] = os.path.abspath(os.path.expanduser(root))  # children run in another folder
    url = env.get("CIFAR10_URL")
    if url and ":" not in url:  # a path
        env["CIFAR10_URL"] = os.path.abspath(os.path.expanduser(url))
    return env


def start(command: list, output, errors=subprocess.STDOUT, env: dict[str, str] | None = None) -> subprocess.Popen:
    """A child in its own session, so that Ctrl-C reaches it from here and not a second time from the terminal."""
    words = [str(word) for word in command]
    return subprocess.Popen(
        words, cwd=HERE, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
    )


def watch(process: subprocess.Popen, look: Callable[[], None]) -> int:
    """Wait for `process`, calling `look` now and then; its exit status. On Ctrl-C it is stopped first."""
    try:
        while True:
            try:
                return process.wait(POLL)
            except subprocess.TimeoutExpired:
                look()
    except BaseException:
        stop(process)
        raise


def stop(process: subprocess.Popen) -> None:
    """Interrupt a child so that it can save what it has; end it harder where it does not react."""
    if os.name == "posix":  # on Windows, the console has told it already
        process.send_signal(signal.SIGINT)
    try:
        for harder in (None, process.terminate):
            if harder:
                harder()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
                return
        process.kill()
    except KeyboardInterrupt:  # asked for twice
        process.kill()
    process.wait()


def last_lines(path: Path, count: int = 1) -> list[str]:
    """The last non-empty lines of a log, progress bars in their final state."""
    try:
        text = path.read_bytes()[-20_000:].decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in on_screen(text).splitlines() if line.strip()][-count:]


def hand_over(command: list, env: dict[str, str]) -> int:
    """Run a command that has the terminal to itself; it decides what Ctrl-C means."""
    process = subprocess.Popen([str(word) for word in command], cwd=HERE, env=env)
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            return process.wait()


# -------------------------------------------------------------------------------------------- setting up


def set_up(use_venv: bool, modules: list[str]) -> Path:
    """The Python to use: .venv's, made and filled where needed; or the one that runs this, which has `modules`."""
    if use_venv:
        return make_venv()
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise Stop(
            f"this Python has no {', '.join(missing)}: python -m pip install -r requirements.txt, "
            "or leave out --no-venv to have it done in .venv."
        )
    return Path(sys.executable)


def make_venv() -> Path:
    """.venv's Python, with what requirements.txt asks for; nothing is done, or fetched, when that is in place."""
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    try:
        digest = hashlib.sha256((HERE / "requirements.txt").read_bytes()).hexdigest()
    except OSError as error:
        raise Stop(f"requirements.txt cannot be read ({error.strerror}): git checkout requirements.txt") from None
    version = python_version(python)
    if version is None or cut_short():
        create_venv()
        version = python_version(python)
        if version is None:
            raise Stop(f"{shown(python)} does not run: delete {shown(VENV)} and run this again.")
    if read_stamp() != f"{digest} {version}":
        install(python)
        write_text(STAMP, f"{digest} {version}\n")
    return python


def python_version(python: Path) -> str | None:
    """ "3.11", or None where there is no Python of a complete environment (with pip) that this project can use."""
    code = "import sys, pip; print('%d.%d' % sys.version_info[:2]); sys.exit(sys.version_info < (3, 11))"
    try:
        result = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def read_stamp() -> str:
    try:
        return STAMP.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def cut_short() -> bool:
    """Whether an installation was killed while it copied files: pip would take half a package for a whole one."""
    try:
        log = (RUNS / "install.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return read_stamp() == INSTALLING
    return read_stamp() == INSTALLING and "Installing collected" in log


def create_venv() -> None:
    """Make .venv, or make it anew where a half-made one is in the way."""
    if VENV.is_dir():
        print(f"{shown(VENV)} is incomplete: making it anew.")
    else:
        print(f"Making {shown(VENV)}.")
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if result.returncode:
        lines = (result.stdout + result.stderr).strip().splitlines() or ["no message"]
        hint = "On Debian and Ubuntu: sudo apt install python3-venv. Or use an environment of your own: --no-venv."
        raise Stop(f"{shown(VENV)} could not be made: {' '.join(lines[-3:])}\n{hint}")


def install(python: Path) -> None:
    """pip install -r requirements.txt, as one line that says where it is; the whole log is in runs/install.log."""
    RUNS.mkdir(exist_ok=True)
    log = RUNS / "install.log"
    free = shutil.disk_usage(HERE).free / 1e9
    if free < INSTALLED_GB:
        print(f"Note: {free:.1f} GB are free here; installing needs about {INSTALLED_GB} GB on Linux, 3 GB elsewhere.")
    if sys.version_info >= (3, 14):
        print("Note: this Python is newer than what the project was tested with (3.11 to 3.13).")
    STAMP.write_text(INSTALLING, encoding="utf-8")
    title, began = "Installing requirements.txt into .venv", time.monotonic()
    line = Line(f"{title} (several GB the first time; log: {shown(log)})")

    def look() -> None:
        last = (last_lines(log) or [""])[-1]
        line.show(f"{title}, {duration(time.monotonic() - began)}: {last.split(' (from')[0]}")

    words = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "-r", "requirements.txt"]
    with open(log, "wb") as file:
        status = watch(start([python, *words], file), look)
    if status:
        line.end("Installing requirements.txt failed.")
        raise Stop(install_failure(log))
    line.end(f"Installed requirements.txt into .venv, {duration(time.monotonic() - began)}.")


def install_failure(log: Path) -> str:
    """The last errors of pip's log, and what to do about them."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.startswith("ERROR")][-3:] or last_lines(log, 3)
    hint = "Run it again, it goes on from what was downloaded."
    if "No space left" in text:
        hint = f"The disk is full: about {INSTALLED_GB} GB are needed on Linux, 3 GB elsewhere."
    elif re.search("connection|resolution|timed out|proxy|SSLError", text, re.IGNORECASE):
        hint = "The network seems to be missing or blocked: run it again once it is there."
    elif "No matching distribution" in text:
        hint = "There may be no packages for this Python or machine: Python 3.11 to 3.13, 64 bit, is tested."
    return "\n".join([*lines, f"{hint} The whole log: {shown(log)}"])


# ---------------------------------------------------------------------------------- notebooks, parameters


def read_notebook(path: Path) -> dict:
    """Raises Stop where it is missing or damaged."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        position(notebook)  # reads every cell
        return notebook
    except FileNotFoundError:
        raise Stop(f"{path.name} is not beside run.py: git checkout {path.name}", 2) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise Stop(f"{path.name} is not a readable notebook ({why}): git checkout {path.name}", 2) from None


def parameters(path: Path) -> list[str]:
    """The upper-case names that the notebook's cell tagged `parameters` assigns, in order."""
    for cell in read_notebook(path)["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            try:
                lines = ast.parse("".join(cell["source"])).body
            except SyntaxError as error:
                raise Stop(f"{path.name}: its parameters cell is not plain Python ({error}).", 2) from None
            targets = [line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
                       for line in lines]  # fmt: skip
            return [target.id for target in targets if isinstance(target, ast.Name) and target.id.isupper()]
    return []


def parse_settings(words: list[str]) -> dict[str, object]:
    """{"EPOCHS": 3} from ["EPOCHS=3"]: Python literals, true and false, and text for the rest."""
    values = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            raise Stop(f'--set {word}: expected NAME=VALUE, for example "--set EPOCHS=3".', 2)
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = {"true": True, "false": False}.get(text.lower(), text)
        try:
            as_yaml(value)
        except TypeError:
            raise Stop(f"--set {word}: expected a number, text, True, False, None, a list or a dict.", 2) from None
        values[name] = value
    return values


def as_yaml(value: object) -> str:
    """JSON, which is YAML but for floats: YAML 1.1 takes 1e-05 for text, and 1.0e-05 for a number."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_yaml(key)}: {as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if isinstance(value, float):
        return str(value) if "." in str(value) else str(value).replace("e", ".0e")
    return json.dumps(value, ensure_ascii=False)


def assign(values: dict[str, object], known: dict[Path, list[str]]) -> dict[Path, dict[str, object]]:
    """Each notebook's share of `values`. Raises Stop for a name that none of them has."""
    everything = [name for names in known.values() for name in names]
    for name in values:
        if name not in everything:
            close = difflib.get_close_matches(name.upper(), everything, 1)
            guess = f" (did you mean {close[0]}?)" if close else ""
            exist = "; ".join(f"{path.stem} has {', '.join(names) or 'none'}" for path, names in known.items())
            raise Stop(f"--set {name}: there is no such parameter{guess}. {exist}.", 2)
    return {path: {name: values[name] for name in names if name in values} for path, names in known.items()}


# ------------------------------------------------------------------------------------------------- data


def check_data(data: str | None) -> str | None:
    """The value for CIFAR10_ROOT: an absolute folder, "stand-in" or None. Raises Stop for one that cannot be read."""
    if data is None or data == STAND_IN:
        return data
    folder = Path(os.path.abspath(os.path.expanduser(data)))
    try:
        os.listdir(folder if data else data)
    except OSError as error:
        raise Stop(
            f"--data {data}: that folder cannot be read ({error.strerror}); expected the one that holds "
            "cifar-10-batches-py or cifar-10-python.tar.gz, or an empty one to download into.", 2
        ) from None  # fmt: skip
    return str(folder)


def find_data(python: Path, root: str | None, env: dict[str, str]) -> bool:
    """Find or fetch CIFAR-10 and say where it came from; whether it is there. Raises Stop if `root` has none."""
    began, line = time.monotonic(), Line("CIFAR-10: looking for it")
    command = [python, "-m", "helpers.data", *(["--root", root] if root else [])]
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder) / "output", Path(folder) / "errors"

        def look() -> None:
            last = (last_lines(errors) or last_lines(output) or ["looking for it"])[-1]
            line.show(last if "from" in last else f"CIFAR-10, {duration(time.monotonic() - began)}: {last}")

        with open(output, "wb") as out, open(errors, "wb") as err:
            status = watch(start(command, out, err, env), look)
        said, explained = last_lines(output, 100), last_lines(errors, 100)
    if any(text.startswith("Traceback") for text in explained) or status not in (0, 1):
        line.end("CIFAR-10: looking for it failed.")
        raise Stop(f"python -m helpers.data failed: {(explained or ['no message'])[-1]}")
    if status == 0:
        line.end(next((text for text in said if text.startswith("CIFAR-10: ")), "CIFAR-10 is there."))
        return True
    line.end("CIFAR-10: not found.")
    if root or env.get("CIFAR10_ROOT"):
        named = "--data" if root else "CIFAR10_ROOT"
        raise Stop("\n".join([f"{named}: " + (explained or ["it holds no CIFAR-10"])[0], *explained[1:]]), 2)
    rule = "=" * 100
    print(rule, "CIFAR-10 IS NOT HERE. The notebooks run on drawn shapes instead (the stand-in), to show that they",
          "work; their numbers say nothing about CIFAR-10. What was tried, and how to provide the data:", "",
          *explained, "Then: python run.py, or python run.py --data /path/to/folder", rule, sep="\n")  # fmt: skip
    return False


# -------------------------------------------------------------------------------------------- executing


@dataclass
class Position:
    """Where a notebook is: code cell `cell` of `cells` (from 1; 0 before the first), in the section `heading`."""

    cell: int = 0
    cells: int = 0
    heading: str = ""
    code: str = ""  # the cell's first line
    detail: str = ""  # what its progress bar says
    error: str = ""  # "ValueError: ..." where it failed

    def __str__(self) -> str:
        if self.cell == 0:
            return "starting"
        return ", ".join(filter(None, [f"cell {self.cell} of {self.cells}", self.heading, self.detail]))


def position(notebook: dict) -> Position:
    """The cell that papermill has marked as running or failed, else the last one that has ended."""
    here, heading, count = Position(), "", 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            headings = re.findall(r"^#+ +(.+?)[ #]*$", source, re.MULTILINE)
            heading = headings[-1] if headings else heading
        if cell["cell_type"] != "code":
            continue
        count += 1
        status = cell["metadata"].get("papermill", {}).get("status", "pending")
        errors = [output for output in cell["outputs"] if output["output_type"] == "error"]
        if status == "pending" or here.error:
            continue
        code = next((line.strip() for line in source.splitlines() if line.strip() and line.strip()[0] not in "#%"), "")
        here = Position(cell=count, heading=heading, code=code)
        if errors:
            here.error = f"{errors[0]['ename']}: {errors[0]['evalue']}".removesuffix(": ")
        if status == "running":
            text = "".join("".join(out["text"]) for out in cell["outputs"] if out["output_type"] == "stream")
            bars = re.findall(r"^.*?\d%", on_screen(text[-2_000:]), re.MULTILINE)
            here.detail = bars[-1] if bars else ""
    here.cells = count
    return here


class Copy:
    """The executed copy that papermill writes while it goes; a read that meets a half-written file keeps the last."""

    def __init__(self, path: Path):
        self.path, self.notebook, self._stamp = path, None, None

    def look(self) -> Position:
        try:
            stamp = self.path.stat().st_mtime_ns
            if stamp != self._stamp:
                self.notebook, self._stamp = json.loads(self.path.read_text(encoding="utf-8")), stamp
        except (OSError, ValueError):
            pass
        return position(self.notebook) if self.notebook else Position()


def execute(python: Path, source: Path, folder: Path, values: dict[str, object], env: dict[str, str]) -> Path:
    """Run one notebook into `folder`, with one line that says where it is; the executed copy, tidied, with its HTML.

    Raises Stop, naming the cell and the error, where a cell fails; the copy up to it is kept, also after Ctrl-C.
    """
    executed, log = Copy(folder / source.name), folder / f"{source.stem}.log"
    began, last = time.monotonic(), Position()
    line = Line(f"{source.stem}: starting")

    def look() -> None:
        nonlocal last
        last = executed.look()
        line.show(f"{source.stem}: {last}, {duration(time.monotonic() - began)}")

    # Paths relative to HERE, where every child runs: papermill would format braces in a full one.
    command = [python, "-m", "papermill", source.relative_to(HERE), executed.path.relative_to(HERE)]
    command += ["-k", "python3", "--no-progress-bar", "--autosave-cell-every", "5"]
    if values:
        command += ["-y", as_yaml(values)]
    try:
        with open(log, "wb") as file:
            status = watch(start(command, file, env=env), look)
    except KeyboardInterrupt:
        here = executed.look()
        line.end(f"{source.stem}: stopped in {here}.")
        again = "Run the same command again: training goes on from its last finished epoch."
        raise KeyboardInterrupt(f"{keep(executed, log)} {again}") from None
    here = executed.look()
    if status == 0 and executed.notebook:
        line.end(f"{source.stem}: all {here.cells} cells ran, {duration(time.monotonic() - began)}.")
        keep(executed, log)
        to_html(python, executed.path, log, env)
        return executed.path
    line.end(f"{source.stem}: failed, {duration(time.monotonic() - began)}.")
    kept = keep(executed, log)
    if executed.notebook:
        with contextlib.suppress(Stop):
            to_html(python, executed.path, log, env)
    raise Stop(f"{source.name} {failure(here if here.error else last, log)}\n{kept}")


def failure(here: Position, log: Path) -> str:
    """In which cell, and why, in a few lines."""
    cause = "\n".join(here.error.splitlines()[:5])
    if not cause:
        cause = (last_lines(log) or ["no message"])[-1]
        if "DeadKernel" in cause or "Kernel died" in cause:
            cause = "its process died, most often because memory ran out."
    if here.cell == 0:
        return f"did not start: {cause}"
    return f"failed in cell {here.cell} of {here.cells} ({here.code[:70]}): {cause}"


def keep(executed: Copy, log: Path) -> str:
    """Tidy the executed copy; a sentence that says where it is."""
    if not executed.notebook:
        return f"Log: {shown(log)}."
    write_text(executed.path, json.dumps(tidy(executed.notebook), indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    return f"Executed so far: {shown(executed.path)}."


def to_html(python: Path, path: Path, log: Path, env: dict[str, str]) -> None:
    words = ["-m", "nbconvert", "--to", "html", "--output-dir", path.parent, path]
    with open(log, "ab") as file:
        status = watch(start([python, *words], file, env=env), lambda: None)
    if status:
        raise Stop(f"{path.name} could not be turned into HTML: {(last_lines(log) or ['no message'])[-1]}")


# ------------------------------------------------------------------------------------------------- tidying


def tidy(notebook: dict) -> dict:
    """The executed notebook as a reader should get it: progress bars in their final state, no paths, no timings."""
    notebook = copy.deepcopy(notebook)
    notebook["nbformat"], notebook["nbformat_minor"] = 4, max(5, notebook.get("nbformat_minor", 5))
    notebook["metadata"].pop("papermill", None)
    for number, cell in enumerate(notebook["cells"]):
        cell.setdefault("id", f"cell-{number}")
        for key in ("papermill", "execution"):
            cell["metadata"].pop(key, None)
        if cell["cell_type"] == "code":
            cell["outputs"] = tidy_outputs(cell["outputs"])
            cell.setdefault("execution_count", None)
    return notebook


def tidy_outputs(outputs: list[dict]) -> list[dict]:
    """Neighbouring stdout streams as one, as a terminal shows it; empty ones are left out."""
    tidied = []
    for output in outputs:
        if output["output_type"] != "stream" or output["name"] != "stdout":
            tidied.append(output)
            continue
        text = "".join(output["text"])
        if tidied and tidied[-1].get("name") == "stdout":
            tidied[-1]["text"] += text
        else:
            tidied.append({**output, "text": text})
    for output in tidied:
        if output.get("name") == "stdout":
            output["text"] = on_screen(output["text"]).splitlines(keepends=True)
    return [output for output in tidied if output.get("name") != "stdout" or "".join(output["text"]).strip("\n ")]


def on_screen(text: str) -> str:
    """What a terminal shows in the end: carriage returns, backspaces, cursor up and erasing carried out."""
    text = text.replace("\r\n", "\n")
    if not re.search(r"[\r\b]|\x1b\[\d*[AK]", text):
        return text
    rows, row, column, style = [[]], 0, 0, ""
    for token in re.findall(r"\x1b\[[\d;?]*[A-Za-z]|[^\x1b]", text):
        if style and token in "\n\r\b" and 0 < column <= len(rows[row]):
            rows[row][column - 1] += style  # nothing follows here that it could belong to
            style = ""
        if token == "\n":
            row, column = row + 1, 0
            if row == len(rows):
                rows.append([])
        elif token == "\r":
            column = 0
        elif token == "\b":
            column = max(column - 1, 0)
        elif token.endswith("A") and len(token) > 1:
            row = max(row - int(token[2:-1] or 1), 0)
        elif token.endswith("K") and len(token) > 1:
            del rows[row][column:]
        elif token.endswith("m") and len(token) > 1:
            style += token  # a colour belongs to the character after it
        elif len(token) == 1:
            rows[row] += [" "] * (column + 1 - len(rows[row]))
            rows[row][column] = style + token
            column, style = column + 1, ""
    rows[-1].append(style)
    return "\n".join("".join(cells).rstrip(" ") for cells in rows)


def write_text(path: Path, text: str) -> None:
    """Write beside the file, then move into place: a failure leaves the old file as it was."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


# ----------------------------------------------------------------------------------------------- commands


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise Stop(f"run.py: {message} (python run.py --help shows what there is)", 2)


def parser() -> Parser:
    usage, *rest = __doc__.split("\n\n")
    options = Parser(
        prog="run.py", description=usage, epilog="\n\n".join(rest), allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="python run.py [setup | test | report | lab] [options]",
    )  # fmt: skip
    options.add_argument("--profile", choices=PROFILES, help="default: full with a GPU, quick without")
    options.add_argument("--data", metavar="DIR", help='where CIFAR-10 is, or "stand-in" to do without it')
    options.add_argument("--notebooks", nargs="+", action="extend", metavar="N", help="which to run (default: 1 2 3)")
    options.add_argument("--set", nargs="+", action="extend", metavar="NAME=VALUE", dest="settings", default=[],
                         help="other values for the notebooks' parameters cells")  # fmt: skip
    options.add_argument("--in-place", action="store_true", help="update the notebooks, Images/ and results/ here")
    options.add_argument("--no-venv", action="store_true", help="use this Python as it is and install nothing")
    return options


def choose_notebooks(numbers: list[str] | None) -> list[Path]:
    for number in numbers or []:
        if number not in map(str, NOTEBOOKS):
            raise Stop(f"--notebooks {number}: there is no such notebook; expected 1, 2 or 3.", 2)
    return [HERE / NOTEBOOKS[number] for number in sorted({int(n) for n in numbers or NOTEBOOKS})]


def check_in_place(arguments: argparse.Namespace, root: str | None) -> None:
    """Nothing but whole runs on CIFAR-10, with the parameters that the notebooks show, goes into the repository."""
    if arguments.settings:
        raise Stop("--in-place keeps the notebooks' own parameters: edit their parameters cells instead of --set.", 2)
    if (arguments.profile or os.environ.get("CIFAR10_PROFILE")) == "smoke":
        raise Stop("--in-place does not take the smoke profile: its results are not worth keeping.", 2)
    if (root or os.environ.get("CIFAR10_ROOT")) == STAND_IN:
        raise Stop("--in-place does not take the stand-in: only runs on CIFAR-10 go into the repository.", 2)


def new_folder() -> Path:
    """runs/<time>, made; another run within the same second gets a number behind it."""
    RUNS.mkdir(exist_ok=True)
    name = time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in range(1, 100):
        with contextlib.suppress(FileExistsError):
            folder = RUNS / (name if number == 1 else f"{name}-{number}")
            folder.mkdir()
            return folder
    raise Stop(f"{shown(RUNS)} has a hundred runs of this second.")


def run(words: list[str]) -> int:
    """Set up, find the data, run the notebooks in order, and say what came out."""
    began = time.monotonic()
    arguments = parser().parse_args(words)
    notebooks = choose_notebooks(arguments.notebooks)
    known = {path: parameters(path) for path in notebooks}
    values = assign(parse_settings(arguments.settings), known)
    root = check_data(arguments.data)
    if arguments.in_place:
        check_in_place(arguments, root)
    for name in ("SIGTERM", "SIGHUP"):  # a closed terminal, a job that is cancelled: end as after Ctrl-C
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)

    python = set_up(not arguments.no_venv, ["papermill", "nbconvert", "ipykernel", "numpy"])
    env = environment()
    if root:
        env["CIFAR10_ROOT"] = root
    stand_in = env.get("CIFAR10_ROOT") == STAND_IN
    if stand_in:
        print("Data: drawn shapes (the stand-in), as asked. The numbers say nothing about CIFAR-10.")
    elif not find_data(python, root, env):
        if arguments.in_place:
            raise Stop("--in-place was not started: only runs on CIFAR-10 go into the repository.")
        env["CIFAR10_ROOT"], stand_in = STAND_IN, True
    if arguments.profile:
        env["CIFAR10_PROFILE"] = arguments.profile

    folder = new_folder()
    env["CIFAR10_OUTPUT"] = str(HERE if arguments.in_place else folder)
    for path in notebooks:
        executed = execute(python, path, folder, values[path], env)
        if arguments.in_place:
            write_text(path, executed.read_text(encoding="utf-8"))
    return conclude(python, folder, env, arguments.in_place, stand_in, time.monotonic() - began)


def conclude(python: Path, folder: Path, env: dict[str, str], in_place: bool, stand_in: bool, seconds: float) -> int:
    """The comparison table, and where everything is; the exit status."""
    status, output = 0, Path(env["CIFAR10_OUTPUT"])
    print()
    if any((output / "results").glob("*.json")):
        status = hand_over([python, "-m", "helpers.results", "--table"], env)
        print()
    if stand_in:
        print("These numbers are from the stand-in, not from CIFAR-10.")
    print(f"Executed notebooks, as .ipynb and .html: {shown(folder)}")
    for kind, name in (("Records", "results"), ("Figures", "Images")):
        if (output / name).is_dir():
            print(f"{kind}: {shown(output / name)}")
    if in_place:
        print("The notebooks here are up to date; python run.py report rebuilds the README's tables.")
    print(f"Total time: {duration(seconds)}")
    return 1 if status else 0


def command(name: str, words: list[str], use_venv: bool) -> int:
    """One of COMMANDS, with what follows it on the command line."""
    modules = {"test": ["pytest", "nbval"], "report": ["pandas"], "lab": ["jupyterlab"]}
    python = set_up(use_venv, modules.get(name, []))
    if name == "setup":
        print(f"Ready: {shown(python)}")
        return 0
    what = {"test": ["pytest"], "report": ["helpers.results"], "lab": ["jupyter", "lab"]}[name]
    return hand_over([python, "-m", *what, *words], environment())


def main(words: list[str]) -> int:
    """The exit status."""
    if sys.version_info < (3, 11):  # noqa: UP036
        found = "{}.{}".format(*sys.version_info)
        print(f"Python {found} is too old: expected 3.11 to 3.13 (www.python.org/downloads).", file=sys.stderr)
        return 1
    use_venv = "--no-venv" not in words
    first = next((word for word in words if word != "--no-venv"), "")
    try:
        if first in COMMANDS:
            rest = [word for word in words if word != "--no-venv"]
            return command(first, rest[1:], use_venv)
        if first and not first.startswith("-"):
            raise Stop(f"run.py: there is no command {first}; expected {', '.join(COMMANDS)}, or options only.", 2)
        return run(words)
    except Stop as error:
        print(error, file=sys.stderr)
        return error.status
    except KeyboardInterrupt as error:
        print(f"\nStopped. {error}", file=sys.stderr)
        return 130
    except OSError as error:
        place = shown(error.filename) if error.filename else "a file could not be written"
        print(f"{place}: {error.strerror}. Make room, or put the repository where you may write.", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace", line_buffering=True)
    sys.exit(main(sys.argv[1:]))
