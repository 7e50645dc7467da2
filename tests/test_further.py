"""What notebooks 4 to 6 stand on: corruptions, people's answers, where a network looks, work that is remembered."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import data, predict
from helpers.files import InputError

pytest.importorskip("skimage", reason="needs pip install -r further/requirements.txt")
pytest.importorskip("captum", reason="needs pip install -r further/requirements.txt")
from further import attention, corruptions, people, study

NAMES = [*corruptions.CORRUPTIONS]


@pytest.mark.parametrize("name", NAMES)
def test_corruption_repeats_leaves_the_original_alone_and_grows_with_severity(name, small):
    images = small.test_images[:40]
    before = images.copy()
    spoiled = [corruptions.corrupt(images, name, severity) for severity in (1, 3, 5)]
    for one in spoiled:
        assert (one.shape, one.dtype) == (images.shape, np.uint8)
    assert (images == before).all()
    np.testing.assert_array_equal(corruptions.corrupt(images, name, 3), spoiled[1])
    drawn = name not in ("defocus blur", "zoom blur", "brightness", "contrast", "JPEG", "pixelate")
    assert (corruptions.corrupt(images, name, 3, seed=1) != spoiled[1]).any() == drawn
    far = [np.abs(one.astype(float) - images).mean() for one in spoiled]
    assert 0.2 < far[0] < far[2] or name in ("elastic", "glass blur")  # of which the published severities are uneven
    assert min(far) > 0.2 and max(far) < 100


def test_corruption_that_there_is_not_is_refused(small):
    for name, severity in (("rain", 1), ("fog", 0), ("fog", 6)):
        with pytest.raises(InputError, match=f'"{name}" in severity {severity}: expected 1 to 5 of Gaussian noise'):
            corruptions.corrupt(small.test_images[:2], name, severity)


def test_fog_lies_in_clouds_and_zoom_blur_has_the_published_steps():
    clouds = corruptions._plasma(50, 1.75, np.random.default_rng(0))
    assert np.abs(np.diff(clouds, axis=1)).mean() == pytest.approx(0.029, abs=0.004), "published: 0.0289"
    assert [len(np.arange(1, most, 0.01)) for most in corruptions.CORRUPTIONS["zoom blur"][1]] == [7, 12, 16, 21, 26]


def test_official_files_hold_one_severity_after_the_other(tmp_path, monkeypatch):
    assert corruptions.official("fog", 1, np.arange(3)) is None
    monkeypatch.setenv("CIFAR10C_ROOT", str(tmp_path))
    with pytest.raises(InputError, match=r"has no jpeg_compression\.npy"):
        corruptions.official("JPEG", 1, np.arange(3))
    number = np.repeat(np.arange(5, dtype=np.uint8), 10_000)
    np.save(tmp_path / "gaussian_noise.npy", np.broadcast_to(number[:, None, None, None], (50_000, 1, 1, 3)))
    for severity in (1, 5):
        found = corruptions.official("Gaussian noise", severity, np.array([0, 9_999]))
        assert (found == severity - 1).all() and len(found) == 2


def test_people_are_left_out_with_a_reason(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CIFAR10H_ROOT", str(tmp_path))
    assert people.answers() is None
    assert "No such file" in capsys.readouterr().out
    np.save(tmp_path / people.NAME, np.zeros((10_000, 10)))
    assert people.answers() is None
    assert "expected 436ae9862" in capsys.readouterr().out
    monkeypatch.delenv("CIFAR10H_ROOT")
    assert people.answers(download=False) is None


def test_network_looked_somewhere_and_shows_it():
    module = predict.load("custom_cnn").module
    picture = data.stand_in(10, 10).test_images[0]
    found = attention.attention(module, picture, 3)
    assert (
        found.shape == (32, 32) and found.min() >= 0 and (found.max() == pytest.approx(1, abs=0.01) or not found.any())
    )
    assert attention.lit(module, picture, 3, 64).shape == (64, 64, 3)


def test_cat_is_a_cat_and_another_thing_gets_an_answer_and_a_flag():
    classifier = predict.load()
    photographs = pytest.importorskip("skimage.data")
    names = ("chelsea", "coffee", "rocket", "astronaut")
    table = classifier([getattr(photographs, name)() for name in names])
    assert table[list(data.CLASS_NAMES)].idxmax(axis=1)[0] == "cat" and not table[predict.UNLIKE][0]
    assert table[predict.UNLIKE].notna().all()


def test_work_is_done_once_until_it_is_forgotten(monkeypatch, tmp_path):
    monkeypatch.setattr(study, "REPOSITORY", tmp_path)
    done = []

    def work():
        done.append(1)
        return {"accuracy": 0.5}

    def interrupted():
        raise KeyboardInterrupt

    for _ in range(2):  # as after a restart
        once = study.Remembered("trust", {"SEED": 0})
        assert once("tail", {"seed": 1}, work, interrupted) == {"seed": 1, "accuracy": 0.5}
    assert len(done) == 1 and once.knows("tail", {"seed": 1}, interrupted)
    assert not once.knows("tail", {"seed": 2}, interrupted) and not once.knows("tail", {"seed": 1}, work), "other code"
    assert not study.Remembered("trust", {"SEED": 1}).knows("tail", {"seed": 1}, interrupted), "other values"
    with pytest.raises(study.Paused, match="saved: 1 piece of this work"):
        once("tail", {"seed": 3}, interrupted)
    once.forget()
    assert not study.Remembered("trust", {"SEED": 0}).knows("tail", {"seed": 1})
    assert not list((tmp_path / "runs").rglob("*.json"))
