"""One record a run, in results/, and the folders that runs unlike their record have for themselves.

    run = records.begin("custom_cnn", "2_Model_Training_CNN.ipynb", PROFILE, SEED, hyperparameters, cifar)
    records.built(run, **weights.description(model))
    ...                                     # train, test
    path = records.write(run, history=history, test=metrics.summary(...), device="cpu", precision="float32")

The rule: results/, weights/ and Images/ hold runs of the recipe on CIFAR-10. A run that differs from its record there,
in a value or in its architecture, has a folder of its own below runs/ for record, figures and weights, named after what
differs.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import cells, profiles
from helpers.data import Cifar10
from helpers.files import REPOSITORY, STAND_IN, InputError, output_folder, relative, replacing, write_text
from helpers.profiles import PROFILES

MODELS = {"keras_baseline": "Keras baseline", "custom_cnn": "Custom CNN", "resnet18": "ResNet-18"}
STURDY = {f"{name}-augmix": f"{MODELS[name]}, AugMix" for name in ("custom_cnn", "resnet18")}  # AUGMENT = "augmix"
STUDIES = ("trust", "architectures", "export")  # of notebooks 4 to 6: records in results/<study>/, without a test
LONGEST_NAME = 100  # characters of a folder's
_begun: dict = {}  # the notebook's run


def begin(model: str, notebook: str, profile: str, seed: int, hyperparameters: dict, cifar: Cifar10) -> dict:
    """What is known of a run before it trains: the beginning of its record. Says where its outputs will go.

    What the notebook made for a run before, of other values or data, refuses to be used from now on.
    """
    profiles.current()
    run = {
        "model": model, "notebook": notebook, "profile": profile, "seed": seed,
        "hyperparameters": json.loads(json.dumps(hyperparameters, default=_plain)),
        "data": cifar.name, "data_fingerprint": cifar.fingerprint, "class_names": list(cifar.class_names),
        "git_commit": git_commit(),
    }  # fmt: skip
    changes, own = differences(run), own_folder(run, figures=True)
    folder = relative(output_folder(own=own))
    if changes:
        print(f"Unlike its record in results/: {', '.join(changes)}.\nOutputs go to {folder}/.")
    elif not _known(model) and own not in ("smoke", STAND_IN):
        print(f"{model} is none of this project's models (records.MODELS).\nOutputs go to {folder}/.")
    elif own and not own_folder(run):
        print(f"Images/ keeps the figures of another run of this model: these go to {folder}/.")
    if any(_begun.get(key) != run[key] for key in run.keys() - {"git_commit"}):
        made = ("train validation untouched x_train y_train subset chosen comparison floor model optimizer schedule "
                "skip_finding schedule_finding ends margin apart final speedup")  # fmt: skip
        cells.drop(*made.split(), *cells.TRAINED)
        _begun.clear()
    _begun.update(run)  # with its architecture, where the run goes on
    return dict(_begun)


def built(run: dict, *, architecture: str, layers: list[str]) -> None:
    """A network is made: note it in the run. Its optimizer, training and test are to come, so older ones are dropped.

    architecture: digits that tell it from others; layers: the same in words (`weights.description`).
    """
    profiles.current()
    cells.drop("optimizer", "schedule", *cells.TRAINED)
    known = run.get("architecture")
    for one in (run, _begun):
        one.update(architecture=architecture, layers=layers)
    if known != architecture and "architecture" in (changes := differences(run)):
        folder = relative(output_folder(own=own_folder(run)))
        print(f"Unlike its record in results/: {', '.join(changes)}.\nOutputs go to {folder}/.")


def complete(run: dict, history: pd.DataFrame) -> None:
    """Raise InputError for a training that did not come to its end."""
    epochs = run["hyperparameters"].get("EPOCHS", len(history))
    if len(history) != epochs:
        raise InputError(f"{len(history)} of {epochs} epochs are trained: run the training cell to its end first.")


def write(
    run: dict, *, history: pd.DataFrame, test: dict, device: str, precision: str, weights: bytes | None = None,
    **measured,
) -> Path:  # fmt: skip
    """Complete the record of a run and write it as results/<model>-<profile>-seed<seed>.json; gives its path.

    history: one row an epoch, with a `seconds` column. test: `metrics.summary(...)`. measured: parameter_count,
    forward_flops, train_images, resumed and what else the notebook knows; None is left out. weights: the content of the
    file that goes to weights/ beside results/, with its SHA-256 in the record.
    Raises InputError for a training that did not come to its end, a number that is not finite, and where the folder is
    not writable; a record that is there stays then.
    """
    complete(run, history)
    record = run | {
        "device": device, "precision": precision, "train_seconds": float(history["seconds"].sum()),
        "peak_memory_bytes": peak_memory_bytes(), "versions": versions(),
        "validation_correct": history.attrs.get("validation_correct"),
        "weights_sha256": hashlib.sha256(weights).hexdigest() if weights else None, **measured,
        "history": history.to_dict("records"), "test": test,
    }  # fmt: skip
    return _save(run, record, weights)


def study(run: dict, **found: object) -> Path:
    """Write the record of a notebook that trains none of the models of the tables; gives its path.

    found: device, findings, and the tables and numbers behind its figures, plain or in NumPy; None is left out.
    Raises InputError as `write` does.
    """
    return _save(run, run | {"peak_memory_bytes": peak_memory_bytes(), "versions": versions(), **found})


def _save(run: dict, record: dict, weights: bytes | None = None) -> Path:
    record = {key: value for key, value in record.items() if value is not None}
    path = output_folder(_place(run), own=own_folder(run)) / f"{run['model']}-{run['profile']}-seed{run['seed']}.json"
    try:
        write_text(path, json.dumps(record, indent=1, default=_plain, allow_nan=False) + "\n")
        if weights:
            with replacing(weights_path(path)) as part:
                part.write_bytes(weights)
    except ValueError:
        raise InputError(f"the record {path.name} was not written: a number in it is not finite.") from None
    except OSError as error:
        advice = "make room or set CIFAR10_OUTPUT to a writable folder, and run this cell again; nothing is lost"
        raise InputError(f"the record {path.name} cannot be written ({error.strerror}): {advice}.") from None
    print(f"Record: {relative(path)}")
    if weights:
        print(f"Weights: {relative(weights_path(path))}, {len(weights) / 1e6:.1f} MB")
    return path


def _known(model: str) -> bool:
    return model in (*MODELS, *STURDY, *STUDIES)


def _place(run: dict) -> str:
    """Where the records of this model or study are, below the repository."""
    return f"results/{run['model']}" if run["model"] in STUDIES else "results"


def title(model: str) -> str:
    """A model's name for people."""
    return (MODELS | STURDY).get(model, model)


def weights_path(record: Path) -> Path:
    """Where the weights of the run with this record go: weights/ beside results/."""
    return record.parents[1] / "weights" / f"{record.stem}.safetensors"


def choice(run: dict) -> pd.DataFrame | None:
    """The history of the run that judged this run's recipe: the same values and layers, but with validation images set
    aside (profile "full-validation" beside "full"). None for other profiles, and where results/ has none."""
    found = _reference(run | {"profile": f"{run['profile']}-validation"}) or {}
    apart = {"SEED": None, "TRAIN_IMAGES": None, "VALIDATION_IMAGES": None}
    same = [[r.get("hyperparameters", {}) | apart, r.get("architecture"), r.get("data_fingerprint")]
            for r in (run, found)]  # fmt: skip
    return pd.DataFrame(found["history"]) if same[0] == same[1] else None


def load(*folders: Path) -> list[dict]:
    """All records in a folder, in the order of the models, each with its `file`; a model that a folder has no record of
    is looked for in the next one. Raises InputError for a file that is no record."""
    records: list[dict] = []
    for folder in folders:
        found = []
        for path in sorted(folder.glob("*.json")):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                found.append({"model": record["model"], **record, "file": path.name})
            except (ValueError, TypeError, KeyError) as error:  # not JSON, or not a record
                advice = "delete it, or run its notebook again."
                raise InputError(f"{relative(path)} is not a record ({error}): {advice}") from None
        records += [r for r in found if r["model"] not in {r["model"] for r in records}]
    order = [*MODELS, *STURDY]
    return sorted(records, key=lambda r: order.index(r["model"]) if r["model"] in order else len(order))


def largest(records: list[dict]) -> dict:
    """The record of the fullest profile among a study's; {} where there is none."""
    return min(records, key=lambda r: PROFILES.index(r["profile"]), default={})


# ----------------------------------------------------------------------------- like its record, or not


def differences(run: dict) -> dict:
    """What a run has otherwise than its record in results/: other data, or hyperparameters by name and architecture."""
    if not run:
        return {}
    if run["data"] not in ("CIFAR-10", STAND_IN):
        return {"data": run["data"]}
    reference = _reference(run)
    if not reference or run["data"] == STAND_IN:
        return {}
    old, new = ({k: v for k, v in r["hyperparameters"].items() if k != "SEED"} for r in (reference, run))
    changes = {key: new.get(key) for key in sorted({*old, *new}) if old.get(key) != new.get(key)}
    if {"architecture"} <= run.keys() & reference.keys() and run["architecture"] != reference["architecture"]:
        changes["architecture"] = run["architecture"]
    return changes


def own_folder(run: dict, *, figures: bool = False) -> str:
    """The name of the run's own folder below runs/, or "" for one that belongs into results/ and weights/.

    figures: "" means Images/ instead, which shows one run of a model: its best profile and that one's first seed.
    """
    name = f"{run['model']}-{run['profile']}"
    if run["data"] == STAND_IN or run["profile"] == "smoke":
        return STAND_IN if run["data"] == STAND_IN else "smoke"
    if not _known(run["model"]):
        return name
    if changes := differences(run):
        name = re.sub(r"[^A-Za-z0-9=.-]+", "_", name + "".join(f"-{key}={value}" for key, value in changes.items()))
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}-{digest}"
    if figures and run["model"] in STURDY:
        return name
    shown = [f"{run['model']}-{p}" for p in PROFILES[: PROFILES.index(run["profile"])]]
    better = [path for kind in shown for path in (REPOSITORY / _place(run)).glob(f"{kind}-seed*.json")]
    first = min(_seeds(run), default=run["seed"])
    return f"{name}-seed{run['seed']}" if figures and (better or first < run["seed"]) else ""


def _seeds(run: dict) -> dict[int, Path]:
    """The records in results/ of this model and profile, by seed."""
    paths = (REPOSITORY / _place(run)).glob(f"{run['model']}-{run['profile']}-seed*.json")
    return {int(found[1]): path for path in paths if (found := re.fullmatch(r".*-seed(\d+)\.json", path.name))}


def _reference(run: dict) -> dict | None:
    """The record in results/ that a run is like, or is not: that of its seed, else of the first seed."""
    seeds = _seeds(run)
    if not seeds:
        return None
    try:
        record = json.loads(seeds.get(run["seed"], seeds[min(seeds)]).read_text(encoding="utf-8"))
        return record if {"hyperparameters", *([] if run["model"] in STUDIES else ["test"])} <= record.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


# ------------------------------------------------------------------------------- what ran where, with what


def peak_memory_bytes() -> int | None:
    """The most memory this process has held, in bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return getattr(psutil.Process().memory_info(), "peak_wset", None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def versions() -> dict[str, str]:
    """Python's version and those of the libraries that this process has imported."""
    names = {"numpy": "numpy", "torch": "torch", "torchvision": "torchvision", "keras": "keras",
             "tensorflow": "tensorflow", "jax": "jax", "sklearn": "scikit-learn"}  # fmt: skip
    found = {name: getattr(sys.modules[module], "__version__", "unknown")
             for module, name in names.items() if module in sys.modules}  # fmt: skip
    return {"python": platform.python_version(), **found}


def git_commit() -> str | None:
    """The commit that is checked out, with "+changes" where helpers/ differs from it; None outside git.

    (A notebook differs whenever its outputs do; what it ran is in the record: hyperparameters and architecture.)
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(REPOSITORY), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        changes = git("status", "--porcelain", "--untracked-files=no", "--", "helpers")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (commit + ("+changes" if changes else "")) if commit else None


def _plain(value):
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"a record holds plain values only, not {type(value).__name__}")
