#!/usr/bin/env python3
"""The one command: set up, run the notebooks, test, report. It needs Python 3.11 or newer and nothing else.

python run.py                            set up if needed, find CIFAR-10, run the three notebooks
python run.py --profile quick            minutes on a CPU (full: the headline recipe; smoke: seconds)
python run.py --notebooks 2 3 --set EPOCHS=3 LEARNING_RATE=0.01
python run.py --data ~/datasets          the folder that holds cifar-10-batches-py or its archive
python run.py predict cat.jpg photos/    what a trained network sees in these pictures
python run.py demo                       the same as a page in the browser, with the camera
python run.py sweep --seeds 0-4 --set LEARNING_RATE=0.06,0.12    many runs (docs/sweeps.md)
python run.py test -k metrics            set up, then pytest with what follows
python run.py report | lab | setup       rebuild the README's tables; open JupyterLab; only make .venv

Executed copies and their HTML go to runs/<time>/; the notebooks of the repository change with --in-place only.
Exit status: 0 when everything ran, 1 when something failed, 2 for bad input, 130 after Ctrl-C.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV, LOG = HERE / ".venv", HERE / "runs" / "install.log"
REQUIREMENTS = "requirements.txt"
MORE = {"demo": "further/requirements.txt", "sweep": "further/requirements-sweep.txt"}  # notebooks 4 to 6: demo's, too
COMMANDS = {  # what each runs, and which packages it needs with --no-venv; without a command: the notebooks
    "": ("helpers.execute", "papermill nbconvert ipykernel"), "setup": ("", ""),
    "predict": ("helpers.predict", "torch pandas"), "demo": ("further.page", "torch gradio captum"),
    "sweep": ("further.sweep", "ray papermill"), "test": ("pytest", "pytest nbval"),
    "report": ("helpers.report", "pandas"), "lab": ("jupyter lab", "jupyterlab"),
}  # fmt: skip


def make_venv(files: list[str]) -> Path:
    """.venv's Python, with what requirements.txt and these files ask for; nothing is done when that is in place."""
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamps = {path.name: path.read_text(encoding="utf-8") for path in VENV.glob("installed*")}
    # Killed while it copied files: pip would take half a package for a whole one.
    copying = not LOG.exists() or "Installing collected" in LOG.read_text(errors="replace")
    if ("installing" in stamps.values() and copying) or not version(python):
        stamps = {}
        print(f"{VENV.name} is incomplete: making it anew." if VENV.is_dir() else f"Making {VENV.name}.")
        command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
        made = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if made.returncode or not version(python):
            lines = (made.stdout + made.stderr).strip().splitlines()[-3:]
            sys.exit(f"{VENV.name} could not be made: {' '.join(lines)}\nOn Debian and Ubuntu: sudo apt install "
                     "python3-venv. Or use an environment of your own: --no-venv.")  # fmt: skip
    for name in dict.fromkeys([REQUIREMENTS, *files]):
        wanted = f"{hashlib.sha256((HERE / name).read_bytes()).hexdigest()} {version(python)}"
        stamp = VENV / f"installed-{name.replace('/', '-')}"  # what was installed: the file's hash and Python's version
        if stamps.get(stamp.name) != wanted:
            stamp.write_text("installing", encoding="utf-8")
            install(python, name)
            stamp.write_text(wanted, encoding="utf-8")
    return python


def version(python: Path) -> str:
    """ "3.11", or nothing where there is no Python of a complete environment (with pip) that this project can use."""
    code = "import sys, pip; print('%d.%d' % sys.version_info[:2]); sys.exit(sys.version_info < (3, 11))"
    try:
        result = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if result.returncode else result.stdout.strip()


def log() -> list[str]:
    return [line for line in LOG.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]


def install(python: Path, file: str) -> None:
    """pip install -r `file`, as one line that says where it is; the whole log is in runs/install.log."""
    from helpers.execute import shown

    LOG.parent.mkdir(exist_ok=True)
    size = "minutes, and several GB, the first time" if file == REQUIREMENTS else "about a minute, the first time"
    print(f"Installing {file} into .venv: {size}; log: {shown(LOG)}")
    words = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "-r", REQUIREMENTS]
    words += ["-r", file] if file != REQUIREMENTS else []
    with open(LOG, "wb") as file:
        pip = subprocess.Popen([str(python), *words], cwd=HERE, stdout=file, stderr=subprocess.STDOUT)
        try:
            while pip.poll() is None:
                time.sleep(0.5)
                if sys.stdout.isatty():
                    print(f"\r{(log() or [''])[-1].split(' (from')[0][:78]:78}", end="\r", flush=True)
        finally:
            pip.terminate()  # when the terminal did not tell it, too
    if pip.returncode:
        errors = [line for line in log() if line.startswith("ERROR")] or log()
        needs = "It needs a network, 8 GB of room on Linux (3 GB elsewhere) and Python 3.11 to 3.13, 64 bit."
        again = f"Run it again, it goes on from what was downloaded. The whole log: {shown(LOG)}"
        sys.exit("\n".join([*errors[-3:], f"{needs} {again}"]))
    print("Installed.".ljust(78 * sys.stdout.isatty()))


def main(words: list[str]) -> int:
    """The exit status."""
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit("Python {}.{} is too old: expected 3.11 to 3.13 (www.python.org/downloads).".format(*sys.version_info))
    from helpers import execute  # an old Python could not read it

    rest = [word for word in words if word != "--no-venv"]
    command = rest.pop(0) if rest and not rest[0].startswith("-") else ""
    if command not in COMMANDS:
        execute.refuse(f"run.py: no command {command}: expected {', '.join([*COMMANDS][1:])}, or options only.")
    files = [MORE[word] for word in (rest if command == "setup" else [command]) if word in MORE]
    if not command and any(path.parent != HERE for path in execute.parse(rest, __doc__).notebooks):
        files = [MORE["demo"]]  # (and what is wrong on the command line is told before anything is installed)
    module, packages = COMMANDS[command]
    missing = [name for name in packages.split() if importlib.util.find_spec(name) is None]
    if "--no-venv" in words and missing:
        sys.exit(f"this Python has no {', '.join(missing)}: python -m pip install -r {(files or [REQUIREMENTS])[0]}, "
                 "or leave out --no-venv to have it done in .venv.")  # fmt: skip
    execute.end_like_ctrl_c()
    try:
        python = Path(sys.executable) if "--no-venv" in words else make_venv(files)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    except OSError as error:
        sys.exit(f"{error}. Make room, or put the repository where you may write.")
    if command == "setup":
        print(f"Ready: {execute.shown(python)}")
        return 0
    env = execute.environment()  # before the folder changes: paths of the person's are relative to theirs
    if command not in ("", "predict", "sweep"):
        os.chdir(HERE)
    full = [str(python), "-P", "-m", *module.split(), *rest]
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(full[0], full, env)  # it decides what Ctrl-C means
    process = subprocess.Popen(full, env=env)
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            return process.wait()


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace", line_buffering=True)
    sys.exit(main(sys.argv[1:]))
