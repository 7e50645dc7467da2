"""Run the notebooks: one line says where they are; tidy copies, their HTML and the comparison table are what stays.

`python run.py` calls `parse` before it installs anything, so nothing is imported up here that needs an installation.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import html
import io
import json
import logging
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

from helpers.files import REPOSITORY, STAND_IN, InputError, duration, first_line, new_folder, write_text
from helpers.profiles import PROFILES, check

NOTEBOOKS = {"1": "1_EDA_CIFAR10.ipynb", "2": "2_Model_Training_CNN.ipynb", "3": "3_Model_Training_ResNet.ipynb",
             "4": "further/4_How_Far_to_Trust_It.ipynb", "5": "further/5_Other_Architectures.ipynb",
             "6": "further/6_Smaller_and_Faster.ipynb"}  # fmt: skip
STARTED_IN = Path.cwd()  # the person's folder: what is named on the command line, and shown, is relative to it
NARROW = """<style>@media (max-width: 1100px) {
.jp-Cell pre {white-space: pre-wrap; overflow-wrap: anywhere} .jp-OutputArea-output {overflow-x: auto}
.jp-Cell .jp-InputPrompt, .jp-Cell .jp-OutputPrompt {display: none} main {padding: 0 !important}
}</style></head>"""  # code wraps where it is wider than the page
NO_TEXT = 'alt="No description has been provided for this image"'  # nbconvert's, of every picture
REFRESH, INTERVAL = 0.2, 30  # seconds between two states of what is running: on a terminal, and elsewhere


def refuse(message: str) -> None:
    print(message, file=sys.stderr)
    sys.exit(2)


def parse(words: list[str], about: str = __doc__) -> argparse.Namespace:
    """The options, checked; `notebooks` is {path: parameters to pass}."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("run.py", argparse.SUPPRESS, about, formatter_class=layout, allow_abbrev=False)
    add = parser.add_argument
    add("--profile", choices=PROFILES, help="default: full with a GPU, else quick")
    add("--data", metavar="DIR", help='where CIFAR-10 is, or "stand-in" to do without it')
    add("--notebooks", nargs="+", action="extend", metavar="N", choices=NOTEBOOKS, help="default: 1 2 3; also 4 to 6")
    add("--set", nargs="+", action="extend", metavar="NAME=VALUE", default=[], help="other values of their parameters")
    add("--in-place", action="store_true", help="update the notebooks, Images/ and results/ here")
    add("--no-venv", action="store_true", help="use this Python as it is and install nothing")
    options = parser.parse_args(words)
    paths = [REPOSITORY / NOTEBOOKS[number] for number in sorted(set(options.notebooks or "123"))]
    options.notebooks = assign(options.set, {path: parameters(path) for path in paths})
    if options.data not in (None, STAND_IN) and not os.path.isdir(os.path.expanduser(options.data)):
        refuse(f"--data {options.data}: no such folder; expected the one with cifar-10-batches-py, or one to fill.")
    for wrong, why in (
        (options.set, "keeps the notebooks' own parameters: edit their parameters cells instead of --set."),
        ((options.profile or os.environ.get("CIFAR10_PROFILE")) == "smoke", "does not take the smoke profile."),
        ((options.data or os.environ.get("CIFAR10_ROOT")) == STAND_IN, "does not take the stand-in, only CIFAR-10."),
    ):
        if options.in_place and wrong:
            refuse(f"--in-place {why}")
    return options


def parameters(path: Path) -> list[str]:
    """The upper-case names that the notebook's cell tagged `parameters` assigns, in order."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        refuse(f"{path.name} is missing or damaged ({type(error).__name__}: {error}): git checkout {path.name}")
    return re.findall(r"^([A-Z][A-Z0-9_]*)(?: *:[^=\n]+)? *=(?!=)", "\n".join(sources), re.MULTILINE)


def assign(settings: list[str], known: dict[Path, list[str]]) -> dict[Path, dict[str, object]]:
    """Each notebook's share of NAME=VALUE: Python literals, true and false, and text for the rest."""
    everything, values = [name for names in known.values() for name in names], {}
    for word in settings:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier():
            refuse(f'--set {word}: expected NAME=VALUE, for example "--set EPOCHS=3".')
        if name not in everything:
            close = difflib.get_close_matches(name.upper(), everything, 1)
            guess = f" (did you mean {close[0]}?)" if close else ""
            exist = "; ".join(f"{path.stem} has {', '.join(names) or 'none'}" for path, names in known.items())
            refuse(f"--set {name}: there is no such parameter{guess}. {exist}.")
        try:
            values[name] = json.loads(json.dumps(literal(text)))  # what papermill can write; a tuple becomes a list
            check(name, values[name])
        except TypeError:
            refuse(f"--set {word}: expected a number, text, True, False, None, a list or a dict.")
        except InputError as error:
            refuse(f"--set {word}: {error}")
    return {path: {name: values[name] for name in names if name in values} for path, names in known.items()}


def literal(text: str) -> object:
    """A Python literal, true or false, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {"true": True, "false": False}.get(text.lower(), text)


def environment() -> dict[str, str]:
    """For every child: `import helpers` works, TensorFlow does not chatter, the kernel is this environment's own."""
    env = {"TF_CPP_MIN_LOG_LEVEL": "2", "JUPYTER_PREFER_ENV_PATH": "1", "PYTHONIOENCODING": "utf-8", **os.environ}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), env.get("PYTHONPATH")]))
    for name in ("CIFAR10_ROOT", "CIFAR10_URL"):  # paths that children read in another folder
        if env.get(name) and env[name] != STAND_IN and "://" not in env[name]:
            env[name] = os.path.abspath(os.path.expanduser(env[name]))
    return env


def shown(path: Path) -> str:
    """`path` relative to the folder that the person is in, where it lies below it; else in full."""
    return str(path.relative_to(STARTED_IN) if path.is_relative_to(STARTED_IN) else path)


def end_like_ctrl_c() -> None:
    """A cancelled job and a closed terminal end as after Ctrl-C; what is ignored already (nohup) stays ignored."""
    for number in {getattr(signal, name, signal.SIGTERM) for name in ("SIGTERM", "SIGHUP")}:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


class Progress(io.TextIOBase):
    """Where a running notebook is, in a line: rewritten in place on a terminal, elsewhere printed now and then."""

    def __init__(self, name: str, cells: int):
        self.name, self.cell, self.cells, self.heading, self.code, self.printed = name, 0, cells, "", "", ""
        self.began, self.next = time.monotonic(), 0.0
        self.show("starting", last=not sys.stdout.isatty())

    def __str__(self) -> str:
        bars = re.findall(r"(?:^|[\r\n])([^\r\n]*?\d%)", self.printed)  # a line's first per cent
        place = [f"cell {self.cell} of {self.cells}", self.heading, " ".join(bars[-1].split()) if bars else ""]
        return ", ".join(filter(None, place))

    def on_cell_start(self, cell: dict, cell_index: int) -> None:
        if cell.cell_type == "markdown":
            self.heading = (re.findall(r"^#+ +(.+?)[ #]*$", cell.source, re.MULTILINE) or [self.heading])[-1]
        elif cell.cell_type == "code":
            self.cell, self.printed = self.cell + 1, ""
            self.code = (re.findall(r"^\s*([^\s#%].*)", cell.source, re.MULTILINE) or [""])[0]
            self.show()

    def write(self, text: str) -> None:
        self.printed = (self.printed + text)[-2_000:]
        self.show()

    def show(self, state: str = "", *, last: bool = False) -> None:
        now, terminal = time.monotonic(), sys.stdout.isatty()
        if now >= self.next or last:
            self.next = now + (REFRESH if terminal else INTERVAL)
            text = f"{self.name}: {state or self}, {duration(now - self.began)}"
            room = shutil.get_terminal_size().columns - 1
            print(f"\r{text[:room]:{room}}" if terminal else text, end="\n" if last or not terminal else "", flush=True)


def execute(source: Path, target: Path, values: dict[str, object]) -> None:
    """Run `source` into `target`, tidied, with HTML beside it, also where a cell fails (SystemExit) or on Ctrl-C."""
    import papermill
    from jupyter_client import AsyncKernelManager

    class Kernel(AsyncKernelManager):
        shutdown_wait_time = 30.0  # seconds for a cell to end after Ctrl-C, before it is made to

        async def start_kernel(self, **named) -> None:
            with open(log, "wb") as file:  # what TensorFlow and CUDA say past Python would break the one line
                await super().start_kernel(stdout=file, stderr=file, **named)

    log = target.with_suffix(".log")
    cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
    progress = Progress(source.stem, sum(cell["cell_type"] == "code" for cell in cells) + bool(values))
    names = [str(path).replace("{", "{{").replace("}", "}}") for path in (source, target)]  # papermill formats them
    cause, stopped = "", False
    try:
        papermill.execute_notebook(
            *names, values, kernel_name="python3", cwd=REPOSITORY, progress_bar=False, start_timeout=300,
            iopub_timeout=300, stdout_file=progress, on_cell_start=progress.on_cell_start,
            kernel_manager_class=Kernel, extra_arguments=["--log-level=CRITICAL"],
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        text = re.sub(r"\x1b\[[\d;]*m", "", f"{error.ename}: {error.evalue}").removesuffix(": ")
        cause = "\n".join(text.splitlines()[:5])
    except KeyboardInterrupt:
        stopped = True
    except Exception as error:
        died = "its process died, most often because memory ran out" if "Kernel died" in str(error) else ""
        cause = f"{died or first_line(error)} (log: {shown(log)})."
    ended = "failed" if cause else f"all {progress.cells} cells ran"
    progress.show(f"stopped in {progress}" if stopped else ended, last=True)
    kept = keep(target) if target.exists() else "Nothing was executed."
    if stopped:
        raise KeyboardInterrupt(f"{kept} Run the same command again: training goes on from its last finished epoch.")
    if cause:
        place = f"failed in cell {progress.cell} of {progress.cells} ({progress.code[:70]})"
        sys.exit(f"{source.name} {place if progress.cell else 'did not start'}: {cause}\n{kept}")


def keep(path: Path) -> str:
    """Tidy the executed copy (bars in their final state, nothing of papermill's), write its HTML, say where it is."""
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor
    from papermill.execute import remove_error_markers

    notebook = remove_error_markers(nbformat.read(path, as_version=4))
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})
    for part in (notebook, *notebook.cells):
        part.metadata = {key: part.metadata[key] for key in part.metadata if key not in ("papermill", "execution")}
        for output in list(part.get("outputs", [])):
            if output.output_type == "stream":  # a line that ends in \r: a bar that was wiped out, or Windows
                output.text = re.sub(r" *\r+$", "", output.text, flags=re.MULTILINE)
                if not output.text.strip("\n "):
                    part.outputs.remove(output)
    write_text(path, nbformat.writes(notebook) + "\n")
    try:
        page = HTMLExporter().from_notebook_node(notebook)[0].replace("</head>", NARROW, 1)
        results = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
        said = iter([o.metadata.get("image/png", {}).get("alt", "") for o in results if "image/png" in o.data])
        write_text(path.with_suffix(".html"), re.sub(NO_TEXT, lambda _: f'alt="{html.escape(next(said, ""))}"', page))
    except Exception as error:  # of a template, an output: the notebook is what counts
        print(f"{path.name} could not be turned into HTML: {type(error).__name__}: {first_line(error)}")
    return f"Executed so far: {shown(path)}."


def find_data(options: argparse.Namespace) -> None:
    """Find or fetch CIFAR-10 and say where it came from; the stand-in takes its place where nothing was named."""
    from helpers import data

    root = os.environ.get("CIFAR10_ROOT")
    try:
        if root == STAND_IN:
            print("Data: drawn shapes (the stand-in), as asked. The numbers say nothing about CIFAR-10.")
        else:
            print(data.load_cifar10(root if options.data else None, download=True))
    except data.DataError as error:
        if root:
            refuse(f"{'--data' if options.data else 'CIFAR10_ROOT'}: {error}")
        if options.in_place or not error.missing:
            sys.exit(str(error))
        print("=" * 100, "CIFAR-10 IS NOT HERE. The notebooks run on drawn shapes instead (the stand-in), to show that",
              "they work; their numbers say nothing about CIFAR-10. What was tried, and how to provide the data:", "",
              error, "Then: python run.py, or python run.py --data /path/to/folder", "=" * 100, sep="\n")  # fmt: skip
        os.environ["CIFAR10_ROOT"] = STAND_IN


def run(options: argparse.Namespace) -> None:
    """Find the data, run the notebooks in order, and say what came out."""
    began = time.monotonic()
    asked = {"CIFAR10_ROOT": options.data, "CIFAR10_PROFILE": options.profile}
    os.environ |= {name: value for name, value in asked.items() if value}
    os.environ |= environment()
    os.chdir(REPOSITORY)
    find_data(options)
    folder = new_folder()
    output = REPOSITORY if options.in_place else folder
    os.environ["CIFAR10_OUTPUT"] = str(output)
    for path, values in options.notebooks.items():
        execute(path, folder / path.name, values)
        if options.in_place:
            write_text(path, (folder / path.name).read_text(encoding="utf-8"))
    if any((output / "results").glob("*.json")):
        from helpers import records, tables

        print("", tables.comparison_table(records.load(output / "results")).to_string(index=False), "", sep="\n")
    if os.environ.get("CIFAR10_ROOT") == STAND_IN:
        print("These numbers are from the stand-in, not from CIFAR-10.")
    print(f"Executed notebooks, as .ipynb and .html: {shown(folder)}; records and figures: {shown(output)}")
    if options.in_place:
        print("The notebooks here are up to date; python run.py report rebuilds the README's tables.")
    print(f"Total time: {duration(time.monotonic() - began)}")


def main(words: list[str]) -> int:
    """The exit status: 0 when everything ran, 1 when something failed, 2 for bad input, 130 after Ctrl-C."""
    sys.stdout.reconfigure(errors="replace", line_buffering=True)
    logging.disable(logging.CRITICAL)  # what papermill and nbconvert have to say is not for the person
    end_like_ctrl_c()
    try:
        run(parse(words))
        return 0
    except KeyboardInterrupt as error:
        print(f"\nStopped. {error}", file=sys.stderr)
        return 130
    except (InputError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
