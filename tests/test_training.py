"""helpers.training: learning, exact resume, checkpoints that do not fit, and what a run says about itself."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers import training
from helpers.batches import Batches
from helpers.data import REPOSITORY, InputError

pytestmark = pytest.mark.usefixtures("one_thread")
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (100, 32, 32, 3), dtype=np.uint8)
LABELS = GENERATOR.integers(0, 10, 100)


def network(width: int = 4, dropout: float = 0.3) -> nn.Module:
    """All that makes a resume hard: running means, random dropout."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(16 * width, 10),
    )


class Run:
    """Model, data, optimizer and schedule of one small training run, made anew from a seed."""

    def __init__(self, seed=0, epochs=3, lr=0.05, validate=True, model=None, resolution=32, optimizer=None):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        self.epochs = epochs
        self.model = model or network()
        self.train = Batches(IMAGES, LABELS, batch_size=20, augment=True, seed=seed, resolution=resolution)
        self.validation = Batches(IMAGES[:30], LABELS[:30], batch_size=20) if validate else None
        self.optimizer = optimizer or torch.optim.SGD(self.model.parameters(), lr=lr, momentum=0.9)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, lr, total_steps=5 * epochs)

    def fit(self, **options) -> pd.DataFrame:
        options = {"precision": torch.float32, "epochs": self.epochs, "schedule": self.schedule} | options
        return training.fit(self.model, self.train, self.validation, optimizer=self.optimizer, **options)

    def weights(self) -> dict[str, torch.Tensor]:
        return {key: value.clone() for key, value in self.model.state_dict().items()}


def assert_bit_equal(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), f"{key} differs"


def assert_same_history(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), other.drop(columns="seconds"), check_exact=True)


def noisy_loss(logits, labels):
    """A loss that draws from all three random generators, as mixup or cutout in a notebook may."""
    noise = random.random() + np.random.rand() + torch.rand(()).item()
    return F.cross_entropy(logits, labels) * (1 + 0.1 * noise)


def interrupted_at(step: int):
    """The noisy loss, interrupted as by Ctrl-C at one step."""
    calls = []

    def loss(logits, labels):
        calls.append(step)
        if len(calls) == step:
            raise KeyboardInterrupt
        return noisy_loss(logits, labels)

    return loss


# ------------------------------------------------------------------------------------------- learning


def test_accuracy_is_well_above_chance_after_a_few_epochs(small):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    ).to(memory_format=torch.channels_last)
    train = Batches(small.train_images[:2000], small.train_labels[:2000], batch_size=50, augment=True)
    validation = Batches(small.test_images[:500], small.test_labels[:500], batch_size=500)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=3 * len(train))
    history = training.fit(
        model, train, validation, optimizer=optimizer, schedule=schedule, epochs=3, precision=torch.float32
    )
    last = history.iloc[-1]
    assert last["validation_accuracy"] > 0.4
    assert last["train_accuracy"] > 0.4
    assert last["train_loss"] < history["train_loss"][0] - 0.5


def test_history_has_one_row_an_epoch():
    history = Run().fit()
    columns = ["epoch", "resolution", "train_loss", "train_accuracy", "learning_rate", "seconds"]
    assert list(history.columns) == [*columns, "validation_loss", "validation_accuracy"]
    assert list(history["epoch"]) == [1, 2, 3]
    assert list(history["resolution"]) == [32, 32, 32]
    assert (history["seconds"] > 0).all()
    assert list(Run(validate=False).fit().columns) == columns


def test_each_row_goes_to_after_epoch_as_it_ends():
    rows, steps = [], []

    def loss(logits, labels):
        steps.append(len(rows))
        return F.cross_entropy(logits, labels)

    history = Run().fit(after_epoch=rows.append, loss_function=loss)
    assert_same_history(pd.DataFrame(rows), history)
    assert steps == [0] * 5 + [1] * 5 + [2] * 5


def test_history_holds_the_scores_of_the_batches_that_were_seen():
    run = Run(model=network(dropout=0.0), lr=0.05)
    for group in run.optimizer.param_groups:  # no step changes a weight, so every score can be computed afterwards
        group["lr"] = 0.0
    history = run.fit(schedule=None, epochs=1)
    run.train.epoch = 0
    run.model.train()
    with torch.no_grad():
        scored = [(run.model(x), y) for x, y in run.train]
    logits, labels = torch.cat([part[0] for part in scored]), torch.cat([part[1] for part in scored])
    assert history["train_loss"][0] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert history["train_accuracy"][0] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert history["learning_rate"][0] == 0.0


def test_validation_scores_are_those_of_the_epochs_last_weights_in_evaluation_mode():
    run = Run()
    history = run.fit()
    run.model.eval()
    with torch.no_grad():
        logits = torch.cat([run.model(x) for x, _ in run.validation])
    labels = torch.from_numpy(LABELS[:30])
    assert history["validation_loss"].iloc[-1] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert history["validation_accuracy"].iloc[-1] == pytest.approx((logits.argmax(1) == labels).float().mean().item())


def test_validation_changes_no_weight():
    with_validation = Run()
    with_validation.fit()
    without = Run(validate=False)
    without.fit()
    assert_bit_equal(with_validation.weights(), without.weights())


def test_loss_function_is_the_one_given():
    history = Run().fit(loss_function=lambda logits, labels: 0 * F.cross_entropy(logits, labels) + 7)
    assert list(history["train_loss"]) == pytest.approx([7, 7, 7])
    assert (history["validation_loss"] < 7).all()  # always cross-entropy, so that runs can be compared


def test_schedule_is_stepped_after_every_step():
    run = Run()
    schedule = torch.optim.lr_scheduler.LambdaLR(run.optimizer, lambda step: 1 / (1 + step))
    start = run.optimizer.param_groups[0]["initial_lr"]
    history = run.fit(schedule=schedule)
    np.testing.assert_allclose(history["learning_rate"], [start / 6, start / 11, start / 16])


def test_without_a_schedule_the_learning_rate_stays():
    run = Run()
    run.optimizer.param_groups[0]["lr"] = 0.01
    assert list(run.fit(schedule=None)["learning_rate"]) == [0.01] * 3


def test_resolution_follows_the_epochs():
    assert list(Run(resolution=[16, 24, 32]).fit()["resolution"]) == [16, 24, 32]


@pytest.mark.parametrize("epochs", [0, -1])
def test_no_epochs_is_refused(epochs):
    run = Run()
    with pytest.raises(InputError, match=rf"EPOCHS is {epochs}: expected at least 1 pass over the training set\."):
        run.fit(epochs=epochs)


def test_loss_that_is_no_longer_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    path = tmp_path / "run.pt"
    run = Run()
    schedule = torch.optim.lr_scheduler.LambdaLR(run.optimizer, lambda step: 1 if step < 5 else 1e30)
    with pytest.raises(InputError, match=r"the training loss is (nan|inf) in epoch 2: try a lower LEARNING_RATE\."):
        run.fit(schedule=schedule, checkpoint=path)
    saved = torch.load(path, weights_only=True)
    assert len(saved["history"]) == 1
    assert all(value.isfinite().all() for value in saved["model"].values())


def test_same_seed_gives_the_same_run_and_another_seed_another():
    histories, weights = [], []
    for seed in (0, 0, 1):
        run = Run(seed=seed)
        histories.append(run.fit())
        weights.append(run.weights())
    assert_same_history(histories[0], histories[1])
    assert_bit_equal(weights[0], weights[1])
    assert list(histories[0]["train_loss"]) != list(histories[2]["train_loss"])


def test_the_estimate_changes_nothing(monkeypatch):
    timed = Run()
    timed_history = timed.fit(loss_function=noisy_loss)
    monkeypatch.setattr(training, "_print_estimate", lambda *_: None)
    plain = Run()
    plain_history = plain.fit(loss_function=noisy_loss)
    assert_same_history(timed_history, plain_history)
    assert_bit_equal(timed.weights(), plain.weights())


def test_long_training_says_beforehand_how_long_it_takes(capsys):
    run = Run(epochs=1_000_000)
    with pytest.raises(KeyboardInterrupt):
        run.fit(loss_function=interrupted_at(1))
    out = capsys.readouterr().out
    assert " h " in out.split("About ")[1].split(" for ")[0]
    assert "for 1000000 epochs of 5 steps (cpu, float32)." in out


def test_nothing_is_written_to_stderr(capfd):
    run = Run()
    run.fit()
    training.predict(run.model, run.validation, torch.float32)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_lower_precision_trains_float32_weights(precision):
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x.dtype)
            return x

    run = Run(model=nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), Spy(), nn.Flatten(), nn.Linear(256, 10)), epochs=4)
    before = run.weights()
    history = run.fit(precision=precision)
    assert set(seen) == {precision}
    assert history["train_loss"].iloc[-1] < history["train_loss"][0]
    assert {value.dtype for value in run.weights().values()} == {torch.float32}
    assert not torch.equal(before["0.weight"], run.weights()["0.weight"])


# --------------------------------------------------------------------------------------- exact resume

KILLED = '''
import os, sys, time
from pathlib import Path

sys.path[:0] = [{tests!r}, {repository!r}]
import torch
from test_training import Run, noisy_loss

folder, moment = Path(sys.argv[1]), sys.stdin.readline().strip()
steps, saves = 0, 0

def pause():
    """Wait to be killed."""
    (folder / "now").touch()
    time.sleep(120)
    sys.exit("nobody killed it")

def loss(logits, labels):
    global steps
    steps += 1
    if moment == f"step {{steps}}":
        pause()
    return noisy_loss(logits, labels)

real_save, real_replace = torch.save, os.replace

def save(content, file):
    global saves
    saves += 1
    if moment == f"save {{saves}}":
        file.write(b"half a checkpoint")
        file.flush()
        pause()
    real_save(content, file)

def replace(source, target):
    real_replace(source, target)
    if moment == f"move {{saves}}":
        pause()

torch.save, os.replace = save, replace
torch.set_num_threads(1)
run = Run(epochs=5)
history = run.fit(loss_function=loss, checkpoint=folder / "run.pt")
real_save({{"weights": run.weights(), "history": history.drop(columns="seconds").to_dict("list"), "steps": steps}},
          folder / "end.pt")
'''


def test_run_killed_again_and_again_ends_with_the_weights_of_one_left_alone(tmp_path):
    """kill -9 within an epoch, while a checkpoint is being written, and between the moves of two files."""
    script = tmp_path / "train.py"
    script.write_text(KILLED.format(tests=str(REPOSITORY / "tests"), repository=str(REPOSITORY)), encoding="utf-8")

    command, pipes = [sys.executable, script, tmp_path], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    waiting = [subprocess.Popen(command, text=True, **pipes) for _ in range(4)]  # importing torch side by side

    def start(moment):
        process = waiting.pop()
        process.stdin.write(f"{moment}\n")
        process.stdin.close()
        process.stdin = None
        return process

    # Moments of each process: its own steps (5 an epoch), its own saves (the first process also saves the start).
    for moment, epochs_saved in (("step 8", 1), ("save 2", 2), ("move 1", 2)):
        process = start(moment)
        deadline = time.monotonic() + 60
        while not (tmp_path / "now").exists():
            assert process.poll() is None, f"ended before {moment}: {process.stdout.read()}"
            assert time.monotonic() < deadline, f"{moment} never came"
            time.sleep(0.02)
        process.kill()
        assert process.wait(30) != 0
        process.stdout.close()
        (tmp_path / "now").unlink()
        path = tmp_path / ("run.previous.pt" if moment == "move 1" else "run.pt")
        assert (tmp_path / "run.pt").exists() == (moment != "move 1")
        assert len(torch.load(path, weights_only=True)["history"]) == epochs_saved
    last = start("never")
    alone = Run(epochs=5)
    history = alone.fit(loss_function=noisy_loss)
    out, _ = last.communicate(timeout=60)
    assert last.returncode == 0, out
    resumed = torch.load(tmp_path / "end.pt", weights_only=True)
    assert resumed["steps"] == 15
    assert_bit_equal(resumed["weights"], alone.weights())
    assert resumed["history"] == history.drop(columns="seconds").to_dict("list")


@pytest.mark.parametrize("step", [1, 3, 8, 15])
def test_interrupted_run_carries_on_in_the_same_process_bit_for_bit(tmp_path, step, capsys):
    whole = Run()
    whole_history = whole.fit(loss_function=noisy_loss)
    run = Run()
    done = (step - 1) // 5
    message = f"training stopped in epoch {done + 1}: {done} of 3 epochs are saved; run again to carry on"
    with pytest.raises(KeyboardInterrupt, match=message):
        run.fit(loss_function=interrupted_at(step), checkpoint=tmp_path / "run.pt")
    capsys.readouterr()
    history = run.fit(loss_function=noisy_loss, checkpoint=tmp_path / "run.pt")
    assert f"Resumed from run.pt: {done} of 3 epochs are done." in capsys.readouterr().out
    assert_same_history(history, whole_history)
    assert_bit_equal(run.weights(), whole.weights())


def test_resume_ignores_what_the_new_objects_hold(tmp_path):
    """After a restart the notebook's cells build another model, from another random state."""
    whole = Run()
    whole.fit(loss_function=noisy_loss)
    with pytest.raises(KeyboardInterrupt):
        Run().fit(loss_function=interrupted_at(8), checkpoint=tmp_path / "run.pt")
    fresh = Run(seed=9)
    fresh.train = Run().train
    fresh.fit(loss_function=noisy_loss, checkpoint=tmp_path / "run.pt")
    assert_bit_equal(fresh.weights(), whole.weights())


def test_finished_run_is_loaded_and_not_trained_again(tmp_path):
    first, second = Run(), Run(seed=1)
    history = first.fit(checkpoint=tmp_path / "run.pt")
    again = second.fit(checkpoint=tmp_path / "run.pt", loss_function=interrupted_at(1))
    assert_bit_equal(first.weights(), second.weights())
    pd.testing.assert_frame_equal(history, again)


def test_history_says_whether_it_was_resumed(tmp_path):
    run = Run()
    assert run.fit(checkpoint=tmp_path / "run.pt").attrs["resumed"] is False
    assert Run().fit(checkpoint=tmp_path / "run.pt").attrs["resumed"] is True
    assert Run().fit().attrs["resumed"] is False


def test_without_a_checkpoint_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Run().fit()
    assert list(tmp_path.iterdir()) == []


def test_float16_resumes_bit_for_bit_with_its_loss_scale(tmp_path):
    whole = Run()
    whole.fit(precision=torch.float16, loss_function=noisy_loss)
    run = Run()
    with pytest.raises(KeyboardInterrupt):
        run.fit(precision=torch.float16, loss_function=interrupted_at(8), checkpoint=tmp_path / "run.pt")
    assert "scale" in torch.load(tmp_path / "run.pt", weights_only=True)["scaler"]
    run.fit(precision=torch.float16, loss_function=noisy_loss, checkpoint=tmp_path / "run.pt")
    assert_bit_equal(run.weights(), whole.weights())


# --------------------------------------------------------------------- checkpoints that cannot be used


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of three epochs: its folder with the last checkpoint and the one before, and its weights."""
    folder = tmp_path_factory.mktemp("finished")
    run = Run()
    run.fit(checkpoint=folder / "run.pt", settings={"WIDTH": 4, "LABEL_SMOOTHING": 0.1})
    return folder, run.weights()


@pytest.fixture
def checkpoint(finished, tmp_path):
    """A copy of the finished run's checkpoints."""
    for path in finished[0].iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path / "run.pt"


SETTINGS = {"WIDTH": 4, "LABEL_SMOOTHING": 0.1}


def cut(path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


@pytest.mark.parametrize("keep", [0, 0.01, 0.5, 0.99])
def test_checkpoint_cut_short_costs_one_epoch(finished, checkpoint, keep, capsys):
    cut(checkpoint, keep)
    run = Run(seed=4)
    run.train = Run().train
    run.fit(checkpoint=checkpoint, settings=SETTINGS)
    out = capsys.readouterr().out
    assert "The last checkpoint is damaged (run.pt: " in out
    assert "the one before it is used.\nResumed from run.previous.pt: 2 of 3 epochs are done." in out
    assert_bit_equal(run.weights(), finished[1])


def test_both_checkpoints_cut_short_is_an_error_that_changes_nothing(checkpoint):
    previous = checkpoint.with_name("run.previous.pt")
    cut(checkpoint, 0.5)
    cut(previous, 0.5)
    files = {path: path.read_bytes() for path in (checkpoint, previous)}
    run = Run()
    before = run.weights()
    with pytest.raises(training.CheckpointError, match=r"run\.pt cannot be read, .*run\.previous\.pt.*Delete it"):
        run.fit(checkpoint=checkpoint, settings=SETTINGS)
    assert_bit_equal(run.weights(), before)
    assert {path: path.read_bytes() for path in files} == files


def test_file_that_is_no_checkpoint_is_an_error(tmp_path):
    torch.save({"model": {}}, tmp_path / "run.pt")
    with pytest.raises(training.CheckpointError, match=r"run\.pt cannot be read"):
        Run().fit(checkpoint=tmp_path / "run.pt")


def refused(run: Run, checkpoint, message: str, **options) -> None:
    before, rate = run.weights(), run.optimizer.param_groups[0]["lr"]
    content = checkpoint.read_bytes()
    with pytest.raises(training.CheckpointError, match=message):
        run.fit(checkpoint=checkpoint, **({"settings": SETTINGS} | options))
    assert_bit_equal(run.weights(), before)
    assert run.optimizer.param_groups[0]["lr"] == rate
    assert checkpoint.read_bytes() == content
    assert issubclass(training.CheckpointError, InputError)


def test_checkpoint_of_another_width_is_refused(checkpoint):
    message = r"run\.pt is from another model: 0\.weight is \(4, 3, 3, 3\) there and \(6, 3, 3, 3\) here\. Delete it"
    refused(Run(model=network(width=6)), checkpoint, message)


def test_checkpoint_of_a_smaller_model_is_refused(checkpoint):
    model = network()
    model.append(nn.Linear(10, 10))
    refused(Run(model=model), checkpoint, r"from another model: 7\.weight is absent there and \(10, 10\) here")


def test_checkpoint_of_a_larger_model_is_refused(checkpoint):
    model = network()
    model[1] = nn.Identity()
    refused(Run(model=model), checkpoint, r"from another model: 1\.weight is \(4,\) there and absent here")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"WIDTH": 4, "LABEL_SMOOTHING": 0.2}, r"another run: LABEL_SMOOTHING is 0\.1 there and 0\.2 here"),
        ({"WIDTH": 4}, r"another run: LABEL_SMOOTHING is 0\.1 there and None here"),
        ({**SETTINGS, "FLIP": True}, r"another run: FLIP is None there and True here"),
    ],
)
def test_checkpoint_of_other_settings_is_refused(checkpoint, settings, message):
    refused(Run(), checkpoint, message, settings=settings)


def test_checkpoint_of_other_epochs_precision_or_data_size_is_refused(checkpoint):
    refused(Run(), checkpoint, r"another run: epochs is 3 there and 4 here", epochs=4)
    refused(Run(), checkpoint, r"another run: precision is torch\.float32 there", precision=torch.bfloat16)
    run = Run()
    run.train = Batches(IMAGES[:80], LABELS[:80], batch_size=20, augment=True)
    refused(run, checkpoint, r"another run: steps is 5 there and 4 here")


def test_checkpoint_of_another_optimizer_or_schedule_is_refused(checkpoint):
    model = network()
    adam = torch.optim.AdamW(model.parameters(), lr=0.1)
    refused(Run(model=model, optimizer=adam), checkpoint, r"optimizer is SGD of 6 tensors there and AdamW of 6 tensors")
    model = network()
    groups = [{"params": list(model.parameters())[:2]}, {"params": list(model.parameters())[2:]}]
    split = torch.optim.SGD(groups, lr=0.1)
    refused(Run(model=model, optimizer=split), checkpoint, r"optimizer is SGD of 6 tensors there and SGD of 2 \+ 4")
    run = Run()
    constant = torch.optim.lr_scheduler.ConstantLR(run.optimizer)
    refused(run, checkpoint, r"schedule is OneCycleLR there and ConstantLR here", schedule=constant)
    refused(Run(), checkpoint, r"schedule is OneCycleLR there", schedule=None)


def test_full_disk_costs_the_checkpoint_and_not_the_run(tmp_path, monkeypatch, capsys):
    path = tmp_path / "run.pt"
    real_save, calls = torch.save, []

    def save(content, file):
        calls.append(1)
        if len(calls) > 2:  # the start and the first epoch still fit
            file.write(b"x" * 100)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_save(content, file)

    monkeypatch.setattr(torch, "save", save)
    run = Run()
    run.fit(checkpoint=path)
    out = capsys.readouterr().out
    for epoch in (2, 3):
        assert f"Epoch {epoch} was not saved ({os.strerror(errno.ENOSPC)}, run.pt); training goes on without it." in out
    assert "Epoch 1 was not saved" not in out
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == ["run.previous.pt", "run.pt"]
    assert len(torch.load(path, weights_only=True)["history"]) == 1
    whole = Run()
    whole.fit()
    assert_bit_equal(run.weights(), whole.weights())


def test_folder_that_cannot_be_made_costs_the_checkpoint_and_not_the_run(tmp_path, capsys):
    (tmp_path / "a file").write_text("in the way")
    history = Run().fit(checkpoint=tmp_path / "a file" / "run.pt")
    assert len(history) == 3
    assert capsys.readouterr().out.count("was not saved (") == 4  # the start and three epochs


def test_forget_deletes_the_checkpoint_and_the_one_before(checkpoint):
    assert len(list(checkpoint.parent.glob("*.pt"))) == 2
    training.forget(checkpoint)
    assert list(checkpoint.parent.glob("*.pt")) == []
    training.forget(checkpoint)  # nothing there is no error


def test_checkpoint_path_differs_for_another_model_or_other_settings():
    def path(width=4, **settings):
        return training.checkpoint_path("cnn", network(width), {"EPOCHS": 3} | settings)

    assert path() == path()
    assert len({path(), path(width=5), path(EPOCHS=4), path(FLIP=True)}) == 4
    assert path().name.startswith("cnn-")
    assert path().parent == REPOSITORY / "runs" / "checkpoints"


# ---------------------------------------------------------------------------------------- predictions


def test_predict_gives_every_image_in_order():
    torch.manual_seed(0)
    model = network()
    batches = Batches(IMAGES, LABELS, batch_size=30)
    logits, labels = training.predict(model, batches, torch.float32)
    assert logits.shape == (100, 10)
    assert logits.dtype == np.float32
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, LABELS)
    model.eval()
    with torch.no_grad():
        (whole,) = [model(x) for x, _ in Batches(IMAGES, LABELS, batch_size=100)]
    np.testing.assert_allclose(logits, whole.numpy(), atol=1e-5)


@pytest.mark.parametrize("mode", [True, False])
def test_predict_leaves_the_model_as_it_was(mode):
    model = network().train(mode)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    training.predict(model, Batches(IMAGES, LABELS, batch_size=50), torch.float32)
    assert model.training is mode
    assert all(module.training is mode for module in model.modules())
    assert_bit_equal(model.state_dict(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_predict_in_lower_precision_still_gives_float32():
    logits, _ = training.predict(network(), Batches(IMAGES, LABELS, batch_size=50), torch.bfloat16)
    assert logits.dtype == np.float32


# --------------------------------------------------------------------------- device, precision, counts


def test_choose_device():
    assert training.choose_device("cpu") == torch.device("cpu")
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert training.choose_device().type == training.choose_device("auto").type == best


@pytest.mark.parametrize("name", ["tpu", "gpu", "", "CPU"])
def test_choose_device_names_what_is_here(name):
    with pytest.raises(
        InputError, match=rf'DEVICE is "{name}", and this machine has .*cpu: use one of these or "auto"'
    ):
        training.choose_device(name)


def test_choose_device_refuses_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert training.choose_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:0", "mps"):
        with pytest.raises(InputError, match=rf'DEVICE is "{name}", and this machine has cpu: use one'):
            training.choose_device(name)


def test_choose_precision_on_the_cpu_follows_the_hardware(monkeypatch):
    """Not the clock: a resumed run must choose the same type, however busy the machine is."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    assert training.choose_precision(torch.device("mps")) == torch.float32
    for avx512, amx in ((True, False), (False, True), (True, True), (False, False)):
        for name, answer in zip(names, (avx512, amx)):
            monkeypatch.setattr(torch.cpu, name, lambda answer=answer: answer, raising=False)
        expected = torch.bfloat16 if avx512 or amx else torch.float32
        assert training.choose_precision(torch.device("cpu")) == expected
    for name in names:
        monkeypatch.delattr(torch.cpu, name)
    assert training.choose_precision(torch.device("cpu")) == torch.float32


def test_autocast_leaves_float32_alone():
    cpu = torch.device("cpu")
    a = torch.randn(4, 4)
    for precision in (torch.float32, torch.bfloat16):
        with training.autocast(cpu, precision):
            assert (a @ a).dtype == precision


def test_matmul_flops_is_a_rate():
    assert 1e8 < training.matmul_flops(torch.device("cpu"), torch.float32) < 1e15


def test_parameter_count_of_a_hand_worked_network():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(100, 10))
    assert training.parameter_count(model) == (3 * 4 * 9 + 4) + (4 + 4) + (100 * 10 + 10)
    model[0].requires_grad_(False)
    assert training.parameter_count(model) == 8 + 1010  # frozen weights are not trainable


@pytest.mark.parametrize("mode", [True, False])
def test_forward_flops_of_a_hand_worked_network(mode):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(5), nn.Flatten())
    model.append(nn.Linear(100, 10))
    model.train(mode)
    linear = 2 * 100 * 10
    assert training.forward_flops(model) == 2 * (32 * 32 * 4) * (3 * 9) + linear
    assert training.forward_flops(model, resolution=16) == 2 * (16 * 16 * 4) * (3 * 9) + linear
    assert model.training is mode


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (45.4, "45 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (100_000, "27 h 46 min"),
    ],
)
def test_duration_in_words(seconds, words):
    assert training.duration(seconds) == words


def test_architecture_follows_layers_shapes_and_own_code(tmp_path):
    """As in a notebook: the class stands in __main__, and only its forward pass is edited."""
    template = """
import torch
from torch import nn
from helpers import training

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.linear = nn.Linear(3, width){comment}

    def forward(self, x):
        return {forward}

print(training.architecture(Net()), training.architecture(Net()), training.architecture(Net(5)))
"""
    found = []
    for number, (comment, forward) in enumerate(
        (("", "self.linear(x)"), ("  # a comment", "self.linear(x)"), ("", "torch.relu(self.linear(x))"))
    ):
        script = tmp_path / f"net{number}.py"
        script.write_text(template.format(comment=comment, forward=forward), encoding="utf-8")
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        run = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=True)
        found.append(run.stdout.split())
    plain, commented, relu = found
    assert plain == commented
    assert plain[0] == plain[1] != plain[2]
    assert relu[0] != plain[0]


# -------------------------------------------------------------------------------------------- weights


def small_network(width: int = 8) -> nn.Module:
    torch.manual_seed(width)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width * 900, 10))


def test_weights_come_back_as_float16_rounds_them(tmp_path):
    model = small_network().to(memory_format=torch.channels_last)
    model(torch.randn(4, 3, 32, 32))  # statistics that are not the first ones
    path = training.save_weights(model, tmp_path / "weights" / "one.safetensors")
    assert [file.name for file in path.parent.iterdir()] == ["one.safetensors"]
    assert path.stat().st_size < 2.2 * sum(value.numel() for value in model.state_dict().values()) + 1_000
    twin = small_network(8)
    nn.init.zeros_(twin[3].weight)
    training.load_weights(twin, path)
    for name, value in twin.state_dict().items():
        expected = model.state_dict()[name]
        assert value.dtype == expected.dtype
        assert torch.equal(value, expected.half().to(value.dtype) if value.is_floating_point() else expected), name
    assert twin[1].num_batches_tracked == 1


def test_weights_of_another_model_are_refused(tmp_path):
    path = training.save_weights(small_network(8), tmp_path / "one.safetensors")
    with pytest.raises(InputError, match=r"one.safetensors does not fit this model: .*size mismatch"):
        training.load_weights(small_network(9), path)
    with pytest.raises(InputError, match=r"does not fit this model: .*Missing key"):
        training.load_weights(nn.Sequential(small_network(8)), path)


@pytest.mark.parametrize("content", [None, b"", b"<html>404 not found</html>"])
def test_weights_that_cannot_be_read_are_refused(tmp_path, content):
    path = tmp_path / "one.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"one\.safetensors does not fit this model"):
        training.load_weights(small_network(), path)


def test_weights_that_float16_cannot_hold_are_refused_and_the_old_file_stays(tmp_path):
    path = training.save_weights(small_network(), tmp_path / "one.safetensors")
    before = path.read_bytes()
    model = small_network()
    with torch.no_grad():
        model[3].bias[2] = 70_000
    with pytest.raises(InputError, match=r"3\.bias goes up to 7e\+04: expected values that float16 can hold"):
        training.save_weights(model, path)
    assert path.read_bytes() == before
