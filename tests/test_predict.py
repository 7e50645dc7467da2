"""A person's own pictures: every kind of file and array, and one answer in Python, in a shell and from torch.hub."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.page import bomb, scans
from helpers import data, predict, pretrained, training, weights
from helpers.batches import Batches
from helpers.files import REPOSITORY, InputError

PHOTOGRAPHS = load_sample_images().images  # a temple, and a flower
MODELS = [name for name in predict.BEST_FIRST if predict.weights_path(name).exists()]
RED = np.zeros((40, 60, 3), np.uint8)
RED[:, :30, 0] = 255  # red on the left, black on the right


def saved(folder: Path, name: str, picture: Image.Image | np.ndarray, **options) -> Path:
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(folder / name, **options)
    return folder / name


# ----------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "I;16", "I", "F"])
def test_picture_of_every_mode_is_what_it_shows(mode, tmp_path):
    grey = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    picture = Image.fromarray(grey)
    if mode == "F":
        picture = Image.fromarray((grey / 255).astype(np.float32))
    elif mode[0] == "I":
        picture = Image.fromarray((grey.astype(np.uint16) * 257).astype({"I": np.int32}.get(mode, np.uint16)))
    else:
        picture = (picture if mode in "LAP1" else picture.convert("RGB")).convert(mode)
    kind = {"CMYK": "jpg", "F": "tiff", "I": "tiff"}.get(mode, "png")
    seen = predict.pixels(saved(tmp_path, f"a.{kind}", picture))
    assert (seen.shape, seen.dtype) == ((32, 32, 3), np.uint8)
    found, wanted = seen.reshape(32, 4, 8, 3).mean((0, 2)), grey.reshape(64, 4, 16).mean((0, 2))
    assert np.abs(found - wanted[:, None]).max() < (8 if mode == "1" else 2)  # "1" is dithered


def test_array_image_and_file_give_the_same_and_area_means_are_taken(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    expected = picture.reshape(32, 4, 32, 4, 3).mean((1, 3))
    forms = [picture, picture / 255, picture.astype(np.uint16) * 257, Image.fromarray(picture),
             saved(tmp_path, "a.png", picture), str(saved(tmp_path, "b.tiff", picture))]  # fmt: skip
    for form in forms:
        assert np.abs(predict.pixels(form) - expected).max() <= 1


@pytest.mark.parametrize("turn", range(1, 9))
def test_picture_stands_upright(turn, tmp_path):
    """The eight orientations of EXIF: the corner that is red comes back to where it was."""
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:32, :32, 0] = 255
    stored = {1: picture, 2: picture[:, ::-1], 3: picture[::-1, ::-1], 4: picture[::-1],
              5: picture.swapaxes(0, 1), 6: np.rot90(picture, 1), 7: np.rot90(picture, 2).swapaxes(0, 1),
              8: np.rot90(picture, -1)}[turn]  # fmt: skip
    exif = Image.Exif()
    exif[274] = turn
    path = saved(tmp_path, "a.png", np.ascontiguousarray(stored), exif=exif)
    assert (predict.pixels(path)[:16, :16, 0] == 255).all() and predict.pixels(path).sum() == 255 * 256


def test_transparency_is_white_and_the_first_frame_counts(tmp_path):
    clear = Image.new("RGBA", (50, 50), (255, 0, 0, 0))
    assert (predict.pixels(saved(tmp_path, "a.png", clear)) == 255).all()
    first, second = Image.new("RGB", (40, 40), "blue"), Image.new("RGB", (40, 40), "red")
    path = saved(tmp_path, "a.gif", first, save_all=True, append_images=[second])
    assert predict.pixels(path)[16, 16].tolist() == [0, 0, 255]


def test_crop_takes_the_middle_and_pad_everything():
    middle, everything = predict.pixels(RED), predict.pixels(RED, "pad")
    assert middle[:, :16, 0].min() == 255 and middle[:, 16:].max() == 0
    assert everything[0, 0].tolist() == everything[-1, -1].tolist() == [round(255 * mean) for mean in data.MEAN]
    assert everything[16, 0].tolist() == [255, 0, 0] and everything[16, -1].tolist() == [0, 0, 0]
    for odd in (np.full((1, 1, 3), 7, np.uint8), np.full((1, 10_000, 3), 7, np.uint8)):
        assert (predict.pixels(odd) == 7).all() and (predict.pixels(odd, "pad")[15] == 7).all()


def test_what_is_no_picture_is_said_in_a_line(tmp_path):
    good = saved(tmp_path, "good.jpg", PHOTOGRAPHS[0]).read_bytes()
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "drawing.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    (tmp_path / "cut.jpg").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "scans.jpg").write_bytes(scans(200))
    bomb(tmp_path / "large.png", 8_000)
    (tmp_path / "large.bmp").write_bytes(bytes(predict.LARGEST_FILE + 1))
    bomb(tmp_path / "bomb.png", 50_000)
    for name, said in {
        "text.jpg": "text.jpg is no picture: expected one of JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM.",
        "drawing.svg": "drawing.svg is no picture: expected",
        "cut.jpg": "cut.jpg cannot be read: image file is truncated",
        "empty.png": "empty.png is no picture",
        "missing.png": "missing.png cannot be read: No such file or directory.",
        "large.bmp": "large.bmp has 20,000,001 bytes: expected at most 20,000,000.",
        "phone.heic": "phone.heic is HEIC, which Pillow does not read: expected one of JPEG",
        "scans.jpg": "scans.jpg takes too long to decode: more than 100 scans",
        "large.png": "large.png has 8,000×8,000 pixels: expected 1 to 50 million.",
        "bomb.png": "bomb.png has too many pixels: expected 1 to 50,000,000.",
    }.items():
        with pytest.raises(InputError) as error:
            predict.pixels(tmp_path / name)
        assert str(error.value).startswith(said) and str(tmp_path) not in str(error.value)
    for wrong, said in {
        "shape (3, 32, 32)": np.zeros((3, 32, 32)), "shape (0, 0, 3)": np.zeros((0, 0, 3)),
        "floats from 0 to 255": np.array([[0.0, 255]]), "floats from nan": np.full((2, 2), np.nan),
        "array of int64": np.zeros((4, 4), np.int64),
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=wrong.replace("(", r"\(").replace(")", r"\)")):
            predict.pixels(said)
    with pytest.raises(InputError, match='fit is "stretch": expected "crop" or "pad"'):
        predict.pixels(RED, "stretch")


# ------------------------------------------------------------------------------------------------ answers


@pytest.mark.parametrize("name", MODELS)
def test_answer_is_a_table_of_probabilities_with_a_flag(name):
    classifier = predict.load(name)
    table = classifier([*PHOTOGRAPHS, RED])
    assert list(table) == [*data.CLASS_NAMES, predict.UNLIKE] and len(table) == 3
    np.testing.assert_allclose(table[list(data.CLASS_NAMES)].sum(axis=1), 1)
    alone = classifier(PHOTOGRAPHS[1])
    pd.testing.assert_frame_equal(alone, table[1:2].reset_index(drop=True), atol=1e-5)
    assert classifier([]).shape == (0, 11) and len(classifier(np.stack([RED, RED]))) == 2
    colours = [np.zeros((9, 9, 3), np.uint8), *np.random.default_rng(0).integers(0, 256, (20, 1, 1, 3), np.uint8)]
    told = {"length of the features": 1.0, "highest probability": 0.4, "likeness to a class": 0.9}  # docs/predict.md
    assert classifier(colours)[predict.UNLIKE].mean() >= told[classifier.score], "of one colour each"


@pytest.mark.parametrize("name", [name for name in MODELS if name != "keras_baseline"])
def test_hub_gives_a_network_in_evaluation_mode_with_everything_inside(name):
    module = torch.hub.load(str(REPOSITORY), name.replace("-", "_"), source="local")
    assert not module.training and module.class_names == data.CLASS_NAMES
    pictures = torch.from_numpy(np.stack([predict.pixels(p) for p in PHOTOGRAPHS])).permute(0, 3, 1, 2)
    expected = predict.load(name)(PHOTOGRAPHS)[list(data.CLASS_NAMES)]
    for form in (pictures, pictures / 255):
        np.testing.assert_allclose(module(form).softmax(1).detach(), expected, atol=1e-5)
    for side in (427, 100, 40, 20, 9):  # photographs, and pictures smaller than what the network takes
        other = np.asarray(Image.fromarray(PHOTOGRAPHS[0]).resize((side + 5, side)))
        answer = module(torch.from_numpy(other.copy()).permute(2, 0, 1)[None]).softmax(1).detach()[0]
        expected = predict.load(name)(other)[list(data.CLASS_NAMES)].iloc[0]
        np.testing.assert_allclose(answer, expected, atol=0.03)  # predict rounds to whole numbers first
    for wrong in (255 * torch.rand(1, 3, 32, 32), torch.randn(1, 3, 32, 32)):
        with pytest.raises(InputError, match="expected 0 to 1, not normalised, or uint8"):
            module(wrong)
    with torch.enable_grad():
        module(pictures).sum().backward()  # it can be trained on


def test_predict_answers_as_the_notebook_does(small):
    """The same logits as those of training.predict, but for the temperature."""
    classifier = predict.load("custom_cnn")
    network = pretrained.NETWORKS["custom_cnn"]()
    weights.load(network, predict.weights_path("custom_cnn"))
    images = small.test_images[:64]
    expected, _ = training.predict(network, Batches(images, np.zeros(64), batch_size=64), torch.float32)
    logits, lengths = classifier.answer(images)
    np.testing.assert_allclose(logits * classifier.module.temperature, expected, atol=1e-3)
    assert lengths.shape == (64,) and (lengths > 0).all()


def test_weights_that_are_not_those_of_the_pages_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "WEIGHTS", tmp_path)
    with pytest.raises(InputError, match="there are no trained weights"):
        predict.load()
    every = "resnet18-augmix, custom_cnn-augmix, resnet18, custom_cnn, keras_baseline"
    with pytest.raises(InputError, match=f'no model "vgg": expected {every}'):
        predict.load("vgg")
    with pytest.raises(InputError, match=r"custom_cnn-full-seed0.* is not here: git checkout weights"):
        predict.load("custom_cnn")
    source = REPOSITORY / "weights" / "custom_cnn-full-seed0.safetensors"
    path = Path(shutil.copy(source, tmp_path))
    with pytest.raises(InputError, match="json is missing or damaged"):
        predict.load("custom_cnn")
    shutil.copy(source.with_suffix(".json"), tmp_path)
    assert predict.load().name == "custom_cnn"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"has the SHA-256 .*, expected"):
        predict.load()
    own = predict.load("custom_cnn", source)
    assert (own.temperature, own.least) == (1, None), "weights of one's own have no calibration"


# ------------------------------------------------------------------------------------------------ a shell


def test_shell_answers_for_files_and_folders_and_goes_on_after_a_bad_one(tmp_path):
    folder = tmp_path / "my photos"
    folder.mkdir()
    for name, picture in zip(("a.png", "c.png"), PHOTOGRAPHS):
        saved(folder, name, picture)
    (folder / "b.png").write_text("no")
    (folder / "notes.txt").write_text("of no interest")
    command = [sys.executable, str(REPOSITORY / "run.py"), "predict", "--no-venv", "--model", "custom_cnn", "my photos"]
    result = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=300)
    first, bad, last = map(json.loads, result.stdout.splitlines())
    assert result.returncode == 1 and result.stderr == "" and bad["error"].startswith(f"{bad['picture']} is no picture")
    expected = predict.load("custom_cnn")(PHOTOGRAPHS)
    for line, (_, row) in zip((first, last), expected.iterrows()):
        assert len(line["classes"]) == 3 and line["unlike"] == bool(row[predict.UNLIKE])
        assert all(abs(row[label] - share) < 1e-3 for label, share in line["classes"].items())
    (folder / "b.png").unlink()
    assert [path.name for path in predict.files([str(folder), f"{folder}/*.png"])] == ["a.png", "c.png"] * 2
    with pytest.raises(InputError, match="holds no pictures: expected files that end in"):
        predict.files([str(tmp_path)])
    result = subprocess.run([*command, "--top", "1"], cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=300)
    assert result.returncode == 0 and result.stderr == "" and result.stdout.startswith("Custom CNN:")
    assert len(result.stdout.splitlines()) == 3 and "a.png: " in result.stdout
