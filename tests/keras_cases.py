"""helpers.keras_runs: checkpoints, weights, precision and counts of notebook 1's networks (run by test_keras.py)."""

import importlib
import json
import os
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from helpers.files import REPOSITORY, InputError, Stopped

STANDARD_ERROR = os.fstat(2)
runs = importlib.import_module("helpers.keras_runs")  # the only import of Keras: with standard error turned away
STANDARD_ERROR_AFTERWARDS = os.fstat(2)
keras, layers = runs.keras, runs.keras.layers
IMAGES, LABELS = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype("float32"), np.arange(40) % 10


def network(width: int = 4, activation: str = "relu", seed: int = 0):
    keras.utils.set_random_seed(seed)
    stack = [layers.Conv2D(width, 3, activation=activation), layers.BatchNormalization(), layers.Dropout(0, seed=seed)]
    return keras.Sequential([keras.Input((8, 8, 3)), *stack, layers.Flatten(), layers.Dense(10, activation="softmax")])


def train(path, epochs: int = 4, seed: int = 0):
    """As notebook 1 does, but for the order of the images: the history, and whether it was resumed."""
    model, checkpoint = network(seed=seed), runs.Checkpoint(path)
    optimizer = keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 16), momentum=0.9)
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        IMAGES, LABELS, batch_size=10, epochs=epochs, initial_epoch=checkpoint.load(model, epochs), verbose=0,
        shuffle=False, validation_data=(IMAGES, LABELS), callbacks=[runs.Progress("test"), checkpoint],
    )  # fmt: skip
    return runs.history_table(checkpoint.rows), checkpoint.resumed


def test_interrupted_run_carries_on_in_a_fresh_model_with_its_history_whole(tmp_path):
    path = tmp_path / "folder" / "half.weights.h5"
    train(path, epochs=2)
    whole, history = train(tmp_path / "whole.weights.h5"), train(path, seed=1)
    assert (whole[1], history[1]) == (False, True)
    assert list(history[0]["epoch"]) == [1, 2, 3, 4]
    pd.testing.assert_frame_equal(*(table.drop(columns="seconds") for table, _ in (history, whole)), rtol=1e-3)
    assert list(path.parent.iterdir()) == [path]
    content = path.read_bytes()
    for kept in (0, len(content) // 2, len(content) - 99):
        path.write_bytes(content[:kept])
        with pytest.raises(InputError, match=r"(?s)^half\.weights\.h5 cannot be read \(.*Delete it to start afresh\.$"):
            train(path)


def test_folder_that_cannot_be_made_costs_the_checkpoint_and_not_the_run(tmp_path, capsys):
    (tmp_path / "file").touch()
    train(tmp_path / "file" / "run.weights.h5", epochs=1)
    assert "Epoch 1 was not saved (" in capsys.readouterr().out


def test_weights_come_back_as_float16_rounds_them(tmp_path):
    """With BatchNorm's statistics, and every weight of a model within the model."""
    model, twin, other = (keras.Sequential([network(width, seed=seed)]) for width, seed in ((4, 0), (4, 1), (5, 1)))
    model(IMAGES, training=True)
    path = tmp_path / "one.safetensors"
    path.write_bytes(runs.packed_weights(model))
    runs.load_weights(twin, path)
    assert len(model.weights) == 8
    for one, two in zip(model.weights, twin.weights):
        np.testing.assert_array_equal(np.float32(np.float16(one)), two)
    with pytest.raises(InputError, match=r"one\.safetensors does not fit this model"):
        runs.load_weights(other, path)


def test_architecture_and_checkpoint_follow_the_layers_and_not_their_names_or_seeds():
    models = [network(), network(seed=3), network(width=5), network(activation="tanh")]  # Keras counts names up
    plain, twin, *others = map(runs.architecture, models)
    assert plain == twin
    assert len({plain, *others}) == 3
    paths = {runs.checkpoint("baseline", model, setting).path for model in models for setting in (1, 2)}
    assert (len(paths), {path.parent for path in paths}) == (6, {REPOSITORY / "runs" / "checkpoints"})


def test_operations_of_a_hand_worked_network():
    assert runs.forward_flops(network()) == 2 * (6 * 6 * 4) * (3 * 9) + 2 * (6 * 6 * 4) * 10


def test_standard_error_works_again_after_the_quiet_import():
    assert os.path.samestat(STANDARD_ERROR, STANDARD_ERROR_AFTERWARDS)


@pytest.mark.parametrize("rate", [0.01, 1e30])
def test_ctrl_c_and_a_loss_that_is_no_longer_finite_end_a_training_in_one_line(tmp_path, rate):
    model, checkpoint = network(), runs.Checkpoint(tmp_path / "run.weights.h5")
    model.compile(optimizer=keras.optimizers.SGD(rate), loss="sparse_categorical_crossentropy")
    checkpoint.on_epoch_begin = Mock(side_effect=[None, KeyboardInterrupt])
    stopped = Stopped, "training stopped in epoch 2; saved: 1 of 3 epochs. Run this cell again to carry on"
    error, words = (
        stopped if rate < 1 else (InputError, "the training loss is nan in epoch 1: try a lower LEARNING_RATE")
    )
    with pytest.raises(error, match=f"^{words}"), runs.progress("test", checkpoint) as callbacks:
        model.fit(IMAGES, LABELS, batch_size=10, epochs=3, callbacks=callbacks, verbose=0)
    assert checkpoint.path.exists() == (error is Stopped), "no epoch without a finite loss is kept"


def test_committed_weights_give_their_records_accuracy(cifar):
    record = json.loads((REPOSITORY / "results" / "keras_baseline-full-seed0.json").read_text(encoding="utf-8"))
    answer, _ = runs.answering(REPOSITORY / "weights" / "keras_baseline-full-seed0.safetensors")
    right = answer(cifar.test_images)[0].argmax(1) == cifar.test_labels
    assert right.mean() == pytest.approx(record["test"]["accuracy"], abs=0.0005)
