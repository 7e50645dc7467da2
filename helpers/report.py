"""The tables of README.md and docs/ from the records in results/, and helpers/models.py from the notebooks.

python -m helpers.report             # rebuild what is out of date
python -m helpers.report --check     # only say whether anything is
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.files import REPOSITORY, InputError, duration, write_text
from helpers.metrics import error_sentence
from helpers.records import MODELS, STURDY, largest, load, title
from helpers.tables import best_for, comparison_table, headline, markdown, quickest, shown

MODEL_FILES = {  # in helpers/: their imports, and the notebooks whose cells tagged `model` follow
    "models": ("from torch import nn\nfrom torch.nn import functional as F",
               ["2_Model_Training_CNN.ipynb", "3_Model_Training_ResNet.ipynb"]),
    "keras_models": ("import keras\nfrom keras import layers\n\nfrom helpers import data", ["1_EDA_CIFAR10.ipynb"]),
}  # fmt: skip

THREE = [*MODELS][:3]  # the rest of them are beyond the three

# ---------------------------------------------------------------------------------------- the sections


def record_sections(records: list[dict], speed: dict[str, dict]) -> dict[str, str]:
    """The parts of the pages that come from the records of the three models, by the name of their markers."""
    records = [r for r in records if r["model"] in THREE]
    groups = headline(records)
    if not groups:
        parts = ("comparison", "ours", "per-class", "findings", "errors")
        return dict.fromkeys(parts, "No records yet: `python run.py`.")
    named = {title(group[0]["model"]): group for group in groups}
    table = comparison_table(records, speed).drop(columns=["data", "profile"])
    if speed.keys() >= {group[0]["model"] for group in groups}:
        table = table.assign(**{"best for": best_for(shown(records), speed)})
    flips = " *With flips*: the answers to an image and to its mirror image averaged, as many published figures are."
    devices = "; ".join(dict.fromkeys(f"{group[0]['device']}, {group[0]['precision']}" for group in groups[::-1]))
    note = f"Profile {', '.join(dict.fromkeys(group[0]['profile'] for group in groups))}; trained on {devices}."
    note += " *±*: the spread over seeds; *training*: the quickest of them, on shared machines; findings: of seed 0."
    note += flips if "with flips" in table else ""
    f1 = pd.DataFrame({name: {
        label: f"{np.mean([r['test']['per_class'][label]['f1'] for r in group]):.3f}"
        for label in group[0]["class_names"]
    } for name, group in named.items()})  # fmt: skip
    findings = [finding for group in groups for finding in group[0].get("findings", [])] + _size_finding(groups)
    findings += _long_findings(records)
    errors = [f"- **{name}**: {error_sentence(group[0]['test'], group[0]['class_names'])}"
              for name, group in named.items()]  # fmt: skip
    ours = table.reindex(columns=["model", "test accuracy", "with flips", "training", "parameters"], fill_value="")
    ours.insert(3, "epochs", [f"{len(group[0]['history'])}, the last" for group in shown(records)])
    return {
        "comparison": f"{markdown(table)}\n\n{note}{_quick_note(records)}",
        "ours": markdown(ours),
        "per-class": markdown(f1.rename_axis("F1 by class").reset_index()),
        "findings": "\n".join(f"- {finding}" for finding in findings),
        "errors": "\n".join(errors),
    }


def _quick_note(records: list[dict]) -> str:
    """What the quick profile gave, for models whose row is the full one."""
    full = {group[0]["model"] for group in headline(records) if group[0]["profile"] == "full"}
    quick = headline([r for r in records if r["profile"] == "quick" and r["model"] in full])
    said = [f"{title(r['model'])} {r['test']['accuracy']:.2%} in {r['train_seconds'] / 60:.1f} min" for r, *_ in quick]
    note = "one run each (they compare budgets, not architectures)"
    return f"\n\nThe quick profile, on {quick[-1][0]['device']}: {', '.join(said)}, {note}." if said else ""


def _size_finding(groups: list[list[dict]]) -> list[str]:
    """Whether ResNet-18 is measurably better than the custom CNN, in a sentence, where both have run in full."""
    runs = {group[0]["model"]: group for group in groups if group[0]["profile"] == "full"}
    if not {"custom_cnn", "resnet18"} <= runs.keys():
        return []
    small, large = runs["custom_cnn"], runs["resnet18"]
    times = large[0]["parameter_count"] / small[0]["parameter_count"]
    gap, margin = _gap(small, large)
    said = [f"{label}: {'one run' if len(group) == 1 else f'mean of {len(group)} runs'}"
            for label, group in (("CNN", small), ("ResNet-18", large))]  # fmt: skip
    within = f"{100 * abs(gap):.2f} points, 95 % interval ±{100 * margin:.2f} ({'; '.join(said)})"
    if abs(gap) <= margin:
        return [f"The custom CNN matches ResNet-18, which has {times:.1f} times its parameters: apart by {within}."]
    better, worse = ("ResNet-18", "the custom CNN") if gap > 0 else ("The custom CNN", "ResNet-18")
    return [f"{better} is better than {worse} by {within}; ResNet-18 has {times:.1f} times the parameters."]


def _long_findings(records: list[dict]) -> list[str]:
    """What the long profile bought each model, and what it cost."""
    groups = {(group[0]["model"], group[0]["profile"]): group for group in shown(records)}
    return [
        f"With the long profile, {title(model)} reaches {_mean(long):.1%} instead of {_mean(full):.1%} "
        f"({100 * _gap(full, long)[0]:+.2f} points, 95 % interval ±{100 * _gap(full, long)[1]:.2f}), after "
        f"{duration(quickest(long))} of training instead of {duration(quickest(full))}."
        for (model, profile), long in groups.items()
        if profile == "long" and (full := groups.get((model, "full")))
    ]


def _mean(group: list[dict]) -> float:
    return float(np.mean([r["test"]["accuracy"] for r in group]))


def _gap(first: list[dict], second: list[dict]) -> tuple[float, float]:
    """By how much the second runs' accuracy is above the first's, and the half width of its 95 % interval."""
    errors = [math.sqrt(_mean(g) * (1 - _mean(g)) / g[0]["test"]["images"]) for g in (first, second)]  # as of one run
    return _mean(second) - _mean(first), 1.96 * math.hypot(*errors)


def beyond(records: list[dict], studied: list[dict], trust: dict) -> dict[str, str]:
    """The table of models beyond the three, from their records and from notebook 5's, which has findings, too.

    trust: notebook 4's record, with the accuracy of some models on spoiled images.
    """
    spoiled = trust.get("spoiled", {})
    others = [r for r in records if r["model"] not in THREE and r["profile"] != "full-validation"]
    shown_of = ["model", "test accuracy", "parameters", "training"]
    rows = comparison_table(others).reindex(columns=shown_of).to_dict("records") if others else []
    for row, (first, *_) in zip(rows, shown(others)):
        if first["model"] in spoiled:
            row["of spoiled images"] = f"{spoiled[first['model']]:.1%}"
    note = "*AugMix*: trained on distorted images, too; `predict` and the page use such a network first. "
    plain = ", ".join(f"{title(name)} {spoiled[name]:.1%}" for name in THREE if name in spoiled)
    note += "*Of spoiled images*: right of those with noise, blur, weather or compression (notebook 4, profile "
    note += f"{trust.get('profile')}); of them, {plain}. "
    note *= bool(STURDY.keys() & {r["model"] for r in others} & spoiled.keys())
    heading = "## Beyond the three\n\n"
    if not studied:
        return {"beyond": f"{heading}{markdown(pd.DataFrame(rows).fillna(''))}\n\n{note}".rstrip()} if rows else {}
    best = largest(studied)
    for row in best["table"]:
        bought = {name: f"{value:.1%}" + (f" ± {100 * row[f'{name} ±']:.1f}" if f"{name} ±" in row else "")
                  for name, value in row.items() if name.endswith((" min", " epoch", " epochs"))}  # fmt: skip
        rows.append({"model": row["model"], **bought, "parameters": f"{row['parameters'] / 1e6:.2f} M",
                     "forward": f"{row['operations'] / 1e6:.0f} MFLOP",
                     "pictures/s": f"{row['pictures a second']:,.0f}"})  # fmt: skip
    note += "Of notebook 5: test accuracy after the same minutes or epochs (±: over seeds, else one run); "
    note += f"profile {best['profile']}, {best['device']}."
    findings = "\n".join(f"- {finding}" for finding in best["findings"])
    return {"beyond": f"{heading}{markdown(pd.DataFrame(rows).fillna(''))}\n\n{note}\n\n{findings}"}


def sections(folder: Path) -> dict[str, str]:
    """Every generated part of README.md and docs/ from results/ (`folder`), by the name of its markers."""
    saved = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("benchmarks/*.json")}
    speed = {row["model"]: row for row in saved.get("inference", {}).get("measurements", [])}
    trust = largest(load(folder / "trust"))
    found = record_sections(load(folder), speed) | beyond(load(folder), load(folder / "architectures"), trust)
    earlier = [{
        "model": title(r["model"]),
        "test accuracy": f"{r['test']['accuracy']:.2%}",
        "epochs": len(r["history"]),
        "training": f"{r['train_seconds'] / 60:.1f} min",
        "record": f"[{r['file'].removesuffix('.json')}](../results/earlier/{r['file']})",
    } for r in load(folder / "earlier")]  # fmt: skip
    if earlier:
        found["earlier"] = markdown(pd.DataFrame(earlier))
    if trust:
        verdicts = [{
            "claim": f"“{row['claim']}”", "measured": row["measured"], "verdict": f"**{row['verdict']}**",
            "where": f"[notebook {Path(row['where']).name[0]}]({row['where']}), {row.get('section', '')}".rstrip(", "),
        } for row in trust["verdicts"]]  # fmt: skip
        images = trust["hyperparameters"]["TEST_IMAGES"]
        note = f"Profile {trust['profile']} of that notebook, on {images:,} test images; {trust['device']}."
        found["verdicts"] = f"{markdown(pd.DataFrame(verdicts))}\n\n{note}"
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


def models_source(repository: Path, kind: str) -> str:
    """helpers/<kind>.py: the cells tagged `model` of its notebooks, in their order."""
    imports, notebooks = MODEL_FILES[kind]
    about = (
        f'"""The networks of notebook{"s" * (len(notebooks) > 1)} {" and ".join(name[0] for name in notebooks)}, for '
    )
    parts = [f"{about}everything else to import.\n\nMade from the cells tagged `model` by `python run.py report`: "
             f'change them there.\n"""\n\n{imports}\n']  # fmt: skip
    for name in notebooks:
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
    return made | {repository / "helpers" / f"{kind}.py": models_source(repository, kind) for kind in MODEL_FILES}


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
        print("README.md, docs/ and the models in helpers/ agree with results/ and the notebooks.")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
