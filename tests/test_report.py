"""helpers.report: the tables of README.md and docs/, and helpers/models.py, from what is committed."""

from __future__ import annotations

import copy
import json
import re

import numpy as np
import pytest
from conftest import HISTORY, SCORES, begin, end

from helpers import data, files, metrics, records, report, tables

RECORDED = ("comparison", "ours", "per-class", "findings", "errors")
MEASURED = (("custom_cnn", 1.26, 4321), ("resnet18", 0.5, 1000))
SPEED = {model: {"milliseconds": time, "images_per_second": rate} for model, time, rate in MEASURED}


@pytest.fixture
def saved(repository):
    """Makes records, of the custom CNN in full unless something else is said, and reads them back."""

    def make(*runs: dict) -> list[dict]:
        for run in runs:
            known = {key: run[key] for key in ("model", "profile", "seed") if key in run}
            path = end(begin(**known), **{key: run[key] for key in run if key not in known})
        return records.load(path.parent)

    return make


QUICK, RESNET = {"profile": "quick"}, {"model": "resnet18"}

# --------------------------------------------------------------------------------------------- tables


def test_headline_is_the_full_profile_where_there_is_one_and_one_recipe(saved):
    made = saved(QUICK, {"accuracy": 0.90}, {"accuracy": 0.91, "seed": 1}, RESNET | QUICK | {"accuracy": 0.8})
    other = copy.deepcopy(made[1]) | {"hyperparameters": {"EPOCHS": 50}, "seed": 2}
    groups = [[(r["profile"], r["test"]["accuracy"]) for r in group] for group in tables.headline([*made, other])]
    assert groups == [[("full", 0.90), ("full", 0.91)], [("quick", 0.8)]]


def test_comparison_table_gives_mean_and_spread_over_seeds_or_says_that_it_is_one_run(saved):
    seeds = [{"seed": seed, "accuracy": accuracy} for seed, accuracy in enumerate((0.93, 0.94, 0.95))]
    bare = {"model": "my_own", "accuracy": 0.933, "parameter_count": None, "forward_flops": None}
    first, second = tables.comparison_table(saved(*seeds, bare), SPEED).to_dict("records")
    low, high = metrics.accuracy_interval(9400, 10_000)
    assert first == {
        "model": "Custom CNN", "profile": "full", "data": "CIFAR-10",
        "test accuracy": "94.00% ± 1.00 (3 seeds)",  # the spread with n - 1
        "95 % interval": f"{low:.1%} to {high:.1%}", "macro F1": f"{SCORES['macro_f1']:.3f}",
        "parameters": "1.23 M", "forward": "89 MFLOP", "training": "1.0 min",
        "one picture": "1.3 ms", "pictures/s": "4,321",
    }  # fmt: skip
    assert (second["model"], second["test accuracy"]) == ("my_own", "93.30% (one run)")
    assert not any(second[name] for name in ("parameters", "forward", "one picture")), "what was not measured is empty"
    assert not {"one picture", "pictures/s"} & set(tables.comparison_table(saved(bare)).columns)


def test_the_long_profile_has_a_row_and_a_finding_of_its_own(saved):
    made = saved({"accuracy": 0.93}, {"accuracy": 0.95, "profile": "long"}, QUICK | {"accuracy": 0.8})
    table = tables.comparison_table(made)
    assert [*table["model"]] == ["Custom CNN", "Custom CNN, long"] and [*table["profile"]] == ["full", "long"]
    findings = report.record_sections(made, {})["findings"]
    assert "With the long profile, Custom CNN reaches 95.0% instead of 93.0% (+2.00 points, 95 % interval ±" in findings
    alone = [record for record in made if record["profile"] == "long"]
    assert tables.shown(alone) == tables.headline(alone) == [alone], "no row twice"


def test_best_for_names_each_strength_once(saved):
    made = saved({"accuracy": 0.94, "parameter_count": 10}, RESNET | {"accuracy": 0.95})
    small, large = tables.best_for(tables.headline(made), SPEED)
    assert small == "the shortest training, the smallest file, many pictures"
    assert large == "the highest accuracy, one picture at once"
    assert f"| {small} |\n" in report.record_sections(made, SPEED)["comparison"]
    assert small not in report.record_sections(made, {"custom_cnn": SPEED["custom_cnn"]})["comparison"], (
        "not measured for all of them"
    )


# ------------------------------------------------------------------------------------------- sections


def test_sections_come_from_the_records(saved):
    made = saved(
        {"accuracy": 0.93, "findings": ["Flipping helps."]}, QUICK | {"accuracy": 0.8}, QUICK | {"seed": 1},
        RESNET | QUICK | {"accuracy": 0.7},
    )  # fmt: skip
    made[-1]["test"]["per_class"]["cat"]["f1"] = 0.123
    sections = report.record_sections(made, {})
    assert tuple(sections) == RECORDED
    assert [line.count("one run)") for line in sections["comparison"].splitlines()].count(1) == 2, "a row a model"
    assert "Profile full, quick; trained on cpu, float32." in sections["comparison"]
    assert "\n\nThe quick profile, on cpu: Custom CNN 80.00% in 1.0 min, one run each (" in sections["comparison"]
    cat = next(line for line in sections["per-class"].splitlines() if line.startswith("| cat |"))
    assert cat == f"| cat | {SCORES['per_class']['cat']['f1']:.3f} | 0.123 |"
    assert sections["findings"] == "- Flipping helps."
    said = metrics.error_sentence(made[0]["test"], data.CLASS_NAMES)
    assert sections["errors"].splitlines() == [f"- **Custom CNN**: {said}", f"- **ResNet-18**: {said}"]
    assert set(report.record_sections([], {}).values()) == {"No records yet: `python run.py`."}


def test_models_beyond_the_three_have_a_table_of_their_own(saved):
    own = saved({"accuracy": 0.94}, {"model": "my_own", "accuracy": 0.911})
    assert "my_own" not in report.record_sections(own, {})["comparison"]
    vit = {"model": "Vision Transformer", "15 min": 0.75, "15 min ±": 0.012, "8 epochs": 0.7, "epochs": 20,
           "parameters": 1_234_567, "operations": 8e7, "pictures a second": 1_000.4}  # fmt: skip
    study = {"profile": "quick", "device": "one CPU", "table": [vit], "findings": ["Time is what it lacks."]}
    text = report.beyond(own, [study, study | {"profile": "smoke", "table": []}], {})["beyond"]
    title, _, header, _, mine, theirs, *rest = text.splitlines()
    assert title == "## Beyond the three"
    assert header == "| model | test accuracy | parameters | training | 15 min | 8 epochs | forward | pictures/s |"
    assert mine == "| my_own | 91.10% (one run) | 1.23 M | 1.0 min |  |  |  |  |"
    assert theirs == "| Vision Transformer |  | 1.23 M |  | 75.0% ± 1.2 | 70.0% | 80 MFLOP | 1,000 |"
    assert "profile quick, one CPU." in rest[1] and rest[-1] == "- Time is what it lacks."
    assert report.beyond(own, [], {})["beyond"].count("\n") == 4 and report.beyond(own[:1], [], {}) == {}
    sturdy = saved({"model": "custom_cnn-augmix", "accuracy": 0.93})
    sturdy += [r | {"model": "resnet18-augmix", "profile": "full-validation"} for r in sturdy]  # it judged: no row
    trust = {"profile": "quick", "spoiled": {"custom_cnn": 0.7, "custom_cnn-augmix": 0.85}}
    text = report.beyond(sturdy, [], trust)["beyond"]
    assert "| Custom CNN, AugMix | 93.00% (one run) | 1.23 M | 1.0 min | 85.0% |" in text and "ResNet" not in text
    assert text.endswith("or compression (notebook 4, profile quick); of them, Custom CNN 70.0%.")


@pytest.mark.parametrize(
    ("accuracy", "profile", "expected"),
    [
        (0.945, "full", "The custom CNN matches ResNet-18, which has 6.0 times its parameters: apart by 0.50 points"),
        (0.930, "full", "The custom CNN is better than ResNet-18 by 1.00 points, 95 % interval ±0.68 (CNN: one run;"),
        (0.955, "full", "ResNet-18 is better than the custom CNN by 1.50 points, 95 % interval ±0.62"),
        (0.955, "quick", ""),
    ],
)  # fmt: skip
def test_findings_say_whether_size_pays(saved, accuracy, profile, expected):
    large = RESNET | {"profile": profile, "accuracy": accuracy, "parameter_count": 6_000_000}
    made = saved({"accuracy": 0.94, "parameter_count": 1_000_000}, large)
    findings = report.record_sections(made, {})["findings"]
    assert findings.startswith(f"- {expected}") if expected else findings == ""


def test_benchmarks_and_earlier_runs_have_sections_too(saved, repository):
    saved({"accuracy": 0.9336})
    saved_one = {"date": "2026-11-23", "versions": {"torch": "2"}, "table": [{"a": "1"}], "note": "One seed."}
    folder = repository / "results"
    for name, more in (("fit", {}), ("batches", {"script": "training", "note": None})):
        files.write_text(folder / "benchmarks" / f"{name}.json", json.dumps(saved_one | more))
    old = (folder / "custom_cnn-full-seed0.json").read_text(encoding="utf-8")
    files.write_text(folder / "earlier" / "custom_cnn-full-seed0-plain.json", old)
    sections = report.sections(folder)
    assert tuple(sections) == (*RECORDED, "earlier", "batches", "fit")
    table = "| a |\n| --- |\n| 1 |\n\n"
    assert sections["fit"] == f"{table}One seed. `python -m benchmarks.fit`, 2026-11-23, with torch 2."
    assert sections["batches"] == f"{table}`python -m benchmarks.training`, 2026-11-23, with torch 2."
    link = "[custom_cnn-full-seed0-plain](../results/earlier/custom_cnn-full-seed0-plain.json)"
    assert sections["earlier"].splitlines()[-1] == f"| Custom CNN | 93.36% | 2 | 1.0 min | {link} |"


# ---------------------------------------------------------------------------------------------- pages


def page(*names: str) -> str:
    return "# Title\n" + "".join(f"<!-- {name}:start -->\nold\n<!-- {name}:end -->\ntext ±\n" for name in names)


def notebook(**cells: str) -> str:
    """tag=source; a notebook gives sources as lists of lines."""
    made = [{"source": source.splitlines(True), "metadata": {"tags": [tag]}} for tag, source in cells.items()]
    return json.dumps({"cells": [*made, {"source": "print(a)", "metadata": {}}]})


@pytest.fixture
def tree(repository, monkeypatch):
    """A repository with a record, two pages and two notebooks."""
    monkeypatch.setattr(report, "REPOSITORY", repository)
    files.write_text(repository / "README.md", page("comparison", "findings"))
    files.write_text(repository / "docs" / "experiments.md", page("ours", "per-class", "errors"))
    second, third = report.MODEL_FILES["models"][1]
    files.write_text(repository / report.MODEL_FILES["keras_models"][1][0], notebook(model="k = 0"))
    files.write_text(repository / second, notebook(parameters="EPOCHS = 3", model="a = 1\nb = 2"))
    files.write_text(repository / third, notebook(model="c = 3"))
    end(begin())
    return repository


def test_report_makes_the_pages_and_the_models_and_check_only_looks(tree, capsys):
    readme, models = tree / "README.md", tree / "helpers" / "models.py"
    before = readme.read_text(encoding="utf-8")
    assert report.main(["--check"]) == 1
    assert capsys.readouterr().out.count("out of date: python run.py report") == 4
    assert (readme.read_text(encoding="utf-8"), models.exists()) == (before, False)
    assert report.main([]) == 0
    assert report.main(["--check"]) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("# Title\n<!-- comparison:start -->\n| model |")
    assert (text.count("old"), text.count("text ±")) == (0, 2), "only what stands between the markers changes"
    assert (tree / "helpers" / "keras_models.py").read_text().endswith("from helpers import data\n\n\nk = 0\n")
    assert models.read_text().endswith("\n\n\na = 1\nb = 2\n\n\nc = 3\n"), "the tagged cells, in their order"
    files.write_text(models, "changed by hand")
    assert report.main(["--check"]) == 1
    assert capsys.readouterr().out.endswith("\nhelpers/models.py: out of date: python run.py report\n")


@pytest.mark.parametrize("marker", ["<!-- findings:start -->", "<!-- findings:end -->"])
def test_missing_marker_is_named_and_nothing_is_written(tree, capsys, marker):
    text = page("comparison", "findings").replace(marker, "")
    files.write_text(tree / "README.md", text)
    assert report.main([]) == 1
    assert capsys.readouterr().err.startswith("no page has the markers <!-- findings:start --> and <!-- findings:end")
    assert (tree / "README.md").read_text(encoding="utf-8") == text


def test_this_trees_pages_and_models_agree_with_results_and_notebooks(capsys):
    assert report.main(["--check"]) == 0, capsys.readouterr()


def test_runs_of_a_model_are_compared_image_by_image_and_the_best_comes_first(repository):
    def ran(accuracy, right, **values):
        history = HISTORY.assign(validation_accuracy=accuracy)
        history.attrs["validation_correct"] = metrics.packed(np.arange(100) < right)
        return end(begin(VALIDATION_IMAGES=100, **values), history=history)

    ran(0.60, 60)
    assert list(tables.runs(ran(0.60, 60)).data.iloc[0]) == ["none", "60.00%", "", "", "this run, best"]
    worse, better = ran(0.50, 50, EPOCHS=2, LEARNING_RATE=0.2), ran(0.62, 62, WIDTH=8, architecture="bbbb2222")
    files.write_text(worse.with_name("custom_cnn-full-seed7.json"), "no record")
    table = tables.runs(better).data
    assert table.values.tolist() == [
        ["WIDTH: None → 8; architecture: aaaa1111 → bbbb2222", "62.00%", "", "", "this run, best"],
        ["none", "60.00%", "+2.00 points", "may be (p = 0.5)", ""],
        ["LEARNING_RATE: 0.1 → 0.2", "50.00%", "+12.00 points", "hardly (p = 0.00049)", ""],
    ]
    assert list(tables.runs(worse).data.iloc[:, -1]) == ["best", "", "this run"]
    seed = tables.runs(ran(0.65, 65, seed=1)).data
    assert list(seed.iloc[0]) == ["SEED: 0 → 1", "65.00%", "", "", "this run, best"]
    assert "test accuracy" not in tables.runs(end(begin(EPOCHS=3))).data, "where others have validation images"
    test_only = tables.runs(end(begin("resnet18"))).data
    assert test_only.columns[1] == "test accuracy" and list(test_only.iloc[:, -1]) == ["this run"]


def test_history_has_the_same_columns_in_the_same_order_for_every_model():
    table = HISTORY.assign(learning_rate=[0.1, 0.05], train_accuracy=[0.5, 0.6], resolution=16)
    shown = tables.history(table).to_html()
    assert re.findall(r"<th [^>]*>([a-z ]+)</th>", shown) == [
        "epoch", "train loss", "train accuracy", "learning rate", "seconds",
    ]  # fmt: skip
    assert "50.0%" in shown and ">30<" in shown
    assert "resolution" in tables.history(table.assign(resolution=[12, 16])).to_html()
