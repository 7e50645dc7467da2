"""helpers.results: profiles, records and the tables made from them; and that README.md agrees with results/."""

from __future__ import annotations

import copy
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import data, metrics, results
from helpers.data import InputError


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository without records, so that those that are committed do not matter here."""
    folder = tmp_path / "repository"
    monkeypatch.setattr(results, "REPOSITORY", folder)
    return folder


LABELS = np.random.default_rng(0).integers(0, 10, 200)
LOGITS = np.random.default_rng(1).normal(0, 1, (200, 10)) + 2 * np.eye(10)[LABELS]
IMAGES = np.zeros((10, 32, 32, 3), np.uint8)


def cifar_called(name: str) -> data.Cifar10:
    """A data set that calls itself CIFAR-10, CIFAR-10 (altered) or stand-in."""
    kind = "stand-in" if name == "stand-in" else "sha256"
    arrays = (IMAGES, np.arange(10), IMAGES, np.arange(10))
    return data.Cifar10(*arrays, data.CLASS_NAMES, f"{kind}:0123", name == "CIFAR-10", "a test")


def record(model="custom_cnn", profile="full", seed=0, accuracy=None, name="CIFAR-10", **parameters) -> dict:
    """A record as a notebook makes it."""
    made = results.make_record(
        model,
        notebook="2_Model_Training_CNN.ipynb",
        profile=profile,
        seed=seed,
        hyperparameters={"EPOCHS": 2, "LEARNING_RATE": 0.1, "SEED": seed} | parameters,
        cifar=cifar_called(name),
        history=pd.DataFrame({"epoch": [1, 2], "train_loss": [2.0, 1.5], "seconds": [30.5, 29.5]}),
        test=metrics.summary(LOGITS, LABELS, data.CLASS_NAMES),
        device="cpu",
        precision="float32",
        parameter_count=1_234_567,
        forward_flops=89_000_000,
    )
    if accuracy is not None:
        made["test"] |= {"accuracy": accuracy, "images": 10_000}
        made["test"]["accuracy_interval_95"] = list(metrics.accuracy_interval(round(accuracy * 10_000), 10_000))
    return made


def saved(*records: dict) -> list[dict]:
    """The records after a way through the disk."""
    for each in records:
        results.write(each)
    return results.load()


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# ------------------------------------------------------------------------------- profiles, parameters


@pytest.fixture(autouse=True)
def no_profile(monkeypatch):
    monkeypatch.delenv("CIFAR10_PROFILE", raising=False)


def test_auto_is_full_with_a_gpu_and_quick_without():
    assert results.choose_profile("auto", gpu=True) == "full"
    assert results.choose_profile("auto", gpu=False) == "quick"


def test_profile_that_is_named_is_taken(monkeypatch):
    monkeypatch.setenv("CIFAR10_PROFILE", "smoke")
    for name in ("full", "quick", "smoke"):
        for gpu in (True, False):
            assert results.choose_profile(name, gpu=gpu) == name


def test_auto_follows_the_environment(monkeypatch):
    monkeypatch.setenv("CIFAR10_PROFILE", "smoke")
    assert results.choose_profile("auto", gpu=True) == "smoke"
    for same_as_none in ("auto", ""):
        monkeypatch.setenv("CIFAR10_PROFILE", same_as_none)
        assert results.choose_profile("auto", gpu=False) == "quick"


def test_unknown_profile_is_named_with_those_that_exist(monkeypatch):
    with pytest.raises(InputError, match=r'^PROFILE is "fast": expected "auto", "full", "quick" or "smoke"\.$'):
        results.choose_profile("fast", gpu=False)
    monkeypatch.setenv("CIFAR10_PROFILE", "slow")
    with pytest.raises(InputError, match=r'^CIFAR10_PROFILE is "slow": expected "auto", "full"'):
        results.choose_profile("auto", gpu=False)


def test_for_profile_takes_the_profiles_entry_and_leaves_plain_values():
    epochs, size, name = {"full": 18, "quick": 4, "smoke": 1}, [16, 32], "cnn"
    assert results.for_profile("quick", epochs, size, name) == [4, [16, 32], "cnn"]
    assert results.for_profile("full", epochs) == 18
    assert results.for_profile("full", 7) == 7
    with pytest.raises(InputError, match=r"a parameter is \{'full': 1\}, without a value for PROFILE \"quick\""):
        results.for_profile("quick", {"full": 1})


def test_hyperparameters_are_the_upper_case_plain_values():
    namespace = {
        "EPOCHS": 3, "LEARNING_RATE": 0.1, "FLIP": True, "SCHEDULE": "one-cycle", "RESOLUTION": [16, 32], "LIMIT": None,
        "PROFILE": "quick", "DEVICE": "cpu", "DATA_ROOT": None,
        "epochs": 4, "Batches": object, "_": 1, "_HIDDEN": 2, "MODEL": object(), "__name__": "__main__", "In": [""],
    }  # fmt: skip
    assert results.hyperparameters(namespace) == {
        "EPOCHS": 3, "LEARNING_RATE": 0.1, "FLIP": True, "SCHEDULE": "one-cycle", "RESOLUTION": [16, 32], "LIMIT": None,
    }  # fmt: skip


def test_announce_says_what_runs_and_how_to_get_the_full_profile(capsys):
    results.announce("quick", "cpu", {"quick": 200, "full": 9000, "smoke": 3})
    assert capsys.readouterr().out == (
        'Profile "quick" on cpu: about 3 minutes for the whole notebook here.\n'
        'The full profile would take about 2.5 hours here: set PROFILE = "full" above.\n'
    )
    results.announce("full", "cuda", {"quick": 200, "full": 47, "smoke": 3})
    assert capsys.readouterr().out == 'Profile "full" on cuda: about 50 seconds for the whole notebook here.\n'


# -------------------------------------------------------------------------------------------- records


def test_record_holds_what_the_readme_promises():
    made = record(name="stand-in")
    assert made["data"] == "stand-in"
    assert made["data_fingerprint"] == "stand-in:0123"
    assert made["train_seconds"] == 60
    assert made["history"][1] == {"epoch": 2, "train_loss": 1.5, "seconds": 29.5}
    assert made["class_names"] == list(data.CLASS_NAMES)
    assert made["versions"]["numpy"] == np.__version__
    assert made["parameter_count"] == 1_234_567
    assert set(made) >= {
        "model", "notebook", "profile", "hyperparameters", "seed", "parameter_count", "forward_flops", "device",
        "precision", "train_seconds", "versions", "data_fingerprint", "history", "test",
    }  # fmt: skip


def test_what_was_not_measured_is_absent(monkeypatch):
    monkeypatch.setattr(results, "peak_memory_bytes", lambda: None)
    monkeypatch.setattr(results, "git_commit", lambda: None)
    assert not {"peak_memory_bytes", "git_commit"} & set(record())
    assert None not in record().values()


def test_peak_memory_is_that_of_this_process():
    peak = results.peak_memory_bytes()
    assert peak is None or 20e6 < peak < 1e12


def test_versions_of_a_library_installed_under_another_name(monkeypatch):
    def version(name):
        raise results.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(results.importlib.metadata, "version", version)
    assert results.versions()["numpy"] == np.__version__


def test_git_commit_is_absent_outside_git(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "REPOSITORY", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert results.git_commit() is None


def test_git_commit_is_the_one_that_the_run_began_with(tmp_path, monkeypatch):
    def git(*words):
        command = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "one")
    monkeypatch.setattr(results, "REPOSITORY", tmp_path)
    results.choose_profile("quick", gpu=False)
    first = git("rev-parse", "HEAD")
    git("commit", "-q", "--allow-empty", "-m", "two")
    assert results.git_commit() == first != git("rev-parse", "HEAD")


def test_write_names_the_file_and_says_where(output, capsys):
    path = results.write(record("resnet18", "quick", seed=3))
    assert path == (output / "results" / "resnet18-quick-seed3.json").resolve()
    assert capsys.readouterr().out == "Record: resnet18-quick-seed3.json\n"
    content = path.read_bytes()
    assert content.endswith(b"}\n")
    assert b"\r" not in content
    assert names(output) == ["results/resnet18-quick-seed3.json"]
    assert results.load() == [json.loads(content) | {"file": path.name}]


def test_numpy_values_become_plain_ones():
    made = record()
    made |= {"scalar": np.float32(0.5), "count": np.int64(3), "flag": np.bool_(True), "array": np.arange(3)}
    (loaded,) = saved(made)
    assert (loaded["scalar"], loaded["count"], loaded["flag"], loaded["array"]) == (0.5, 3, True, [0, 1, 2])
    assert loaded["flag"] is True


def test_value_that_is_not_plain_is_refused_and_nothing_is_written(output):
    with pytest.raises(TypeError, match="a record holds plain values only, not object"):
        results.write(record() | {"thing": object()})
    assert names(output) == []


def test_same_hyperparameters_replace_the_record(output):
    results.write(record(accuracy=0.5))
    path = results.write(record(accuracy=0.6))
    assert names(output) == ["results/custom_cnn-full-seed0.json"]
    assert json.loads(path.read_text())["test"]["accuracy"] == 0.6


def test_other_hyperparameters_are_kept_beside_it_and_compared(output, capsys):
    first = results.write(record(accuracy=0.5))
    before = first.read_bytes()
    capsys.readouterr()
    second = results.write(record(accuracy=0.6, EPOCHS=5, WIDTH="64/128"))
    assert capsys.readouterr().out == (
        "Differs from custom_cnn-full-seed0.json in EPOCHS, WIDTH: kept beside it.\n"
        "Test accuracy 60.00%; there it was 50.00%. To choose between values, use the quick profile: it sets "
        "validation images aside.\n"
        f"Record: {second.name}\n"
    )
    assert first.read_bytes() == before
    assert second.name == "custom_cnn-full-seed0-EPOCHS=5-WIDTH=64_128.json"
    assert len(names(output)) == 2
    assert json.loads(second.read_text())["hyperparameters"]["EPOCHS"] == 5


def test_many_differences_still_make_names_of_their_own(output):
    results.write(record())
    many = {f"A_LONG_HYPERPARAMETER_{k}": 0.001 * k for k in range(20)}
    for last in (1, 2, 1):
        results.write(record(**many, Z=last))
    assert len(names(output)) == 3
    assert max(map(len, names(output))) < 200


def test_numpy_hyperparameters_are_compared_by_value(output):
    results.write(record(LEARNING_RATE=0.1))
    results.write(record(LEARNING_RATE=np.float64(0.1)))
    assert len(names(output)) == 1


def test_another_seed_model_or_profile_is_another_record(output):
    saved(record(), record(seed=1), record(profile="quick"), record("resnet18"))
    assert len(names(output)) == 4


def test_altered_data_never_takes_the_place_of_the_official_data(output, capsys):
    saved(record(), record(name="CIFAR-10 (altered)"))
    assert names(output) == ["results/custom_cnn-full-seed0-altered.json", "results/custom_cnn-full-seed0.json"]
    assert [group[0]["data"] for group in results.headline(results.load())] == ["CIFAR-10"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"profile": "full"}, "results/custom_cnn-full-seed0.json"),
        ({"profile": "smoke"}, "runs/smoke/results/custom_cnn-smoke-seed0.json"),
        ({"name": "stand-in"}, "runs/stand-in/results/custom_cnn-full-seed0.json"),
        ({"profile": "smoke", "name": "stand-in"}, "runs/stand-in/results/custom_cnn-smoke-seed0.json"),
    ],
)
def test_only_real_runs_are_recorded_in_the_repository(tmp_path, monkeypatch, options, expected):
    monkeypatch.delenv("CIFAR10_OUTPUT")
    monkeypatch.setattr(data, "REPOSITORY", tmp_path.resolve())
    results.write(record(**options))
    assert names(tmp_path) == [expected]


def test_record_that_cannot_be_written_leaves_the_old_one(output, monkeypatch):
    results.write(record(accuracy=0.5))
    before = (output / "results" / "custom_cnn-full-seed0.json").read_bytes()
    for place in ("write_text", "replace"):  # the disk is full, or the move is refused
        with monkeypatch.context() as patch:
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real_write = Path.write_text

            def fails(path, text="", *, place=place, full=full, real_write=real_write, **_):
                if place == "write_text":
                    real_write(path, text[:100])
                raise full

            patch.setattr(*((Path, "write_text") if place == "write_text" else (os, "replace")), fails)
            message = (
                rf"custom_cnn-full-seed0\.json cannot be written to results/ \({full.strerror}\): make room or set"
            )
            with pytest.raises(InputError, match=message):
                results.write(record(accuracy=0.6))
        assert names(output) == ["results/custom_cnn-full-seed0.json"]
        assert (output / "results" / "custom_cnn-full-seed0.json").read_bytes() == before


def test_folder_that_cannot_be_made_is_one_line(output):
    output.mkdir()
    (output / "results").write_text("a file in the way")
    with pytest.raises(InputError, match=r"cannot be written to results/ \(.+\): make room or set CIFAR10_OUTPUT"):
        results.write(record())


def test_write_text_keeps_the_old_file_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "README.md"
    path.write_text("old")
    seen = []
    real_replace = os.replace

    def replace(source, target):
        seen.append((Path(source).read_text(encoding="utf-8"), Path(target).read_text()))
        real_replace(source, target)

    monkeypatch.setattr(os, "replace", replace)
    results.write_text(path, "new ±\n")
    assert seen == [("new ±\n", "old")]
    assert path.read_bytes() == "new ±\n".encode()
    assert names(tmp_path) == ["README.md"]


def test_load_gives_the_models_in_their_order():
    loaded = saved(
        record("my_own"), record("resnet18"), record("keras_baseline"), record("custom_cnn", seed=1), record()
    )
    assert [(r["model"], r["seed"]) for r in loaded] == [
        ("keras_baseline", 0), ("custom_cnn", 0), ("custom_cnn", 1), ("resnet18", 0), ("my_own", 0),
    ]  # fmt: skip


def test_load_from_a_folder_that_is_not_there_is_empty(tmp_path):
    assert results.load(tmp_path / "nowhere") == []
    assert results.load() == []


@pytest.mark.parametrize("content", ['{"model": "custom_cnn", ', "", "[1, 2]", '{"a": 1}'])
def test_load_names_a_file_that_is_no_record(tmp_path, content):
    (tmp_path / "custom_cnn-full-seed0.json").write_text(content)
    with pytest.raises(InputError, match=r"custom_cnn-full-seed0\.json is not a record \(.*\): delete it, or run"):
        results.load(tmp_path)


# --------------------------------------------------------------------------------------------- tables


def test_headline_prefers_the_full_profile():
    loaded = saved(
        record(profile="quick", accuracy=0.7),
        record(accuracy=0.9),
        record(profile="quick", seed=1, accuracy=0.7),
        record("resnet18", "quick", accuracy=0.8),
    )
    groups = results.headline(loaded)
    assert [[(r["model"], r["profile"]) for r in group] for group in groups] == [
        [("custom_cnn", "full")],
        [("resnet18", "quick")],
    ]


def test_headline_leaves_out_runs_with_changed_hyperparameters():
    loaded = saved(
        record(accuracy=0.90),
        record(accuracy=0.99, EPOCHS=50),  # kept beside seed 0
        record(seed=1, accuracy=0.91),
        record(seed=2, accuracy=0.99, EPOCHS=50),  # the first of its seed, but not of this recipe
    )
    assert len(loaded) == 4
    (group,) = results.headline(loaded)
    assert [r["test"]["accuracy"] for r in group] == [0.90, 0.91]


def test_comparison_table_gives_mean_and_spread_over_seeds():
    loaded = saved(*(record(seed=seed, accuracy=a) for seed, a in enumerate((0.93, 0.94, 0.95))))
    (row,) = results.comparison_table(loaded).to_dict("records")
    images = loaded[0]["test"]["images"]
    low, high = metrics.accuracy_interval(round(0.94 * images), images)
    assert row["test accuracy"] == f"94.00% ± 1.00 (3 seeds; {low:.1%} to {high:.1%})"  # the spread with n - 1
    assert row["model"] == "Custom CNN"
    assert row["profile"] == "full"
    assert row["data"] == "CIFAR-10"
    assert row["parameters"] == "1.23 M"
    assert row["forward"] == "89 MFLOP"
    assert row["training"] == "1.0 min"
    assert row["epochs"] == "2"
    assert row["device"] == "cpu, float32"
    assert row["macro F1"] == f"{loaded[0]['test']['macro_f1']:.3f}"


def test_comparison_table_says_of_a_single_run_that_it_is_one():
    table = results.comparison_table(saved(record(accuracy=0.933)))
    assert table["test accuracy"][0] == "93.30% (one run; 92.8% to 93.8%)"


def test_comparison_table_does_without_what_was_not_measured():
    made = record()
    del made["parameter_count"], made["forward_flops"]
    table = results.comparison_table(saved(made, record("my_own")))
    assert list(table["model"]) == ["Custom CNN", "my_own"]
    assert list(table["parameters"]) == ["", "1.23 M"]


def test_markdown_of_a_table():
    table = pd.DataFrame({"model": ["a", "b"], "count": [1, 2]})
    assert results.markdown(table) == "| model | count |\n| --- | --- |\n| a | 1 |\n| b | 2 |"


SECTIONS = ("comparison", "per-class", "findings", "errors")
README = "# Title\n" + "\n".join(f"<!-- {name}:start -->\nold\n<!-- {name}:end -->\ntext ±" for name in SECTIONS)


def test_readme_sections_come_from_the_records():
    made = [record(accuracy=0.93) | {"findings": ["Flipping helps."]}, record("resnet18", "quick", accuracy=0.80)]
    made[1]["test"]["per_class"]["cat"]["f1"] = 0.123
    sections = results.readme_sections(saved(*made))
    assert tuple(sections) == SECTIONS
    assert "93.00% (one run" in sections["comparison"]
    assert "80.00% (one run" in sections["comparison"]
    assert "**Quick rows are demonstrations**" in sections["comparison"]
    assert "| cat | " in sections["per-class"]
    assert "| 0.123 |" in sections["per-class"]
    assert sections["findings"] == "- Flipping helps."
    first, second = sections["errors"].splitlines()
    assert first.startswith("- **Custom CNN** (full): ")
    assert second.startswith("- **ResNet-18** (quick): ")
    assert metrics.error_sentence(made[0]["test"], data.CLASS_NAMES) in first


def test_quick_profile_is_not_mentioned_where_all_runs_are_full():
    assert "quick" not in results.readme_sections(saved(record()))["comparison"]


def test_benchmark_sections_say_where_the_numbers_are_medians(tmp_path):
    saved_one = {"date": "2026-11-23", "versions": {"torch": "2"}, "table": [{"a": "1"}], "note": "One seed."}
    for name, content in {"older": saved_one, "single": saved_one | {"medians": False}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    assert results.benchmark_sections(tmp_path) == {
        name: f"| a |\n| --- |\n| 1 |\n\nOne seed. `python -m benchmarks.{name}`, 2026-11-23{words}, with torch 2."
        for name, words in {"older": ", medians", "single": ""}.items()
    }


def test_readme_without_records_says_so():
    sections = results.readme_sections([])
    assert tuple(sections) == SECTIONS
    assert set(sections.values()) == {"No records yet: `python run.py` makes them."}


def test_render_readme_replaces_the_sections_and_nothing_else():
    sections = results.readme_sections(saved(record()))
    once = results.render_readme(README, sections)
    assert "old" not in once
    assert once.startswith("# Title\n<!-- comparison:start -->\n| model |")
    assert once.count("text ±") == 4
    for section in sections.values():
        assert section in once
    assert results.render_readme(once, sections) == once
    changed = {name: "new" for name in SECTIONS}
    assert results.render_readme(once, changed) == README.replace("old", "new")


@pytest.mark.parametrize("marker", ["<!-- findings:start -->", "<!-- findings:end -->"])
def test_missing_marker_is_named(marker):
    with pytest.raises(
        InputError, match=r"no markers <!-- findings:start --> and <!-- findings:end -->, in this order"
    ):
        results.render_readme(README.replace(marker, ""), dict.fromkeys(SECTIONS, "new"))


def test_report_rebuilds_the_readme_and_check_only_looks(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("CIFAR10_OUTPUT")
    for module in (results, data):
        monkeypatch.setattr(module, "REPOSITORY", tmp_path.resolve())
    path = tmp_path / "README.md"
    path.write_text(README, encoding="utf-8")
    results.write(record())

    def report(*arguments):
        monkeypatch.setattr(sys, "argv", ["results", *arguments])
        capsys.readouterr()
        return results.main(), capsys.readouterr()

    status, streams = report("--check")
    assert (status, path.read_text(encoding="utf-8")) == (1, README)
    assert "out of date: python run.py report" in streams.out
    assert report()[0] == 0
    assert "Custom CNN" in path.read_text(encoding="utf-8")
    assert report("--check")[0] == 0
    path.write_text("no markers", encoding="utf-8")
    status, streams = report()
    assert status == 1
    assert streams.err.startswith("README.md has no markers")
    assert path.read_text(encoding="utf-8") == "no markers"


def test_table_on_the_command_line_is_that_of_the_output_folder(output):
    results.write(record(accuracy=0.5, name="stand-in"))
    command = [sys.executable, "-m", "helpers.results", "--table"]
    run = subprocess.run(command, cwd=data.REPOSITORY, capture_output=True, text=True, encoding="utf-8")
    assert run.returncode == 0, run.stderr
    assert "50.00% (one run" in run.stdout
    assert "stand-in" in run.stdout


def test_making_tables_does_not_change_the_records():
    loaded = saved(record(), record(seed=1), record("resnet18"))
    before = copy.deepcopy(loaded)
    results.readme_sections(loaded)
    assert loaded == before


# ------------------------------------------------------------------------------ the README of this tree


@pytest.mark.parametrize(
    ("large", "sentence"),
    [
        (
            0.945,
            "The custom CNN matches ResNet-18, which has 6.0 times its parameters: 0.50 points apart, 95 % interval",
        ),
        (
            0.930,
            "The custom CNN is better than ResNet-18 by 1.00 points, 95 % interval ±0.68 "
            "(CNN: one run; ResNet-18: one run); ResNet-18 has 6.0 times",
        ),
        (
            0.955,
            "ResNet-18 is better than the custom CNN by 1.50 points, 95 % interval ±0.62 "
            "(CNN: one run; ResNet-18: one run); ResNet-18 has 6.0 times",
        ),
    ],
)
def test_findings_say_whether_size_pays(large, sentence):
    def run(model, accuracy, parameters, profile="full"):
        made = record(model, profile, accuracy=accuracy) | {
            "parameter_count": parameters,
            "file": f"{model}-{profile}-seed0.json",
        }
        made["test"]["images"] = 10_000
        return made

    runs = [run("custom_cnn", 0.94, 1_000_000), run("resnet18", large, 6_000_000)]
    assert sentence in results.readme_sections(runs)["findings"]
    quick = run("resnet18", large, 6_000_000, "quick")
    assert "6.0 times" not in results.readme_sections([runs[0], quick])["findings"]


def test_readme_agrees_with_the_records():
    readme = data.REPOSITORY / "README.md"
    if not readme.exists():
        pytest.skip("README.md is not written yet")
    text = readme.read_text(encoding="utf-8")
    folder = data.REPOSITORY / "results"
    sections = results.all_sections(folder)
    assert {"download", "loading"} <= sections.keys()
    agrees = results.render_readme(text, sections) == text
    assert agrees, "README.md is out of date with results/: run `python run.py report`"


# ------------------------------------------------------------------------------------- experiments


def test_another_architecture_is_kept_beside(capsys):
    results.write(record() | {"architecture": "aaaa1111"})
    path = results.write(record() | {"architecture": "bbbb2222"})
    assert path.name == "custom_cnn-full-seed0-architecture=bbbb2222.json"
    assert "Differs from custom_cnn-full-seed0.json in architecture: kept beside it." in capsys.readouterr().out
    again = results.write(record() | {"architecture": "aaaa1111"})
    assert again.name == "custom_cnn-full-seed0.json"


def test_a_run_elsewhere_is_compared_with_the_repositorys_record(repository, output, monkeypatch, capsys):
    monkeypatch.setenv("CIFAR10_OUTPUT", str(repository))
    results.write(record(accuracy=0.9))
    monkeypatch.setenv("CIFAR10_OUTPUT", str(output))
    path = results.write(record(accuracy=0.91, LEARNING_RATE=0.2))
    assert path == output.resolve() / "results" / "custom_cnn-full-seed0-LEARNING_RATE=0.2.json"
    assert "Test accuracy 91.00%; there it was 90.00%." in capsys.readouterr().out
    assert [r["file"] for r in results.headline(results.load())[0]] == [path.name], "the table shows it all the same"
    stand_in = results.write(record(name="stand-in", LEARNING_RATE=0.3))
    assert stand_in.name == "custom_cnn-full-seed0.json", "drawn shapes are not compared with CIFAR-10"


def test_experiments_are_compared_by_validation_images_where_both_have_them(output, capsys):
    for accuracy, settings in ((0.75, {}), (0.80, {"EPOCHS": 5})):
        made = record(**settings)
        made["history"][-1]["validation_accuracy"] = accuracy
        results.write(made)
    printed = capsys.readouterr().out
    assert "Validation accuracy 80.00%; there it was 75.00%.\n" in printed
    assert "Test accuracy" not in printed


def test_changed_tells_an_experiment_from_the_recipe(repository, monkeypatch, capsys):
    settings = {"EPOCHS": 2, "LEARNING_RATE": 0.1, "SEED": 0}
    assert not results.changed("custom_cnn", "full", 0, settings), "there is nothing to compare with"
    monkeypatch.setenv("CIFAR10_OUTPUT", str(repository))
    results.write(record() | {"architecture": "aaaa1111"})
    assert not results.changed("custom_cnn", "full", 0, settings)
    assert "experiment" not in capsys.readouterr().out
    assert results.changed("custom_cnn", "full", 0, settings | {"EPOCHS": 3})
    assert "An experiment: EPOCHS differ from the record in results/." in capsys.readouterr().out


def test_figures_of_the_headline_are_left_alone_by_other_seeds_and_profiles(repository, monkeypatch, capsys):
    settings = {"EPOCHS": 2, "LEARNING_RATE": 0.1, "SEED": 0}
    monkeypatch.setenv("CIFAR10_OUTPUT", str(repository))
    results.write(record(profile="quick"))
    assert not results.changed("custom_cnn", "full", 0, settings), "a full run takes the place of a quick one"
    assert results.changed("custom_cnn", "quick", 1, settings | {"SEED": 1})
    results.write(record())
    capsys.readouterr()
    assert not results.changed("custom_cnn", "full", 0, settings)
    assert not results.changed("resnet18", "quick", 0, settings)
    assert not results.changed("custom_cnn", "smoke", 0, settings), "smoke has a folder of its own"
    assert capsys.readouterr().out == ""
    for profile, seed in (("quick", 0), ("full", 1), ("quick", 1)):
        assert results.changed("custom_cnn", profile, seed, settings | {"SEED": seed})
        assert capsys.readouterr().out == "Images/ shows the full profile with seed 0: these figures go below runs/.\n"


def test_readme_says_what_the_quick_profile_gives():
    quick = [record(profile="quick", accuracy=0.8), record(profile="quick", seed=1, accuracy=0.9)]
    section = results.readme_sections(saved(record(accuracy=0.9), *quick))["comparison"]
    assert section.endswith("\n\nTraining with the quick profile, on cpu: Custom CNN 80.0% in 1.0 min, one run each.")
    assert section.count("\n| Custom CNN") == 1, "the table has the full run only"


def test_readme_says_of_several_seeds_whose_findings_it_shows():
    assert "are those of its first" not in results.readme_sections(saved(record()))["comparison"]
    assert "are those of its first" in results.readme_sections(saved(record(seed=1)))["comparison"]


def test_full_runs_that_were_given_up_stay_on_record(repository, monkeypatch):
    assert results.earlier_section(repository / "results" / "earlier") == {}, "no folder, no table"
    monkeypatch.setenv("CIFAR10_OUTPUT", str(repository))
    path = results.write(record(accuracy=0.9336))
    section = results.earlier_section(path.parent)["earlier"]
    assert (
        "| Custom CNN | 93.36% | 2 | 1.0 min | [custom_cnn-full-seed0](results/results/custom_cnn-full-seed0.json) |"
        in section
    )
