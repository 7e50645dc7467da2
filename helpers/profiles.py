"""Profiles: how much a notebook does. "full" is the headline recipe, "quick" takes minutes, "smoke" seconds.

A parameter of a notebook's first cell is one value, or a dictionary with one for each profile.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from helpers.files import InputError

PROFILES = ("full", "quick", "smoke")
PLACES = {"PROFILE", "DEVICE", "DATA_ROOT"}  # parameters that say where a run happens, not what it does
PLAIN = (bool, int, float, str, list, type(None))


def choose_profile(name: str, *, gpu: bool) -> str:
    """ "auto" gives $CIFAR10_PROFILE where it is set, else "full" with a GPU and "quick" without.

    Raises InputError for another name than "auto", "full", "quick" or "smoke".
    """
    origin = "PROFILE"
    if name == "auto" and os.environ.get("CIFAR10_PROFILE"):
        origin, name = "CIFAR10_PROFILE", os.environ["CIFAR10_PROFILE"]
    if name == "auto":
        name = "full" if gpu else "quick"
    if name not in PROFILES:
        raise InputError(f'{origin} is "{name}": expected "auto", "full", "quick" or "smoke".')
    return name


def settle(namespace: dict, profile: str) -> dict:
    """Give every parameter in a notebook's `globals()` its value for `profile`; returns what a record keeps of them.

    Parameters are the upper-case names with plain values or a dictionary by profile; PROFILE, DEVICE and DATA_ROOT,
    which a record holds under names of their own, are left out of what is returned.
    Raises InputError for a dictionary without an entry for the profile.
    """
    hyperparameters = {}
    for name, value in namespace.items():
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name) or name in PLACES:
            continue
        if isinstance(value, dict) and value.keys() & set(PROFILES):
            if profile not in value:
                raise InputError(f'{name} is {value}, without a value for PROFILE "{profile}": give it one.')
            hyperparameters[name] = value[profile]
        elif isinstance(value, PLAIN):
            hyperparameters[name] = value
    namespace.update(hyperparameters)
    return hyperparameters


def announce(profile: str, device: str, seconds: Callable[..., float], *values) -> None:
    """Say which profile runs, on what, about how long it takes here, and how to get the full one.

    seconds: the estimate for the whole notebook, from one profile's share of `values` (of the parameters cell).
    """
    estimates = {
        name: _minutes(seconds(*(value[name] if isinstance(value, dict) else value for value in values)))
        for name in {profile, "full"}
    }
    print(f'Profile "{profile}" on {device}: about {estimates[profile]} for the whole notebook here.')
    if profile != "full":
        print(f'The full profile would take about {estimates["full"]} here: set PROFILE = "full" above.')


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{max(10 * round(seconds / 10), 10)} seconds"
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
