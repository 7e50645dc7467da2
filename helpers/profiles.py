"""Profiles and parameters: how much a notebook does, and whether every value of its first cell can be meant.

"full" is the headline recipe, "full-validation" the same with images set aside to judge by, "long" takes hours, "quick"
minutes, "smoke" seconds. A parameter is one value, or a dictionary with one for each profile ("full-validation" and
"long": else full's).
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Callable
from itertools import groupby
from numbers import Integral, Real

from helpers import cells
from helpers.files import InputError

PROFILES = ("full", "full-validation", "long", "quick", "smoke")
PLACES = {"PROFILE", "DEVICE", "DATA_ROOT"}  # parameters that say where a run happens, not what it does
PLAIN = (bool, int, float, str, list, tuple, type(None))
_settled: dict = {}  # of the notebook: the parameters' values for its profile, and all that it was given

# ------------------------------------------------------------------------------------ what a value may be


def _whole(low: int, high: float = math.inf) -> tuple:
    words = f"a whole number from {low}" + (f" to {high}" if high < math.inf else "")
    return lambda v: isinstance(v, Integral) and not isinstance(v, bool) and low <= v <= high, words


def _share(v) -> bool:
    return isinstance(v, Real) and not isinstance(v, bool) and 0 <= v < 1


def _one_of(*allowed: object) -> tuple:
    words = [f'"{v}"' if isinstance(v, str) else str(v) for v in allowed]
    return lambda v: any(type(v) is type(a) and v == a for a in allowed), f"{', '.join(words[:-1])} or {words[-1]}"


def _each(fits: Callable, length: int = 0) -> Callable:
    """Whether a value is a list (of this length, or any but 0) of values that fit."""
    return lambda v: isinstance(v, list | tuple) and len(v) == (length or max(len(v), 1)) and all(map(fits, v))


_side = _whole(1, 32)[0]
_rate = lambda v: isinstance(v, Real) and not isinstance(v, bool) and 0 < v < math.inf, "a number above 0"
_part = _share, "a number from 0 to below 1"
PARAMETERS = {  # a new parameter of a notebook is one row
    "PROFILE": _one_of("auto", *PROFILES),
    "DEVICE": (lambda v: isinstance(v, str), '"auto", "cpu", "cuda" or "mps"'),
    "DATA_ROOT": (lambda v: v is None or isinstance(v, str | os.PathLike), 'None, a folder, or "stand-in"'),
    "SEED": _whole(0, 2**31 - 1),
    "CUTOUT": _whole(0, 32),
    "TRANSLATE": _whole(0, 31),
    **dict.fromkeys(("VALIDATION_IMAGES", "RESNET_SEEDS"), _whole(0)),
    **dict.fromkeys(("EPOCHS", "BATCH_SIZE", "TRAIN_IMAGES", "TEST_IMAGES"), _whole(1)),
    "COMPARISON_IMAGES": _whole(100),
    **dict.fromkeys(("COMPARISON_EPOCHS", "CALIBRATION_IMAGES", "ROUNDS", "PICTURES", "CHOICE_IMAGES"), _whole(1)),
    **dict.fromkeys(("TAIL_IMAGES", "TAIL_STEPS", "TAIL_SEEDS", "DRAWS", "TUNING_STEPS", "SEVEN_STEPS"), _whole(1)),
    **dict.fromkeys(("AUGMENT_SEEDS", "AUGMENT_IMAGES"), _whole(1)),
    "RESOLUTION": (
        lambda v: _side(v) or _each(_side)(v),
        "a whole number from 1 to 32, or a list with one for each epoch",
    ),
    "WIDTHS": (_each(_whole(2)[0], 3), "a list of three whole numbers from 2"),
    "OPTIMIZER": _one_of("muon", "sgd"),
    **dict.fromkeys(("LEARNING_RATE", "OTHER_LEARNING_RATE", "TRIAL_MINUTES"), _rate),
    **dict.fromkeys(("MOMENTUM", "WARMUP", "WEIGHT_DECAY", "DROPOUT", "LABEL_SMOOTHING"), _part),
    "SHORTCUT": _one_of(True, False),
    "FLIP": _one_of("alternating", True, False),
    "AUGMENT": _one_of("plain", "trivial", "augmix"),
    **dict.fromkeys(("RATES", "MINUTES", "GPU_MINUTES"), (_each(_rate[0]), "a list of numbers above 0")),
    **dict.fromkeys(
        ("IMBALANCE", "SHOTS", "NEW_SHOTS", "LENGTHS", "SEEDS"), (_each(_whole(1)[0]), "a list of whole numbers from 1")
    ),
    "SEVERITIES": (_each(_whole(1, 5)[0]), "a list of whole numbers from 1 to 5"),
}


def check(name: str, value: object) -> None:
    """Raise InputError if a parameter of PARAMETERS has a value, for one profile or for all, that cannot be meant."""
    fits, expected = PARAMETERS.get(name, (lambda v: True, ""))
    for profile, one in value.items() if _by_profile(value) else [("", value)]:
        if not fits(one):
            where = f'["{profile}"]' if profile else ""
            found = f'"{one}"' if isinstance(one, str) else one
            raise InputError(f"{name}{where} is {found}: expected {expected}.")


def _by_profile(value: object) -> bool:
    return isinstance(value, dict) and bool(value.keys() & set(PROFILES))


def _of(value: object, profile: str) -> object:
    """A parameter's value for the profile; None where it has none."""
    return value.get(profile, value.get(_like(profile))) if _by_profile(value) else value


def _like(profile: str) -> str:
    """The profile whose values another one takes where it has none of its own."""
    return "full" if profile in ("full-validation", "long") else profile


# ------------------------------------------------------------------------------------- a notebook's values


def choose_profile(name: str, *, gpu: bool) -> str:
    """ "auto" gives $CIFAR10_PROFILE where it is set, else "full" with a GPU and "quick" without.

    Raises InputError for another name than "auto" and those of PROFILES.
    """
    check("PROFILE", name)
    if name == "auto" and (name := os.environ.get("CIFAR10_PROFILE") or "auto") not in ("auto", *PROFILES):
        raise InputError(f'CIFAR10_PROFILE is "{name}": expected {PARAMETERS["PROFILE"][1]}.')
    return ("full" if gpu else "quick") if name == "auto" else name


def settle(namespace: dict, *, gpu: bool) -> dict:
    """Check every parameter in a notebook's `globals()` and give it its value for the profile; PROFILE is chosen, too.

    Returns what a record keeps of them: the upper-case names with plain values or a dictionary by profile, without
    PROFILE, DEVICE and DATA_ROOT, which it holds under names of their own. From now on, in Jupyter, the parameters cell
    may run alone: its values are settled again, and a line says if they are others than these.
    Raises InputError for a value that cannot be meant, and for a dictionary without an entry for the profile.
    """
    _settled.update(_values(namespace, gpu), gpu=gpu)
    _settled["filled"] = _settled["places"]["PROFILE"]  # whose values the parameters have
    cells.namespace = namespace
    namespace.update(_settled["places"], **_settled["values"])
    with contextlib.suppress(ImportError, AttributeError):  # not in Jupyter
        from IPython import get_ipython

        if _after_cell not in get_ipython().events.callbacks["post_run_cell"]:
            get_ipython().events.register("post_run_cell", _after_cell)
    return dict(_settled["values"])


def _values(namespace: dict, gpu: bool) -> dict:
    """The parameters of a notebook: as given, PLACES, and all others with their value for the profile."""
    given = {name: value for name, value in namespace.items() if re.fullmatch(r"[A-Z][A-Z0-9_]*", name)
             and (name in PARAMETERS or isinstance(value, PLAIN) or _by_profile(value))}  # fmt: skip
    for name, value in given.items():
        check(name, value)
    profile, values = choose_profile(given.get("PROFILE", "auto"), gpu=gpu), {}
    tables = [value for value in given.values() if _by_profile(value)]
    if _like(profile) != profile and tables and not any(profile in value for value in tables):
        raise InputError(f'PROFILE is "{profile}", which this notebook does not have: set "full".')
    for name, value in given.items():
        if _by_profile(value) and not {profile, _like(profile)} & value.keys():
            raise InputError(f'{name} is {value}, without a value for PROFILE "{profile}": give it one.')
        values[name] = _of(value, profile)
    if (was := _settled.get("filled", profile)) != profile and not tables:
        raise InputError(f"PROFILE is {profile}, and the values are those of {was}: run again from the first cell on.")
    values["PROFILE"] = profile
    places = {name: values.pop(name) for name in PLACES & values.keys()}
    return {"given": given, "places": places, "values": values}


def _after_cell(*_) -> None:
    """After any cell: settle what the parameters cell, run alone, has set back, and say what is not as it was."""
    try:
        now = _values(cells.namespace, _settled["gpu"])
        cells.namespace.update(now["places"], **now["values"])
        _settled["filled"] = now["places"]["PROFILE"]
        current()
    except InputError as error:
        print(error)


def current() -> None:
    """Raise InputError if the notebook's parameters are not those that were settled: what is made of them would mix."""
    names = {**_settled["places"], **_settled["values"]} if cells.namespace and _settled else {}
    for name, was in names.items():
        if (now := cells.namespace.get(name)) != was:
            raise InputError(f"{name} is {now} and was {was}: run again from the cell below “Set-up” on.")


def table(hyperparameters: dict) -> dict[str, str]:
    """The values as a person reads them: a long list of numbers as 6×16, 9×24, 5×32."""

    def words(value) -> str:
        runs = [(len([*same]), number) for number, same in groupby(value)] if isinstance(value, list) else []
        return ", ".join(f"{times}×{n}" if times > 1 else str(n) for times, n in runs) if runs else str(value)

    return {name: words(value) for name, value in hyperparameters.items()}


def announce(device: str, seconds: Callable[..., float], *names: str) -> None:
    """Say which profile runs, on what, about how long it takes here, and how to get the full one.

    seconds: the estimate for the whole notebook, from one profile's values of the parameters `names`.
    """
    profile, given = _settled["places"]["PROFILE"], _settled["given"]

    def estimate(name: str) -> str:
        return _minutes(seconds(*(_of(given[key], name) for key in names)))

    print(f'Profile "{profile}" on {device}: about {estimate(profile)} for the whole notebook here.')
    if given.get("PROFILE") == "auto" and os.environ.get("CIFAR10_PROFILE"):
        print('(PROFILE is "auto": CIFAR10_PROFILE chose, which is what `python run.py --profile` sets.)')
    if _like(profile) != "full" and all(_by_profile(given[key]) for key in names):  # none is fixed by the person
        print(f'The full profile would take about {estimate("full")}: set PROFILE = "full" above.')


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{max(10 * round(seconds / 10), 10)} seconds"
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
