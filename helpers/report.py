"""The tables of README.md and docs/ from the records in results/, and helpers/models.py from the notebooks.

python -m helpers.report             # rebuild what is out of date
python -m helpers.report --check     # only say whether anything is
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from helpers.files import REPOSITORY, InputError, output_folder, write_text
from helpers.metrics import accuracy_interval, error_sentence, paired
from helpers.profiles import PROFILES
from helpers.records import load, title

NOTEBOOKS_WITH_MODELS = ("2_Model_Training_CNN.ipynb", "3_Model_Training_ResNet.ipynb")
MODELS_HEADER = '''"""The networks of notebooks 2 and 3, for everything else to import.

Made from the notebooks' cells tagged `model` by `python run.py report`: change them there.
"""

from torch import nn
from torch.nn import functional as F
'''

# ------------------------------------------------------------------------------------- the comparison


def headline(records: list[dict]) -> list[list[dict]]:
    """The records that stand for each model, one list a model: the full profile's seeds where there are any, else the
    quick profile's. A seed with other hyperparameters than the first one is left out."""
    groups = []
    for model in dict.fromkeys(r["model"] for r in records):
        for profile in PROFILES:
            group = [r for r in records if (r["model"], r["profile"]) == (model, profile)]
            if group:
                recipe, *_ = recipes = [{**r["hyperparameters"], "SEED": None} for r in group]
                groups.append([r for r, other in zip(group, recipes) if other == recipe])
                break
    return groups


def comparison_table(records: list[dict], speed: dict[str, dict] | None = None) -> pd.DataFrame:
    """One row a model: test accuracy (mean and spread over seeds, or one run), its 95 % interval, size and cost.

    speed: model -> milliseconds (for one picture) and images_per_second, as measured by `benchmarks.inference`.
    """
    rows = []
    for group in headline(records):
        first, tests = group[0], [r["test"]["accuracy"] for r in group]
        low, high = accuracy_interval(round(np.mean(tests) * first["test"]["images"]), first["test"]["images"])
        spread = f" ± {100 * np.std(tests, ddof=1):.2f} ({len(tests)} seeds)" if len(tests) > 1 else " (one run)"
        measured = (speed or {}).get(first["model"], {})
        flips = [r["test"]["views"]["flips"] for r in group if "views" in r["test"]]
        rows.append({
            "model": title(first),
            "profile": first["profile"],
            "data": first["data"],
            "test accuracy": f"{np.mean(tests):.2%}{spread}",
            "95 % interval": f"{low:.1%} to {high:.1%}",
            "with flips": f"{np.mean(flips):.2%}" if len(flips) == len(group) else "",
            "macro F1": f"{np.mean([r['test']['macro_f1'] for r in group]):.3f}",
            "parameters": f"{first['parameter_count'] / 1e6:.2f} M" if "parameter_count" in first else "",
            "forward": f"{first['forward_flops'] / 1e6:.0f} MFLOP" if "forward_flops" in first else "",
            "training": f"{np.mean([r['train_seconds'] for r in group]) / 60:.1f} min",
            "one picture": f"{measured['milliseconds']:.1f} ms" if measured else "",
            "pictures/s": f"{measured['images_per_second']:,.0f}" if measured else "",
        })  # fmt: skip
    table = pd.DataFrame(rows)
    return table.loc[:, (table != "").any()]  # what no model has is no column


def runs(path: Path) -> Styler:
    """All runs of a record's model, profile and data: what each has otherwise than the record in results/, and whether
    this one (`path`) is better on the validation images, image by image, by more than chance. The best comes first.

    Runs with the same values and layers are one row. Where none has validation images, the test accuracy is shown.
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
    table = pd.DataFrame(rows).sort_values(score, ascending=False, kind="stable", na_position="last")
    if score[0] == "v":
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
    row = {
        "unlike the record in results/": "; ".join(changes) or ("nothing" if record is base else "nothing (run again)")
    }
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
        "the shortest training": [np.mean([r["train_seconds"] for r in group]) for group in groups],
        "the smallest file": [group[0]["parameter_count"] for group in groups],
        "one picture at once": [speed[group[0]["model"]]["milliseconds"] for group in groups],
        "many pictures": [-speed[group[0]["model"]]["images_per_second"] for group in groups],
    }
    return [", ".join(what for what, cost in costs.items() if cost.index(min(cost)) == k) for k in range(len(groups))]


def markdown(table: pd.DataFrame) -> str:
    """The table in Markdown, without its index."""
    rows = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).values.tolist()]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


# ---------------------------------------------------------------------------------------- the sections


def record_sections(records: list[dict], speed: dict[str, dict]) -> dict[str, str]:
    """The parts of the pages that come from the records, by the name of their markers."""
    groups = headline(records)
    if not groups:
        return dict.fromkeys(("comparison", "per-class", "findings", "errors"), "No records yet: `python run.py`.")
    named = {title(group[0]): group for group in groups}
    table = comparison_table(records, speed).drop(columns=["data", "profile"])
    if speed.keys() >= {group[0]["model"] for group in groups}:
        table = table.assign(**{"best for": best_for(groups, speed)})
    flips = "*With flips*: the answers to an image and to its mirror image averaged, as many published figures are."
    devices = "; ".join(dict.fromkeys(f"{group[0]['device']}, {group[0]['precision']}" for group in groups))
    note = f"Profile {', '.join(dict.fromkeys(group[0]['profile'] for group in groups))}; trained on {devices}. {flips}"
    f1 = pd.DataFrame({name: {
        label: f"{np.mean([r['test']['per_class'][label]['f1'] for r in group]):.3f}"
        for label in group[0]["class_names"]
    } for name, group in named.items()})  # fmt: skip
    findings = [finding for group in groups for finding in group[0].get("findings", [])] + _size_finding(groups)
    errors = [f"- **{name}**: {error_sentence(group[0]['test'], group[0]['class_names'])}"
              for name, group in named.items()]  # fmt: skip
    return {
        "comparison": f"{markdown(table)}\n\n{note}{_quick_note(records)}",
        "per-class": markdown(f1.rename_axis("F1 by class").reset_index()),
        "findings": "\n".join(f"- {finding}" for finding in findings),
        "errors": "\n".join(errors),
    }


def _quick_note(records: list[dict]) -> str:
    """What the quick profile gave, for models whose row is the full one."""
    full = {group[0]["model"] for group in headline(records) if group[0]["profile"] == "full"}
    quick = headline([r for r in records if r["profile"] == "quick" and r["model"] in full])
    said = [f"{title(r)} {r['test']['accuracy']:.2%} in {r['train_seconds'] / 60:.1f} min" for r, *_ in quick]
    note = "one run each (they compare budgets, not architectures)"
    return f"\n\nThe quick profile, on {quick[-1][0]['device']}: {', '.join(said)}, {note}." if said else ""


def _size_finding(groups: list[list[dict]]) -> list[str]:
    """Whether ResNet-18 is measurably better than the custom CNN, in a sentence, where both have run in full."""
    runs = {group[0]["model"]: group for group in groups if group[0]["profile"] == "full"}
    if not {"custom_cnn", "resnet18"} <= runs.keys():
        return []
    means, errors, said = {}, {}, []
    for key, label in (("custom_cnn", "CNN"), ("resnet18", "ResNet-18")):
        mean = means[key] = float(np.mean([r["test"]["accuracy"] for r in runs[key]]))
        errors[key] = math.sqrt(mean * (1 - mean) / runs[key][0]["test"]["images"])  # as if of one run
        said.append(f"{label}: {'one run' if len(runs[key]) == 1 else f'mean of {len(runs[key])} runs'}")
    times = runs["resnet18"][0]["parameter_count"] / runs["custom_cnn"][0]["parameter_count"]
    margin, gap = 1.96 * math.hypot(*errors.values()), means["resnet18"] - means["custom_cnn"]
    within = f"{100 * abs(gap):.2f} points, 95 % interval ±{100 * margin:.2f} ({'; '.join(said)})"
    if abs(gap) <= margin:
        return [f"The custom CNN matches ResNet-18, which has {times:.1f} times its parameters: apart by {within}."]
    better, worse = ("ResNet-18", "the custom CNN") if gap > 0 else ("The custom CNN", "ResNet-18")
    return [f"{better} is better than {worse} by {within}; ResNet-18 has {times:.1f} times the parameters."]


def sections(folder: Path) -> dict[str, str]:
    """Every generated part of README.md and docs/ from results/ (`folder`), by the name of its markers."""
    saved = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("benchmarks/*.json")}
    speed = {row["model"]: row for row in saved.get("inference", {}).get("measurements", [])}
    found = record_sections(load(folder), speed)
    earlier = [{
        "model": title(r),
        "test accuracy": f"{r['test']['accuracy']:.2%}",
        "epochs": len(r["history"]),
        "training": f"{r['train_seconds'] / 60:.1f} min",
        "record": f"[{r['file'].removesuffix('.json')}](../results/earlier/{r['file']})",
    } for r in load(folder / "earlier")]  # fmt: skip
    if earlier:
        found["earlier"] = markdown(pd.DataFrame(earlier))
    for name, one in sorted(saved.items()):
        versions = ", ".join(f"{package} {version}" for package, version in one["versions"].items())
        source = f"`python -m benchmarks.{one.get('script', name)}`, {one['date']}, with {versions}."
        found[name] = f"{markdown(pd.DataFrame(one['table']))}\n\n{' '.join(filter(None, [one.get('note'), source]))}"
    return found


# ------------------------------------------------------------------------------------------- the pages


def render(text: str, found: dict[str, str]) -> str:
    """`text` with what stands between `<!-- NAME:start -->` and `<!-- NAME:end -->` replaced by each section."""
    for name, section in found.items():
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        before, started, rest = text.partition(start)
        _, ended, after = rest.partition(end)
        if started and ended:
            text = f"{before}{start}\n{section}\n{end}{after}"
    return text


def models_source(repository: Path) -> str:
    """helpers/models.py: the cells tagged `model` of notebooks 2 and 3, in their order."""
    parts = [MODELS_HEADER]
    for name in NOTEBOOKS_WITH_MODELS:
        cells = json.loads((repository / name).read_text(encoding="utf-8"))["cells"]
        parts += ["".join(c["source"]) + "\n" for c in cells if "model" in c["metadata"].get("tags", [])]
    return "\n\n".join(parts)


def pages(repository: Path) -> dict[Path, str]:
    """Every file that is made from others, with what should be in it.

    Raises InputError for a section without a place: its markers are on no page.
    """
    texts = {path: path.read_text(encoding="utf-8")
             for path in (repository / "README.md", *sorted((repository / "docs").glob("*.md")))}  # fmt: skip
    found = sections(repository / "results")
    for name in found:
        if not any(f"<!-- {name}:start -->" in text and f"<!-- {name}:end -->" in text for text in texts.values()):
            raise InputError(f"no page has the markers <!-- {name}:start --> and <!-- {name}:end -->: put them back.")
    made = {path: render(text, found) for path, text in texts.items()}
    return made | {repository / "helpers" / "models.py": models_source(repository)}


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python run.py report", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is out of date")
    check = parser.parse_args(words).check
    try:
        made = pages(REPOSITORY)
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if not check:
            write_text(path, made[path])
        print(f"{path.relative_to(REPOSITORY).as_posix()}: {'out of date: python run.py report' if check else 'made'}")
    if not stale:
        print("README.md, docs/ and helpers/models.py agree with results/ and the notebooks.")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
