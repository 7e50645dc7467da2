"""What a sweep found: sweep.csv, sweep.html, a figure, and the best setting in a sentence.

python -m further.sweep_tables runs/sweep-...       # make them anew
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from scipy import stats

from helpers import metrics, plots
from helpers.files import count, write_text
from helpers.records import MODELS


def read(folder: Path) -> pd.DataFrame:
    """One row a trial that is done: notebook, model, seed, the values that were set, and its accuracies."""
    rows = []
    for path in sorted(folder.glob("*/trial.json")):
        trial = json.loads(path.read_text(encoding="utf-8"))
        for file in path.parent.rglob("results/*.json"):
            record = json.loads(file.read_text(encoding="utf-8"))
            if "test" in record:
                last = record["history"][-1]
                rows.append({
                    "trial": trial["trial"], "model": record["model"],
                    **{k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in trial["values"].items()},
                    "validation accuracy": last.get("validation_accuracy", math.nan),
                    "test accuracy": record["test"]["accuracy"], "train seconds": record["train_seconds"],
                    "correct": record.get("validation_correct"),
                })  # fmt: skip
    return pd.DataFrame(rows)


def swept(table: pd.DataFrame) -> list[str]:
    """The parameters that were set, but for the seed."""
    return [name for name in table if name.isupper() and name != "SEED"]


def settings(table: pd.DataFrame) -> list[pd.DataFrame]:
    """The trials of each setting, by seed."""
    keys = ["model", *swept(table)]
    return [group.set_index("SEED") for _, group in table.groupby(keys, sort=False, dropna=False)]


def by_setting(table: pd.DataFrame, score: str) -> pd.DataFrame:
    """Mean over seeds, its spread and 95 % interval (Student's t) for each setting, the best first; those that lack
    a seed come behind those that have all. The index is the setting's place in `settings`."""
    rows = []
    for group in settings(table):
        values, n = group[score].to_numpy(), len(group)
        spread = values.std(ddof=1) if n > 1 else math.nan
        rows.append({**group.iloc[0][["model", *swept(table)]], "seeds": n, score: values.mean(), "spread": spread,
                     "95 % interval ±": stats.t.ppf(0.975, n - 1) * spread / math.sqrt(n) if n > 1 else math.nan,
                     "train seconds": group["train seconds"].mean()})  # fmt: skip
    return pd.DataFrame(rows).sort_values(["seeds", score], ascending=False, kind="stable")


def verdict(table: pd.DataFrame, best: pd.DataFrame, score: str) -> str:
    """The best setting in a sentence, and whether its lead over the next may be chance, seed by seed."""
    names, first, several = swept(table), best.iloc[0], table["model"].nunique() > 1

    def words(row) -> str:
        values = ", ".join(f"{name} = {row[name]}" for name in names if row[name] == row[name]) or "the recipe"
        return f"{row['model']} with {values}" if several else values

    said = f"Best by {score}: {words(first)} with {first[score]:.2%} ({count(int(first['seeds']), 'seed')})."
    if len(best) < 2:
        return said

    ours, theirs = (settings(table)[place] for place in best.index[:2])
    both = ours.index.intersection(theirs.index)
    gaps = (ours.loc[both, score] - theirs.loc[both, score]).to_numpy()
    chance = math.nan
    if len(both) > 1 and np.ptp(gaps):
        chance = float(stats.ttest_1samp(gaps, 0).pvalue)
    elif len(both) == 1:
        right = [runs.loc[both[0], "correct"] for runs in (ours, theirs)]
        if all(isinstance(one, str) for one in right) and len(right[0]) == len(right[1]):
            chance = metrics.paired(*right)
    likely = "may be chance" if not chance < 0.05 else "is hardly chance"
    p = f" (p = {chance:.2g})" if chance == chance else ""
    return f"{said} Its lead of {100 * gaps.mean():.2f} points over {words(best.iloc[1])} {likely}{p}."


def figure(table: pd.DataFrame, best: pd.DataFrame, score: str) -> plt.Figure:
    """Accuracy against the swept value with its range over seeds, or a heat map of two."""
    names = [name for name in swept(table) if table[name].nunique() > 1]
    if len(names) == 2 and table["model"].nunique() == 1:
        fig, axes = plots.headed(f"Mean {score}", figsize=(6.5, 4), squeeze=False)
        sns.heatmap(best.pivot_table(score, *names), annot=True, fmt=".1%", cmap="cividis", ax=axes[0, 0])
        return fig
    fig, axes = plots.headed(f"{score.capitalize()}: mean and range over seeds", figsize=(7, 4), squeeze=False)
    ax = axes[0, 0]
    if len(names) == 1 and pd.api.types.is_numeric_dtype(table[names[0]]):
        for model, mine in table.groupby("model"):
            line = mine.groupby(names[0])[score].agg(["mean", "min", "max"])
            ax.plot(line.index, line["mean"], "o-", label=MODELS.get(model, model))
            ax.fill_between(line.index, line["min"], line["max"], alpha=0.2)
        if table[names[0]].min() > 0 and table[names[0]].max() / table[names[0]].min() > 3:
            ax.set_xscale("log")
        ax.set_xticks(sorted(table[names[0]].unique()), sorted(table[names[0]].unique()))
        ax.minorticks_off()
        ax.set(xlabel=names[0], ylabel=score)
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
        ax.legend()
        return fig
    fig.set_figheight(1.5 + 0.3 * len(best))
    fig.suptitle(f"Mean {score}, with its 95 % interval over seeds", x=0.01, ha="left")
    labels = [", ".join(str(row[name]) for name in ["model", *names]) for _, row in best.iterrows()]
    ax.errorbar(best[score], range(len(best)), xerr=best["95 % interval ±"].fillna(0), fmt="o")
    ax.set_yticks(range(len(best)), labels)
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    ax.set_xlabel(score)
    return fig


def write(folder: Path, profile: str) -> str:
    """Make the files; what is to be said of them. The test accuracy is shown for the profile full alone, and where
    there are no validation images, nothing is said to be best."""
    table = read(folder)
    if table.empty:
        return "No trial has a record yet."
    validated = table["validation accuracy"].notna().any()
    if not validated and profile != "full":
        return "These runs had no validation images: there is nothing to compare them by."
    score = "validation accuracy" if validated else "test accuracy"
    best = by_setting(table, score)
    best = best if validated else best.sort_index()
    shown = table.drop(columns=["correct"] + ["test accuracy"] * (profile != "full"))
    shown.to_csv(folder / "sweep.csv", index=False)
    fig = figure(table, best, score)
    fig.savefig(folder / "sweep.png", dpi=130, bbox_inches="tight")
    plt.close(fig)
    sentence = verdict(table, best, score) if validated else "Nothing was chosen: these runs had no validation images."
    style = "<style>body {font-family: sans-serif} td, th {padding: .2em .6em}</style>"
    parts = [f"<meta charset='utf-8'><title>Sweep</title>{style}<h1>Sweep</h1><p>{sentence}</p>",
             rounded(best).to_html(index=False), f"<p><img src='sweep.png' alt='{score} by setting'></p>",
             rounded(shown).to_html(index=False)]  # fmt: skip
    write_text(folder / "sweep.html", "\n".join(parts))
    return f"{rounded(best).to_string(index=False)}\n\n{sentence}"


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Its measured columns to four digits; the values that were set as they are."""
    return table.round({name: 4 for name in table.select_dtypes("number") if not name.isupper()})


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print(write(place, json.loads((place / "sweep.json").read_text(encoding="utf-8"))["profile"]))
