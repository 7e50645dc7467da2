"""Tables of runs, for notebooks and pages: the models beside each other, a model's runs, a training by epoch."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from helpers.files import REPOSITORY, output_folder
from helpers.metrics import accuracy_interval, paired
from helpers.profiles import PROFILES
from helpers.records import title


def headline(records: list[dict], profiles: tuple[str, ...] = PROFILES) -> list[list[dict]]:
    """The records that stand for each model, one list a model: the seeds of the first profile that has any, which is
    the full one if it was run. A seed with other hyperparameters than the first one is left out."""
    groups = []
    for model in dict.fromkeys(r["model"] for r in records):
        for profile in profiles:
            group = [r for r in records if (r["model"], r["profile"]) == (model, profile)]
            if group:
                recipe, *_ = recipes = [{**r["hyperparameters"], "SEED": None} for r in group]
                groups.append([r for r, other in zip(group, recipes) if other == recipe])
                break
    return groups


def shown(records: list[dict]) -> list[list[dict]]:
    """`headline`, and behind it the runs of the long profile."""
    groups = headline(records)
    return groups + [group for group in headline(records, ("long",)) if group not in groups]


def quickest(group: list[dict]) -> float:
    """Seconds of the quickest of these trainings: they ran on shared machines, some of them elsewhere."""
    return min(r["train_seconds"] for r in group)


def comparison_table(records: list[dict], speed: dict[str, dict] | None = None) -> pd.DataFrame:
    """One row a model, and one for its long profile where that was run: test accuracy (mean and spread over seeds, or
    one run), its 95 % interval, size and cost.

    speed: model -> milliseconds (for one picture) and images_per_second, as measured by `benchmarks.inference`.
    """
    rows = []
    for group in shown(records):
        first, tests = group[0], [r["test"]["accuracy"] for r in group]
        low, high = accuracy_interval(round(np.mean(tests) * first["test"]["images"]), first["test"]["images"])
        spread = f" ± {100 * np.std(tests, ddof=1):.2f} ({len(tests)} seeds)" if len(tests) > 1 else " (one run)"
        measured = (speed or {}).get(first["model"], {})
        flips = [r["test"]["views"]["flips"] for r in group if "views" in r["test"]]
        rows.append({
            "model": title(first["model"]) + (first["profile"] == "long") * ", long",
            "profile": first["profile"],
            "data": first["data"],
            "test accuracy": f"{np.mean(tests):.2%}{spread}",
            "95 % interval": f"{low:.1%} to {high:.1%}",
            "with flips": f"{np.mean(flips):.2%}" if len(flips) == len(group) else "",
            "macro F1": f"{np.mean([r['test']['macro_f1'] for r in group]):.3f}",
            "parameters": f"{first['parameter_count'] / 1e6:.2f} M" if "parameter_count" in first else "",
            "forward": f"{first['forward_flops'] / 1e6:.0f} MFLOP" if "forward_flops" in first else "",
            "training": f"{quickest(group) / 60:.1f} min",
            "one picture": f"{measured['milliseconds']:.1f} ms" if measured else "",
            "pictures/s": f"{measured['images_per_second']:,.0f}" if measured else "",
        })  # fmt: skip
    table = pd.DataFrame(rows)
    return table.loc[:, (table != "").any()]  # what no model has is no column


def runs(path: Path) -> Styler:
    """All runs of a record's model, profile and data: what each has otherwise than the record in results/, and whether
    this one (`path`) is better on the validation images, image by image, by more than chance. The best comes first.

    Runs with the same values and layers are one row. Where none has validation images, the test accuracy is shown, and
    the runs stand as they were found.
    """
    roots = [place for base in (REPOSITORY, output_folder()) for place in (base, *sorted((base / "runs").glob("*")))]
    found: dict[str, dict] = {}
    name = f"{path.stem.rpartition('-seed')[0]}-seed*.json"
    for file in dict.fromkeys([path, *(file for root in roots for file in sorted((root / "results").glob(name)))]):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # no record
            one = json.loads(file.read_text(encoding="utf-8")) | {"kept": file.parent == REPOSITORY / "results"}
            same = [one["hyperparameters"], one.get("architecture"), one["data_fingerprint"]]
            found.setdefault(json.dumps(same), one)
    mine, *others = found.values()
    others = [r for r in others if r["data_fingerprint"] == mine["data_fingerprint"]]
    base = min((r for r in (mine, *others) if r["kept"]), key=lambda r: r["seed"], default=mine)
    rows = [_run_row(r, mine, base) for r in (mine, *others)]
    score = next((name for name in ("validation accuracy", "test accuracy") if any(name in row for row in rows)), "")
    table = pd.DataFrame(rows)
    if score[0] == "v":  # nothing is called best by the test images
        table = table.sort_values(score, ascending=False, kind="stable", na_position="last")
        table = table.drop(columns="test accuracy", errors="ignore")
    table = pd.concat([table[:12], table[12:].query("mark == 'this run'")])
    table[score] = [f"{value:.2%}" if value == value else "" for value in table[score]]
    table["mark"] = [
        ", ".join(filter(None, [mark, "best" * (place == 0 and score[0] == "v")]))
        for place, mark in enumerate(table["mark"])
    ]
    table = table.rename(columns={"mark": ""}).fillna("")
    return table.style.hide(axis="index").set_properties(subset=table.columns[:1], **{"text-align": "left"})


def _run_row(record: dict, mine: dict, base: dict) -> dict:
    """One run in a line; "mark" is "this run" or nothing."""
    old, new = ({**r["hyperparameters"], "architecture": r.get("architecture")} for r in (base, record))
    changes = [f"{key}: {old.get(key)} → {new.get(key)}" for key in new | old if old.get(key) != new.get(key)]
    row = {"changed values": "; ".join(changes) or ("none" if record is base else "none (run again)")}
    ours, theirs = ((r["history"] or [{}])[-1].get("validation_accuracy") for r in (mine, record))
    if theirs is None:
        return row | {"test accuracy": record["test"]["accuracy"], "mark": "this run" if record is mine else ""}
    row |= {"validation accuracy": theirs, "this run is better by": "", "is that chance?": ""}
    if record is not mine and ours is not None:
        row["this run is better by"] = f"{100 * (ours - theirs):+.2f} points"
        kept = [r.get("validation_correct") for r in (mine, record)]
        same = mine["hyperparameters"].get("VALIDATION_IMAGES") == new.get("VALIDATION_IMAGES")
        row["is that chance?"] = "unknown (other images)"
        if all(kept) and same:
            chance = paired(*kept)
            p = f"p = {chance:.2g}" if chance >= 1e-4 else "p < 0.0001"
            row["is that chance?"] = f"{'may be' if chance > 0.05 else 'hardly'} ({p})"
    return row | {"mark": "this run" if record is mine else ""}


def history(table: pd.DataFrame) -> Styler:
    """A training's history for the page: the same columns in the same order for every model, no constant ones."""
    order = ["epoch", "resolution", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy",
             "learning_rate", "seconds"]  # fmt: skip
    table = table[[name for name in order if name in table and (name != "resolution" or table[name].nunique() > 1)]]
    table = table.rename(columns=lambda name: name.replace("_", " "))
    formats = {"loss": "{:.3f}", "accuracy": "{:.1%}", "rate": "{:.4f}", "seconds": "{:.0f}"}
    return table.style.hide(axis="index").format({name: formats.get(name.split()[-1], "{}") for name in table})


def best_for(groups: list[list[dict]], speed: dict[str, dict]) -> list[str]:
    """For each model, what it is the best of these for, in words; "" where it leads in nothing."""
    costs = {
        "the highest accuracy": [-np.mean([r["test"]["accuracy"] for r in group]) for group in groups],
        "the shortest training": [quickest(group) for group in groups],
        "the smallest file": [group[0]["parameter_count"] for group in groups],
        "one picture at once": [speed[group[0]["model"]]["milliseconds"] for group in groups],
        "many pictures": [-speed[group[0]["model"]]["images_per_second"] for group in groups],
    }
    return [", ".join(what for what, cost in costs.items() if cost.index(min(cost)) == k) for k in range(len(groups))]


def markdown(table: pd.DataFrame) -> str:
    """The table in Markdown, without its index."""
    rows = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).values.tolist()]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
