"""Profiles, one record a run (results/*.json), and the README's tables made from the records.

PROFILE = results.choose_profile(PROFILE, gpu=True)
EPOCHS, BATCH_SIZE = results.for_profile(PROFILE, EPOCHS, BATCH_SIZE)
results.write(record)

python -m helpers.results            # rebuild the tables in README.md
python -m helpers.results --check    # only say whether they are up to date
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.data import REPOSITORY, Cifar10, InputError, output_folder, relative, write_text
from helpers.metrics import accuracy_interval, error_sentence

PROFILES = ("full", "quick", "smoke")
MODELS = {"keras_baseline": "Keras baseline", "custom_cnn": "Custom CNN", "resnet18": "ResNet-18"}
ENVIRONMENT = {"PROFILE", "DEVICE", "DATA_ROOT"}  # parameters that say where a run happens, not what it does

# ------------------------------------------------------------------------------- profiles, parameters


def choose_profile(name: str, *, gpu: bool) -> str:
    """ "auto" gives $CIFAR10_PROFILE where it is set, else "full" with a GPU and "quick" without.

    Raises InputError for another name than "auto", "full", "quick" or "smoke".
    """
    git_commit()  # asked for the first time: the commit of the record is the one that the run began with
    origin = "PROFILE"
    if name == "auto" and os.environ.get("CIFAR10_PROFILE"):
        origin, name = "CIFAR10_PROFILE", os.environ["CIFAR10_PROFILE"]
    if name == "auto":
        name = "full" if gpu else "quick"
    if name not in PROFILES:
        raise InputError(f'{origin} is "{name}": expected "auto", "full", "quick" or "smoke".')
    return name


def for_profile(profile: str, *values):
    """Each value as it is, or its entry for `profile` where it is a dictionary with one entry a profile.

    Raises InputError for a dictionary without that entry.
    """
    for value in values:
        if isinstance(value, dict) and profile not in value:
            raise InputError(f'a parameter is {value}, without a value for PROFILE "{profile}": give it one.')
    chosen = [value[profile] if isinstance(value, dict) else value for value in values]
    return chosen[0] if len(chosen) == 1 else chosen


def hyperparameters(namespace: dict) -> dict:
    """The parameters of a notebook from its `globals()`: every upper-case name with a plain value.

    Left out are PROFILE, DEVICE and DATA_ROOT, which a record holds under names of their own.
    """
    plain = (bool, int, float, str, list, type(None))
    return {
        name: value
        for name, value in namespace.items()
        if re.fullmatch(r"[A-Z][A-Z0-9_]*", name) and isinstance(value, plain) and name not in ENVIRONMENT
    }


def announce(profile: str, device: str, seconds: dict[str, float]) -> None:
    """Say which profile runs, on what, about how long it takes here, and how to get the full one.

    seconds: the estimate of the whole notebook, one entry a profile.
    """
    print(f'Profile "{profile}" on {device}: about {_minutes(seconds[profile])} for the whole notebook here.')
    if profile != "full":
        print(f'The full profile would take about {_minutes(seconds["full"])} here: set PROFILE = "full" above.')


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{max(10 * round(seconds / 10), 10)} seconds"
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


# -------------------------------------------------------------------------------------------- records


def make_record(
    model: str,
    *,
    notebook: str,
    profile: str,
    seed: int,
    hyperparameters: dict,
    cifar: Cifar10,
    history: pd.DataFrame,
    test: dict,
    device: str,
    precision: str,
    **measured,
) -> dict:
    """One run as a dictionary of plain values (the keys are listed in the README under "How results are made").

    history: one row an epoch, with a `seconds` column. test: `metrics.summary(...)`. measured: parameter_count,
    forward_flops, train_images, resumed and what else the notebook knows; None is left out.
    """
    record = {
        "model": model,
        "notebook": notebook,
        "profile": profile,
        "seed": seed,
        "hyperparameters": hyperparameters,
        "data": cifar.name,
        "data_fingerprint": cifar.fingerprint,
        "class_names": list(cifar.class_names),
        "device": device,
        "precision": precision,
        "train_seconds": float(history["seconds"].sum()),
        "peak_memory_bytes": peak_memory_bytes(),
        "versions": versions(),
        "git_commit": git_commit(),
        **measured,
        "history": history.to_dict("records"),
        "test": test,
    }
    return {key: value for key, value in record.items() if value is not None}


def changed(model: str, profile: str, seed: int, hyperparameters: dict) -> bool:
    """Whether the figures in Images/ should be left as they are by this run; says why.

    They are of the first seed of the full profile, or of the quick one as long as there is no full record. A run with
    other hyperparameters than its record in results/ leaves them alone, too.
    """
    if profile == "smoke":
        return False
    folder = REPOSITORY / "results"
    reference = _read(folder / f"{model}-{profile}-seed{seed}.json")
    differs = _differences(reference, {"hyperparameters": hyperparameters}) if reference else {}
    differs.pop("architecture", None)  # the model is not built yet
    if differs:
        print(f"An experiment: {', '.join(differs)} differ from the record in results/. Its figures go below runs/.")
        return True
    for better in PROFILES[: PROFILES.index(profile) + 1]:
        for path in sorted(folder.glob(f"{model}-{better}-seed*.json")):
            first = re.fullmatch(r".*-seed(\d+)\.json", path.name)
            if first and (better != profile or int(first[1]) < seed):
                print(f"Images/ shows the {better} profile with seed {first[1]}: these figures go below runs/.")
                return True
    return False


def write(record: dict) -> Path:
    """Write the record to results/<model>-<profile>-seed<seed>.json, and say how it compares.

    A run with other hyperparameters or another architecture than the record in place is kept beside it, named after
    what differs; one on data that is not the official CIFAR-10 is named "...-altered".
    The stand-in and the smoke profile write below runs/. Raises InputError where the folder is not writable.
    """
    smoke, stand_in = record["profile"] == "smoke", record["data"] == "stand-in"
    name = f"{record['model']}-{record['profile']}-seed{record['seed']}"
    if record["data"] != "CIFAR-10" and not stand_in:
        name += "-altered"
    try:
        folder = output_folder("results", stand_in=stand_in, smoke=smoke)
        path = folder / f"{name}.json"
        before = _read(path) or _read(REPOSITORY / "results" / path.name)
        differs = _differences(before, record) if before and before.get("data") == record["data"] else {}
        if differs:
            suffix = "-".join(f"{key}={value}" for key, value in differs.items())
            stem = re.sub(r"[^A-Za-z0-9=.-]+", "_", f"{name}-{suffix}")
            if len(stem) > 150:
                stem = f"{stem[:140]}-{hashlib.sha256(stem.encode()).hexdigest()[:8]}"
            path = folder / f"{stem}.json"
            print(f"Differs from {name}.json in {', '.join(differs)}: kept beside it.")
            new, old = ((r.get("history") or [{}])[-1].get("validation_accuracy") for r in (record, before))
            if new and old:
                print(f"Validation accuracy {new:.2%}; there it was {old:.2%}.")
            else:
                print(
                    f"Test accuracy {record['test']['accuracy']:.2%}; there it was {before['test']['accuracy']:.2%}. "
                    "To choose between values, use the quick profile: it sets validation images aside."
                )
        write_text(path, json.dumps(record, indent=1, default=_plain) + "\n")
    except OSError as error:
        raise InputError(
            f"the record {name}.json cannot be written to results/ ({error.strerror}): make room or set "
            "CIFAR10_OUTPUT to a writable folder, and run this cell again; nothing is lost meanwhile."
        ) from None
    print(f"Record: {relative(path)}")
    return path


def _read(path: Path) -> dict | None:
    """The record in a file; None where there is none, or something else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and {"hyperparameters", "test"} <= record.keys() else None


def _differences(before: dict, now: dict) -> dict:
    """What `now` has otherwise than `before`: hyperparameters by name, and the architecture."""
    old, new = before["hyperparameters"], json.loads(json.dumps(now["hyperparameters"], default=_plain))
    differs = {key: new.get(key) for key in sorted({*old, *new}) if old.get(key) != new.get(key)}
    if before.get("architecture") != now.get("architecture"):
        differs["architecture"] = now.get("architecture")
    return differs


def _plain(value):
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"a record holds plain values only, not {type(value).__name__}")


def load(folder: Path | None = None) -> list[dict]:
    """All records in `folder` (results/, or $CIFAR10_OUTPUT/results), in the order of the models."""
    folder = folder or Path(os.environ.get("CIFAR10_OUTPUT") or REPOSITORY) / "results"
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            records.append({"model": record["model"], **record, "file": path.name})
        except (ValueError, TypeError, KeyError) as error:  # not JSON, or not a record
            raise InputError(
                f"{relative(path)} is not a record ({error}): delete it, or run its notebook again."
            ) from None
    order = [*MODELS]
    return sorted(records, key=lambda r: (order.index(r["model"]) if r["model"] in order else len(order), r["file"]))


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
    found = {}
    for module, name in names.items():
        if module in sys.modules:
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:  # installed under another name, as tensorflow-cpu is
                found[name] = str(getattr(sys.modules[module], "__version__", "unknown"))
    return {"python": platform.python_version(), **found}


def git_commit() -> str | None:
    """The commit that was checked out when this process first asked, with "+changes" where helpers/ differed from it;
    None outside git.

    (A notebook differs whenever its outputs do; what it ran is in the record: hyperparameters and architecture.)
    """
    return _commit_of(REPOSITORY)


@functools.cache
def _commit_of(repository: Path) -> str | None:
    try:
        commit = _git(repository, "rev-parse", "HEAD")
        changes = _git(repository, "status", "--porcelain", "--untracked-files=no", "--", "helpers")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (commit + ("+changes" if changes else "")) if commit else None


def _git(repository: Path, *words: str) -> str:
    command = ["git", "-C", str(repository), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()


# --------------------------------------------------------------------------------------------- tables


def headline(records: list[dict]) -> list[list[dict]]:
    """The records that stand for each model, one list a model: the full profile's seeds where there are any, else the
    quick profile's. Runs on altered data or with changed hyperparameters (named after what differs, or unlike the
    first seed's) are left out, unless there is nothing else."""
    groups = []
    for model in dict.fromkeys(r["model"] for r in records):
        mine = [r for r in records if r["model"] == model]
        plain = [r for r in mine if re.fullmatch(r".*-seed\d+\.json", r["file"])] or mine[:1]
        for profile in PROFILES:
            group = [r for r in plain if r["profile"] == profile]
            if group:
                groups.append([r for r in group if _recipe(r) == _recipe(group[0])])
                break
    return groups


def _recipe(record: dict) -> dict:
    return {key: value for key, value in record["hyperparameters"].items() if key != "SEED"}


def comparison_table(records: list[dict]) -> pd.DataFrame:
    """One row a model: test accuracy (mean and spread over seeds, or one run with its 95 % interval), size and cost."""
    rows = []
    for group in headline(records):
        first = group[0]
        tests = [r["test"]["accuracy"] for r in group]
        images = first["test"]["images"]
        low, high = accuracy_interval(round(np.mean(tests) * images), images)
        spread, runs = "", "one run"
        if len(tests) > 1:
            spread, runs = f" ± {100 * np.std(tests, ddof=1):.2f}", f"{len(tests)} seeds"
        accuracy = f"{np.mean(tests):.2%}{spread} ({runs}; {low:.1%} to {high:.1%})"
        rows.append({
            "model": MODELS.get(first["model"], first["model"]),
            "profile": first["profile"],
            "data": first["data"],
            "test accuracy": accuracy,
            "macro F1": f"{np.mean([r['test']['macro_f1'] for r in group]):.3f}",
            "parameters": f"{first['parameter_count'] / 1e6:.2f} M" if "parameter_count" in first else "",
            "forward": f"{first['forward_flops'] / 1e6:.0f} MFLOP" if "forward_flops" in first else "",
            "training": f"{np.mean([r['train_seconds'] for r in group]) / 60:.1f} min",
            "epochs": str(len(first["history"])),
            "image": "{0}×{0}".format(first["history"][-1].get("resolution", 32)),
            "device": f"{first['device']}, {first['precision']}",
        })  # fmt: skip
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    """The table in Markdown, without its index."""
    rows = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).values.tolist()]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def readme_sections(records: list[dict]) -> dict[str, str]:
    """The generated parts of README.md by the name of their markers."""
    groups = headline(records)
    if not groups:
        return dict.fromkeys(
            ("comparison", "per-class", "findings", "errors"), "No records yet: `python run.py` makes them."
        )
    note = "The official 10,000 test images, scored once, after the last epoch."
    if any(group[0]["profile"] == "quick" for group in groups):
        note += (
            " **Quick rows are demonstrations**, not the headline recipe: they show what a few minutes on the device "
            "named give, with different epochs and image sizes. They compare budgets, not architectures."
        )
    if any(len(group) > 1 for group in groups):
        note += " Key findings, error analysis and figures of a row of several seeds are those of its first."
    note += _quick_note(records)
    table = comparison_table(records).drop(columns="data")
    f1 = pd.DataFrame({MODELS.get(g[0]["model"], g[0]["model"]): {
        name: f"{np.mean([r['test']['per_class'][name]['f1'] for r in g]):.3f}" for name in g[0]["class_names"]
    } for g in groups})  # fmt: skip
    findings = [finding for group in groups for finding in group[0].get("findings", [])] + _size_finding(groups)
    errors = []
    for group in groups:
        first = group[0]
        sentence = error_sentence(first["test"], first["class_names"])
        errors.append(f"- **{MODELS.get(first['model'], first['model'])}** ({first['profile']}): {sentence}")
    return {
        "comparison": f"{markdown(table)}\n\n{note}",
        "per-class": markdown(f1.rename_axis("F1 by class").reset_index()),
        "findings": "\n".join(f"- {finding}" for finding in findings),
        "errors": "\n".join(errors),
    }


def _quick_note(records: list[dict]) -> str:
    """What the quick profile gave, for models whose row is the full one; empty where there are no such records."""
    full = {group[0]["model"] for group in headline(records) if group[0]["profile"] == "full"}
    quick = headline([r for r in records if r["profile"] == "quick" and r["model"] in full])
    said = [
        f"{MODELS[runs[0]['model']]} {runs[0]['test']['accuracy']:.1%} in {runs[0]['train_seconds'] / 60:.1f} min"
        for runs in quick
    ]
    if not said:
        return ""
    return f"\n\nTraining with the quick profile, on {quick[-1][0]['device']}: {', '.join(said)}, one run each."


def _size_finding(groups: list[list[dict]]) -> list[str]:
    """Whether ResNet-18 is measurably better than the custom CNN, in a sentence, where both have run in full."""
    runs = {group[0]["model"]: group for group in groups if group[0]["profile"] == "full"}
    if not {"custom_cnn", "resnet18"} <= runs.keys():
        return []
    (small, small_error), (large, large_error) = map(_mean_and_error, (runs["custom_cnn"], runs["resnet18"]))
    times = runs["resnet18"][0]["parameter_count"] / runs["custom_cnn"][0]["parameter_count"]
    margin = 1.96 * math.hypot(small_error, large_error)
    small_runs, large_runs = (
        "one run" if len(runs[key]) == 1 else f"mean of {len(runs[key])} runs" for key in ("custom_cnn", "resnet18")
    )
    gap = f"{100 * abs(large - small):.2f} points"
    within = f"95 % interval ±{100 * margin:.2f} (CNN: {small_runs}; ResNet-18: {large_runs})"
    if abs(large - small) <= margin:
        return [f"The custom CNN matches ResNet-18, which has {times:.1f} times its parameters: {gap} apart, {within}."]
    better, worse = ("ResNet-18", "the custom CNN") if large > small else ("The custom CNN", "ResNet-18")
    return [f"{better} is better than {worse} by {gap}, {within}; ResNet-18 has {times:.1f} times the parameters."]


def _mean_and_error(group: list[dict]) -> tuple[float, float]:
    """Mean test accuracy, and its standard error as if every run had been tested on images of its own."""
    accuracy = float(np.mean([r["test"]["accuracy"] for r in group]))
    return accuracy, math.sqrt(accuracy * (1 - accuracy) / group[0]["test"]["images"])


def earlier_section(folder: Path) -> dict[str, str]:
    """Full runs of recipes that were given up, from the records in `folder`: {"earlier": their table}."""
    rows = [
        {
            "model": MODELS[r["model"]],
            "test accuracy": f"{r['test']['accuracy']:.2%}",
            "epochs": str(len(r["history"])),
            "training": f"{r['train_seconds'] / 60:.1f} min",
            "record": f"[{r['file'].removesuffix('.json')}](results/{folder.name}/{r['file']})",
        }
        for r in load(folder)
    ]
    return {"earlier": markdown(pd.DataFrame(rows))} if rows else {}


def benchmark_sections(folder: Path) -> dict[str, str]:
    """The tables that the scripts in benchmarks/ saved in `folder`, by the name of their markers in README.md."""
    sections = {}
    for path in sorted(folder.glob("*.json")):
        saved = json.loads(path.read_text(encoding="utf-8"))
        versions = ", ".join(f"{name} {version}" for name, version in saved["versions"].items())
        medians = ", medians" if saved.get("medians", True) else ""  # the ablations' are means
        source = f"`python -m benchmarks.{path.stem}`, {saved['date']}{medians}, with {versions}."
        text = " ".join(filter(None, [saved.get("note"), source]))
        sections[path.stem] = f"{markdown(pd.DataFrame(saved['table']))}\n\n{text}"
    return sections


def all_sections(folder: Path) -> dict[str, str]:
    """Every generated part of README.md from results/ (`folder`), by the name of its markers."""
    return (
        readme_sections(load(folder)) | earlier_section(folder / "earlier") | benchmark_sections(folder / "benchmarks")
    )


def render_readme(text: str, sections: dict[str, str]) -> str:
    """`text` with what stands between `<!-- NAME:start -->` and `<!-- NAME:end -->` replaced by each section."""
    for name, section in sections.items():
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise InputError(f"README.md has no markers {start} and {end}, in this order: put them back.")
        text = f"{before}{start}\n{section}\n{end}{after}"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m helpers.results", description="The README's tables from results/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if README.md is out of date")
    parser.add_argument("--table", action="store_true", help="print the comparison table of $CIFAR10_OUTPUT, and stop")
    arguments = parser.parse_args()
    try:
        if arguments.table:
            print(comparison_table(load()).to_string(index=False))
            return 0
        path = REPOSITORY / "README.md"
        before = path.read_text(encoding="utf-8")
        folder = REPOSITORY / "results"
        after = render_readme(before, all_sections(folder))
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.check:
        print("README.md agrees with results/" if before == after else "README.md is out of date: python run.py report")
        return int(before != after)
    if before != after:
        write_text(path, after)
    print("README.md rebuilt from results/" if before != after else "README.md already agrees with results/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
