"""What every helper stands on: errors for people, where outputs go, and files that are whole or as they were.

    with files.replacing(path) as part:      # moved into place when the block has ended without an error
        part.write_bytes(content)

Environment: CIFAR10_OUTPUT names a folder for Images/, results/, weights/ and runs/ in the place of the repository's.
"""

from __future__ import annotations

import contextlib
import os
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
STAND_IN = "stand-in"


class InputError(ValueError):
    """A value, file or folder that a person gave does not fit; the message says what was found and what to do."""

    def _render_traceback_(self) -> list[str]:
        """In Jupyter: the message alone, since the mistake is not in the code that a traceback would show."""
        return [f"{type(self).__name__}: {self}"]


class Stopped(KeyboardInterrupt):
    """Ctrl-C, or Jupyter's ■ button, in a training; the message says what is saved and how to carry on.

    epoch: in which it came, of `epochs`; saved: how many are on the disk, None for not even the start.
    """

    def __init__(self, epoch: int, epochs: int, saved: int | None):
        carry_on = "run this cell again to begin anew"
        if saved is None:
            carry_on = "nothing is saved: run again from the cell with `model = ...` on"
        elif saved:
            carry_on = f"saved: {saved} of {count(epochs, 'epoch')}. Run this cell again to carry on"
        super().__init__(f"training stopped in epoch {epoch}; {carry_on}.")

    _render_traceback_ = InputError._render_traceback_


@contextlib.contextmanager
def replacing(path: Path, ending: str = "") -> Iterator[Path]:
    """A name beside `path` to write to, moved to `path` at the end; after an error `path` is as it was.

    The folder of `path` is made if it is missing. The content is on the disk before the move.
    ending: of that name, for a writer that insists on one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part{ending}")
    try:
        yield part
        with open(part, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 with plain line ends, completely or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def output_folder(kind: str = "", *, own: str = "") -> Path:
    """The folder for `kind` ("Images", "results", "weights"), which may not exist yet.

    The repository's, or that of $CIFAR10_OUTPUT. own: the name of a folder below runs/ for a run that must not touch
    those; `python run.py` gives each of its runs one already.
    """
    base = Path(os.environ.get("CIFAR10_OUTPUT") or REPOSITORY).resolve()
    if own and not base.is_relative_to(REPOSITORY / "runs"):
        base = base / "runs" / own
    return base / kind


def new_folder(kind: str = "") -> Path:
    """runs/<kind><now>, made."""
    folder = REPOSITORY / "runs" / time.strftime(f"{kind}%Y-%m-%d_%H-%M-%S")
    if folder.exists():  # of the same second
        folder = folder.with_name(f"{folder.name}-{os.getpid()}")
    folder.mkdir(parents=True)
    return folder


def relative(path: Path) -> str:
    """`path` as a reader of the notebook would name it: below the repository, or its name alone."""
    path = Path(path)
    return path.relative_to(REPOSITORY).as_posix() if path.is_relative_to(REPOSITORY) else path.name


def first_line(error: BaseException) -> str:
    """The system's words for what went wrong, or the first line of the message, or the kind of error."""
    return getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]


def say(text: str) -> None:
    """Print in lines that a notebook shows in full, on a page, too."""
    print(textwrap.fill(text, 96))


def count(number: int, what: str) -> str:
    """ "1 epoch", "2 epochs"."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """ "45 s", "3 min 20 s" or "2 h 05 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
