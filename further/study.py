"""Many small trainings in one notebook, each done once: an interrupted notebook goes on where it was."""

from __future__ import annotations

import inspect
import json
import zlib
from collections.abc import Callable
from pathlib import Path

from helpers.files import REPOSITORY, InputError, count, relative, write_text


class Paused(KeyboardInterrupt):
    """Ctrl-C, or Jupyter's ■ button, between pieces of work; the message says how to carry on."""

    _render_traceback_ = InputError._render_traceback_


class Remembered:
    """What each piece of work gave, by its settings, in runs/checkpoints/<name>.json until `forget`.

    remembered = Remembered("trust-full-seed0", hyperparameters)
    row = remembered("tail", {"seed": 0, "imbalance": 10}, lambda: {"accuracy": train(...)}, train)
    """

    def __init__(self, name: str, settings: dict):
        digest = zlib.crc32(repr(sorted(settings.items(), key=str)).encode())
        self.path: Path = REPOSITORY / "runs" / "checkpoints" / f"{name}-{digest:08x}.json"
        try:
            self.known = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.known = {}
        if self.known:
            print(f"Done before: {count(len(self.known), 'piece')} of this. To make them anew, delete\n"
                  f"{relative(self.path)}")  # fmt: skip
        elif others := sorted(self.path.parent.glob(f"{name}-*.json")):
            print(f"{relative(others[-1])}\nis of other values, data or hardware: not used.")

    def __call__(self, kind: str, settings: dict, work: Callable[[], dict], *does: Callable) -> dict:
        """The settings and what the work gives, plain values; the work is done if it was not before.

        does: the functions that do it; what they did before they were changed does not count.
        """
        key = self._key(kind, settings, does)
        if key not in self.known:
            try:
                self.known[key] = work()
            except KeyboardInterrupt:
                done = count(len(self.known), "piece")
                raise Paused(f"stopped; saved: {done} of this work. Run this cell again to carry on.") from None
            write_text(self.path, json.dumps(self.known))
        return settings | self.known[key]

    def knows(self, kind: str, settings: dict, *does: Callable) -> bool:
        return self._key(kind, settings, does) in self.known

    @staticmethod
    def _key(kind: str, settings: dict, does: tuple[Callable, ...]) -> str:
        code = zlib.crc32("".join(inspect.getsource(one) for one in does).encode())
        return f"{kind} {json.dumps(settings, sort_keys=True)} {code:08x}"

    def forget(self) -> None:
        """The record is written: the next run begins anew."""
        self.path.unlink(missing_ok=True)
