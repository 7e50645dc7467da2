"""A notebook whose cells are run again, in any order: what belongs to an earlier run says so when it is used.

cells.namespace = globals()          # profiles.settle does it
cells.drop("optimizer", "history")   # a new network does it: those it finds are of another one
"""

from __future__ import annotations

from helpers.files import InputError

TRAINED = ("history", "logits", "labels", "views", "scores", "table")  # what training and test leave
namespace: dict = {}  # a notebook's globals(); empty outside of one


class Older:
    """Stands for what an earlier run made, or none has yet, and refuses whatever is done with it in one line."""

    def __init__(self, name: str):
        vars(self)["_name"] = name

    def __repr__(self) -> str:
        name = vars(self)["_name"]
        return f"{name} is not there yet, or of an earlier run: run again from the cell that makes it."

    def _refuse(self, *_, **__):
        raise InputError(repr(self))

    __getattr__ = __setattr__ = __call__ = __getitem__ = __len__ = __iter__ = __array__ = _refuse


def drop(*names: str) -> None:
    """From now on these names of the notebook refuse to be used, until a cell makes them anew."""
    for name in names:
        if namespace and (name in namespace or name in TRAINED):
            namespace[name] = Older(name)
