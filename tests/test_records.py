"""helpers.files, profiles and records: files that are whole, and one record a run, in the folder where it belongs."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import HISTORY, begin, end

from helpers import cells, data, files, profiles, records
from helpers.files import InputError

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def fail(*_, **__):
    raise FULL


# ---------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, fails):
    files.write_text(tmp_path / "new folder" / "page.md", "old ±\n")
    monkeypatch.setattr(os, fails, fail)
    with pytest.raises(OSError, match=FULL.strerror):
        files.write_text(tmp_path / "new folder" / "page.md", "new")
    assert (tmp_path / "new folder" / "page.md").read_bytes() == "old ±\n".encode(), "UTF-8 and \\n on any system"
    assert names(tmp_path) == ["new folder/page.md"], "nothing is left beside it"


@pytest.mark.parametrize(
    ("variable", "own", "expected"),
    [
        ("", "", "results"), ("", "smoke", "runs/smoke/results"),
        ("../other", "", "../other/results"), ("../other", "smoke", "../other/runs/smoke/results"),
        ("runs/noon", "smoke", "runs/noon/results"), ("runs/noon/2", "", "runs/noon/2/results"),  # run.py gives these
    ],
)  # fmt: skip
def test_where_outputs_go(repository, monkeypatch, variable, own, expected):
    monkeypatch.setenv("CIFAR10_OUTPUT", str(repository / variable))
    assert files.output_folder("results", own=own) == (repository / expected).resolve()


def test_paths_times_and_errors_in_words(repository):
    assert files.relative(repository / "results" / "a.json") == "results/a.json"
    assert files.relative(repository.parent / "private" / "a.json") == "a.json", "no folder of this machine"
    seconds = {0.4: "0 s", 59.6: "1 min 00 s", 200: "3 min 20 s", 3599.7: "1 h 00 min", 7500: "2 h 05 min"}
    assert {s: files.duration(s) for s in seconds} == seconds
    errors = {FULL: FULL.strerror, ValueError("one\ntwo"): "one", EOFError(): "EOFError"}
    assert {error: files.first_line(error) for error in errors} == errors
    assert InputError("EPOCHS is 0")._render_traceback_() == ["InputError: EPOCHS is 0"], "Jupyter shows one line"


# ------------------------------------------------------------------------------------------- profiles

PROFILES = 'expected "auto", "full", "full-validation", "long", "quick" or "smoke".'


@pytest.mark.parametrize(
    ("name", "variable", "gpu", "expected"),
    [
        ("auto", "", True, "full"), ("auto", "", False, "quick"), ("auto", "smoke", True, "smoke"),
        ("auto", "auto", False, "quick"), ("full", "smoke", False, "full"), ("quick", "", True, "quick"),
        ("fast", "", False, f'PROFILE is "fast": {PROFILES}'),
        ("auto", "slow", True, f'CIFAR10_PROFILE is "slow": {PROFILES}'),
    ],
)  # fmt: skip
def test_profile_is_the_named_one_or_that_of_the_machine(monkeypatch, name, variable, gpu, expected):
    monkeypatch.setenv("CIFAR10_PROFILE", variable)
    try:
        assert profiles.choose_profile(name, gpu=gpu) == expected
    except InputError as error:
        assert str(error) == expected


def test_parameters_get_their_value_for_the_profile():
    plain = {"RATE": 0.1, "FLIP": True, "SCHEDULE": "one-cycle", "WIDTHS": [16, 32, 64], "LIMIT": None}
    others = {"DEVICE": "cpu", "DATA_ROOT": None, "epochs": 4, "_HIDDEN": 2, "MODEL": object()}
    namespace = {"PROFILE": "auto", "EPOCHS": {"full": 18, "quick": 4}} | plain | others
    assert profiles.settle(namespace, gpu=False) == {"EPOCHS": 4} | plain
    assert namespace == {"PROFILE": "quick", "EPOCHS": 4} | plain | others
    with pytest.raises(InputError, match=r"^EPOCHS is \{'full': 18\}, without a value for PROFILE \"quick\": give it"):
        profiles.settle({"EPOCHS": {"full": 18}}, gpu=False)
    with pytest.raises(
        InputError, match=r"^PROFILE is full, and the values are those of quick: run again from the fir"
    ):
        profiles.settle(namespace | {"PROFILE": "full"}, gpu=False)
    validated = {"EPOCHS": {"full": 9, "quick": 2}, "IMAGES": {"full": 50, "full-validation": 45, "quick": 45}}
    assert profiles.settle(validated | {"PROFILE": "full-validation"}, gpu=False) == {"EPOCHS": 9, "IMAGES": 45}
    for profile, values in (("long", validated), ("full-validation", {"EPOCHS": {"full": 9}})):
        with pytest.raises(InputError, match=f'PROFILE is "{profile}", which this notebook does not have: set "full"'):
            profiles.settle(values | {"PROFILE": profile}, gpu=False)
    validated["EPOCHS"]["long"] = 30
    assert profiles.settle(validated | {"PROFILE": "long"}, gpu=False) == {"EPOCHS": 30, "IMAGES": 50}
    assert profiles.table({"SIDES": [16, 16, 24], "WIDTHS": [64, 176], "A": "b"}) == {
        "SIDES": "2×16, 24", "WIDTHS": "64, 176", "A": "b",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("WARMUP", 2, "2: expected a number from 0 to below 1"), ("DROPOUT", math.nan, "nan: expected a number"),
        ("CUTOUT", 33, "33: expected a whole number from 0 to 32"), ("BATCH_SIZE", True, "True: expected a whole"),
        ("LEARNING_RATE", math.inf, "inf: expected a number above 0"), ("SHORTCUT", 1, "1: expected True or False"),
        ("RESOLUTION", [], "[]: expected a whole number from 1 to 32, or a"), ("RESOLUTION", [16, 64], "[16, 64]: "),
        ("EPOCHS", {"full": 3, "quick": "x"}, '"x": expected a whole'), ("DATA_ROOT", 3, "3: expected None, a"),
        ("WIDTHS", "abc", '"abc": expected a list of three'), ("SEED", -1, "-1: expected a whole number from 0 to "),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_meant_is_named(name, value, expected):
    with pytest.raises(InputError) as error:
        profiles.settle({name: value}, gpu=False)
    assert re.match(rf"{name}(\[.*\])? is {re.escape(expected)}", str(error.value))
    assert profiles.settle({"CUTOUT": np.int64(8), "RESOLUTION": 16}, gpu=False) == {"CUTOUT": 8, "RESOLUTION": 16}


def test_another_profile_in_a_running_kernel_is_taken(monkeypatch, capsys):
    given = {"EPOCHS": {"full": 18, "quick": 2}, "IMAGES": 5}
    monkeypatch.setattr(profiles, "_settled", {})
    notebook = {"PROFILE": "full"} | given
    assert profiles.settle(notebook, gpu=False)["EPOCHS"] == 18 and notebook["EPOCHS"] == 18
    notebook.update({"PROFILE": "quick"} | given)  # the first cell, run again
    profiles._after_cell()
    assert notebook["EPOCHS"] == 2 and "run again from the cell below “Set-up” on" in capsys.readouterr().out
    assert profiles.settle(notebook, gpu=False)["EPOCHS"] == 2
    notebook["PROFILE"] = "full"  # typed elsewhere: the values are still those of quick
    with pytest.raises(InputError, match="the values are those of quick: run again from the first cell on"):
        profiles.settle(notebook, gpu=False)


def test_announcement_says_how_long_it_takes_and_how_to_get_the_full_profile(capsys):
    given = {"IMAGES": {"full": 50_000, "quick": 10_000, "smoke": 100}, "EPOCHS": {"full": 18, "quick": 2, "smoke": 1}}
    for values in ({"PROFILE": "full"}, {"PROFILE": "quick"}, {"PROFILE": "smoke"}, {"PROFILE": "quick", "EPOCHS": 3}):
        profiles.settle(given | values, gpu=False)
        profiles.announce("cpu", lambda images, epochs: 0.01 * images * epochs, "IMAGES", "EPOCHS")
    full, quick, hint, smoke, again, fixed = capsys.readouterr().out.splitlines()
    assert full == 'Profile "full" on cpu: about 2.5 hours for the whole notebook here.'
    assert quick == 'Profile "quick" on cpu: about 3 minutes for the whole notebook here.'
    assert smoke == 'Profile "smoke" on cpu: about 10 seconds for the whole notebook here.'
    assert hint == again == 'The full profile would take about 2.5 hours: set PROFILE = "full" above.'
    assert fixed == 'Profile "quick" on cpu: about 5 minutes for the whole notebook here.', "EPOCHS is the person's"


# ---------------------------------------------------------------------------------- what a record holds


def test_record_holds_what_the_readme_promises(repository, capsys):
    run = begin("resnet18", "quick", seed=3)
    values = {"scalar": np.float32(0.5), "flag": np.bool_(True), "array": np.arange(3), "resumed": False}
    path = end(run, 0.76, **values, not_measured=None, weights=b"123456")
    assert path == repository / "results" / "resnet18-quick-seed3.json"
    weights = repository / "weights" / "resnet18-quick-seed3.safetensors"
    assert capsys.readouterr().out.splitlines() == [
        f"Record: {path.relative_to(repository).as_posix()}", f"Weights: weights/{weights.name}, 0.0 MB"
    ]  # fmt: skip
    assert (records.weights_path(path), weights.read_bytes()) == (weights, b"123456")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record.keys() >= {*run, "parameter_count", "forward_flops", "device", "precision", "test"} - {"git_commit"}
    assert (record["train_seconds"], record["history"]) == (60, HISTORY.to_dict("records"))
    assert (record["data"], record["data_fingerprint"]) == ("CIFAR-10", data.OFFICIAL)
    assert {key: record[key] for key in values} == values | {"array": [0, 1, 2]}
    assert record["weights_sha256"] == hashlib.sha256(b"123456").hexdigest()
    assert record["versions"]["numpy"] == np.__version__
    assert not {"not_measured", "git_commit"} & record.keys(), "what could not be measured is absent"
    assert record.get("peak_memory_bytes", 1e9) > 20e6
    assert records.load(path.parent) == [record | {"file": path.name}]


def test_commit_is_the_one_that_the_run_began_with(repository):
    def git(*words):
        command = ["git", "-C", repository, "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    files.write_text(repository / "helpers" / "a.py", "1")
    for words in ("init -q", "add .", "commit -q -m one"):
        git(*words.split())
    run, first = begin(), git("rev-parse", "HEAD")
    files.write_text(repository / "helpers" / "a.py", "2")
    assert begin()["git_commit"] == f"{first}+changes"
    git("commit", "-q", "-a", "-m", "two")
    assert json.loads(end(run).read_text())["git_commit"] == first != git("rev-parse", "HEAD")


@pytest.mark.parametrize("fails", ["fsync", "replace", "folder"])
def test_record_is_never_written_half(repository, monkeypatch, fails):
    if fails == "folder":
        files.write_text(repository / "results", "a file in the way")
    else:
        end(begin(), 0.5)
        monkeypatch.setattr(os, fails, fail)
    before = {name: (repository / name).read_bytes() for name in names(repository)}
    with pytest.raises(InputError, match=r"^the record custom_cnn-full-seed0.json cannot be written \(.+\): make room"):
        end(begin(), 0.6)
    with pytest.raises(TypeError, match="a record holds plain values only, not object"):
        end(begin(), 0.6, thing=object())
    assert {name: (repository / name).read_bytes() for name in names(repository)} == before


def test_records_load_in_the_order_of_the_models(repository):
    assert records.load(repository / "results") == [], "a folder that is not there"
    for model, seed in (("my_own", 0), ("resnet18", 0), ("keras_baseline", 0), ("custom_cnn", 1), ("custom_cnn", 0)):
        path = end(begin(model, seed=seed))
    loaded = [(r["model"], r["seed"]) for r in records.load(path.parent)]
    assert loaded == [("keras_baseline", 0), ("custom_cnn", 0), ("custom_cnn", 1), ("resnet18", 0), ("my_own", 0)]
    mine = end(begin(EPOCHS=5)).parent
    found = [(r["model"], r["hyperparameters"]["EPOCHS"]) for r in records.load(mine, path.parent)]
    assert found == [("keras_baseline", 2), ("custom_cnn", 5), ("resnet18", 2), ("my_own", 2)], "its own come first"


@pytest.mark.parametrize("content", ['{"model": "custom_cnn", ', "", "[1, 2]", '{"a": 1}'])
def test_file_that_is_no_record_is_named_and_stops_no_run(repository, content):
    files.write_text(repository / "results" / "custom_cnn-full-seed0.json", content)
    with pytest.raises(InputError, match=r"^results/.+-seed0\.json is not a record \(.*\): delete it, or run its note"):
        records.load(repository / "results")
    assert end(begin(EPOCHS=5)).parent == repository / "results", "there is nothing to compare with"


# ------------------------------------------------------------------------ like its record, or in a folder of its own


@pytest.mark.parametrize(
    ("changed", "own", "figures"),
    [
        ({}, "", ""), ({"LEARNING_RATE": np.float64(0.1)}, "", ""),  # the recipe takes the place of its record
        ({"model": "resnet18", "profile": "quick"}, "", ""), ({"model": "theirs"}, "theirs-full", ""),
        ({"seed": 1}, "", "custom_cnn-full-seed1"), ({"profile": "quick"}, "", "custom_cnn-quick-seed0"),
        ({"seed": 1, "EPOCHS": 5}, "custom_cnn-full-EPOCHS=5", ""),
        ({"EPOCHS": 5, "WIDTHS": [64, "1/2"]}, "custom_cnn-full-EPOCHS=5-WIDTHS=_64_1_2_", ""),
        ({"architecture": "bbbb2222"}, "custom_cnn-full-architecture=bbbb2222", ""),
        ({"name": "CIFAR-10 (altered)"}, "custom_cnn-full-data=CIFAR-10_altered_", ""),
        ({"name": "own images", "model": "resnet18"}, "resnet18-full-data=own_images", ""),
        ({"profile": "smoke"}, "smoke", ""), ({"name": "stand-in", "EPOCHS": 5}, "stand-in", ""),
        ({"name": "stand-in", "profile": "smoke"}, "stand-in", ""),
    ],
)  # fmt: skip
def test_run_unlike_its_record_has_a_folder_of_its_own(repository, capsys, changed, own, figures):
    first = end(begin(), 0.9)
    before = first.read_bytes()
    capsys.readouterr()
    run = begin(**changed)
    told = re.findall(r"go to runs/(.+)/\.", capsys.readouterr().out)
    expected = own in ("smoke", "stand-in") or "architecture" in changed  # which is not known yet
    assert told == ([] if expected or not (own or figures) else [own or figures]), "said before the training"
    path = end(run, 0.91)
    base = repository / "runs" / own if own else repository
    assert path == base / "results" / f"{run['model']}-{run['profile']}-seed{run['seed']}.json"
    assert capsys.readouterr().out.endswith(f"Record: {path.relative_to(repository).as_posix()}\n")
    assert records.weights_path(path).parent == base / "weights"
    assert records.own_folder(run, figures=True) == (own or figures)
    assert (first.read_bytes() != before) == (path == first), "only the recipe may replace a record"


def test_the_run_that_judged_a_recipe_is_found_beside_its_full_run(repository):
    kept = {"TRAIN_IMAGES": 50_000, "VALIDATION_IMAGES": 0}
    path = end(begin(profile="full-validation", TRAIN_IMAGES=45_000, VALIDATION_IMAGES=5_000), 0.9)
    assert path == repository / "results" / "custom_cnn-full-validation-seed0.json"
    pd.testing.assert_frame_equal(records.choice(begin(seed=3, **kept)), HISTORY[:2])
    others = ({"LEARNING_RATE": 0.2}, {"architecture": "bbbb2222"}, {"profile": "quick"}, {"model": "resnet18"},
              {"name": "stand-in"}, {"profile": "full-validation"})  # fmt: skip
    assert all(records.choice(begin(**kept | other)) is None for other in others)


def test_names_of_folders_stay_short_and_apart(repository):
    end(begin())
    many = {f"A_LONG_HYPERPARAMETER_{k}": 0.001 * k for k in range(20)}
    one, two, again = (records.own_folder(begin(**many, Z=last)) for last in (1, 2, 1))
    assert one == again != two and len(one) <= 100


def test_run_of_run_py_stays_in_its_folder(repository, monkeypatch, capsys):
    end(begin(), 0.9)
    monkeypatch.setenv("CIFAR10_OUTPUT", str(repository / "runs" / "noon"))
    capsys.readouterr()
    end(begin(EPOCHS=2, LEARNING_RATE=0.2))
    assert capsys.readouterr().out.splitlines() == [
        "Unlike its record in results/: LEARNING_RATE.", "Outputs go to runs/noon/.",
        "Record: runs/noon/results/custom_cnn-full-seed0.json",
    ]  # fmt: skip


def test_a_record_gives_way_to_a_whole_run_only(repository):
    path = end(begin(), 0.9)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"^1 of 2 epochs are trained: run the training cell to its end first\.$"):
        end(begin(), 0.1, HISTORY[:1])
    with pytest.raises(InputError, match=r"^the record custom_cnn-full-seed0\.json was not written: a number in it is"):
        end(begin(), 0.1, train_loss=math.nan)
    assert path.read_bytes() == before


def test_what_was_made_for_other_values_or_another_network_refuses_to_be_used(repository, capsys):
    end(begin())
    network = {"architecture": "bbbb2222", "layers": ["Linear"]}
    cells.namespace = notebook = {"train": [1], "model": [2], "optimizer": [3], "history": [4], "mine": [5]}
    run = begin()
    notebook |= {"train": [1], "model": [2], "optimizer": [3], "history": [4]}
    begin()  # the same once more
    assert notebook["train"] == [1]
    records.built(run, **network)
    assert (
        "Unlike its record in results/: architecture.\nOutputs go to runs/custom_cnn-full-" in capsys.readouterr().out
    )
    assert (run["layers"], begin(architecture="bbbb2222")["layers"]) == (["Linear"], ["Linear"])
    for name, use in (
        ("optimizer", "optimizer.state"),
        ("history", "history['loss']"),
        ("history", "len(history) * 2"),
    ):
        with pytest.raises(
            InputError,
            match=rf"^{name} is not there yet, or of an earlier run: run again from the cell that makes it\.",
        ):
            eval(use, dict(notebook))
    assert (notebook["train"], notebook["model"], notebook["mine"]) == ([1], [2], [5])
    begin(LEARNING_RATE=0.3)
    assert [name for name in notebook if not isinstance(notebook[name], cells.Older)] == ["mine"]
