"""helpers.training and helpers.checkpoints: learning, exact resume, and checkpoints that do not fit."""

import collections
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import DEFAULT, Mock

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers import checkpoints, training
from helpers.batches import Batches
from helpers.files import REPOSITORY, InputError, Stopped
from helpers.metrics import packed

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = np.random.default_rng(0).integers(0, 256, (100, 32, 32, 3), dtype=np.uint8), np.arange(100) % 10
SETTINGS = {"WIDTH": 4, "LABEL_SMOOTHING": 0.1}
sgd = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)


def network(width: int = 4) -> nn.Sequential:
    """All that makes a resume hard: running means, random dropout."""
    layers = [nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.3), nn.Linear(16 * width, 10))


class Run:
    """Model, data, optimizer and schedule of one small training run, 5 steps an epoch, made anew from a seed."""

    def __init__(self, seed=0, epochs=3, model=None, optimizer=sgd, data=DATA, validate=True, resolution=32):
        torch.manual_seed(seed)
        self.model = network() if model is None else model
        self.train = Batches(*data, batch_size=20, augment=True, resolution=resolution)
        self.validation = Batches(*(part[:30] for part in data), batch_size=20) if validate else None
        self.optimizer, self.seed, self.epochs = optimizer(self.model.parameters()), seed, epochs
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 0.05, total_steps=epochs * len(self.train))
        self.history = pd.DataFrame(columns=["seconds"])

    def fit(self, **options) -> pd.DataFrame:
        torch.manual_seed(self.seed)
        options = {"precision": torch.float32, "epochs": self.epochs, "schedule": self.schedule} | options
        self.history = training.fit(self.model, self.train, self.validation, optimizer=self.optimizer, **options)
        return self.history

    def end(self) -> list[dict]:
        """The weights, to the bit, and the history, but for the time it took."""
        weights = {key: value.tolist() for key, value in self.model.state_dict().items()}
        return [weights, self.history.drop(columns="seconds").to_dict("list")]


def noisy_loss(logits, labels):
    """A loss that draws random numbers, as mixup in a notebook may."""
    return F.cross_entropy(logits, labels) * (1 + 0.1 * torch.rand(()))


def interrupted_at(step: int) -> Mock:
    """The noisy loss, interrupted as by Ctrl-C at one step."""
    return Mock(side_effect=[DEFAULT] * (step - 1) + [KeyboardInterrupt], wraps=noisy_loss)


def test_accuracy_is_well_above_chance_after_a_few_epochs(small, capfd):
    torch.manual_seed(0)
    last = Run(model=network(24), epochs=4, data=(small.train_images[:2000], small.train_labels[:2000])).fit().iloc[-1]
    assert last[["train_accuracy", "validation_accuracy"]].min() > 0.4
    assert capfd.readouterr().err == "", "a notebook shows standard error in red"


def test_history_holds_the_scores_of_the_batches_seen_and_of_the_last_weights():
    run, loss = Run(resolution=[16, 24, 32]), Mock(wraps=F.cross_entropy)
    run.optimizer.param_groups[0]["initial_lr"] = 0.01
    schedule = torch.optim.lr_scheduler.LambdaLR(run.optimizer, lambda step: 1 / (1 + step))
    history = run.fit(loss_function=loss, schedule=schedule)
    assert list(zip(history["epoch"], history["resolution"])) == [(1, 16), (2, 24), (3, 32)]
    np.testing.assert_allclose(history["learning_rate"], [0.01 / 6, 0.01 / 11, 0.01 / 16])  # stepped each step
    train = [call.args for call in loss.call_args_list[-5:]]
    validation = [(run.model.eval()(x), y) for x, y in run.validation]
    for part, scored in (("train", train), ("validation", validation)):
        logits, labels = map(torch.cat, zip(*scored))
        last, accuracy = history.iloc[-1], (logits.argmax(1) == labels).float().mean().item()
        assert last[f"{part}_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
        assert last[f"{part}_accuracy"] == pytest.approx(accuracy)


def test_validation_changes_no_weight_and_without_a_schedule_the_rate_stays():
    run, without = Run(), Run(validate=False)
    for one in (run, without):
        one.optimizer.param_groups[0]["lr"] = 0.01
        assert list(one.fit(schedule=None)["learning_rate"]) == [0.01] * 3
    assert run.end()[0] == without.end()[0]
    assert set(run.history) - set(without.history) == {"validation_loss", "validation_accuracy"}


def test_no_epochs_and_a_loss_that_is_no_longer_finite_are_refused_and_the_checkpoint_is_kept(tmp_path):
    with pytest.raises(InputError, match=r"EPOCHS is 0: expected at least 1 pass over the training set\."):
        Run().fit(epochs=0)
    run = Run()
    loss = Mock(side_effect=[DEFAULT] * 5 + [torch.tensor(torch.inf, requires_grad=True)] * 5, wraps=noisy_loss)
    with pytest.raises(InputError, match=r"the training loss is inf in epoch 2: try a lower LEARNING_RATE\."):
        run.fit(loss_function=loss, checkpoint=tmp_path / "run.pt")
    assert len(torch.load(tmp_path / "run.pt", weights_only=True)["history"]) == 1


def test_what_has_been_used_is_refused_unless_a_checkpoint_sets_it_back(tmp_path):
    run, other = Run(), Run(seed=1)
    with pytest.raises(
        InputError, match=r"^the optimizer is of another network: run again from the cell with `optimiz"
    ):
        training.fit(other.model, run.train, optimizer=run.optimizer, epochs=1)
    with pytest.raises(InputError, match=r"^the schedule is of another optimizer: run again from"):
        run.fit(schedule=other.schedule)
    with pytest.raises(
        Stopped, match=r"^training stopped in epoch 1; nothing is saved: run again from the cell with `mo"
    ):
        run.fit(loss_function=interrupted_at(3))
    before = run.end()
    with pytest.raises(InputError, match=r"^this network is trained already: run again from the cell with"):
        run.fit(checkpoint=tmp_path / "new.pt")
    other.optimizer.step()
    other.schedule.step()
    with pytest.raises(InputError, match=r"^the optimizer or its schedule has been used: run again from the cell with"):
        other.fit()
    assert run.end() == before and not list(tmp_path.iterdir())


def test_history_keeps_which_validation_images_are_right(tmp_path):
    run = Run()
    history = run.fit(checkpoint=tmp_path / "run.pt")
    logits, labels = training.predict(run.model, run.validation, torch.float32)
    assert history.attrs["validation_correct"] == packed(logits.argmax(1) == labels)
    assert run.fit(checkpoint=tmp_path / "run.pt").attrs["validation_correct"] == packed(logits.argmax(1) == labels)


def killed_run() -> None:
    """What a process of its own does; it ends as by kill -9 at the moment that it reads, such as "save 2"."""
    folder, moment, counts = Path(sys.argv[1]), sys.stdin.read(), collections.Counter()

    def reached(what):
        counts[what] += 1
        if moment == f"{what} {counts[what]}":
            os.kill(os.getpid(), 9)

    def save(content, path, real=torch.save):
        path.write_bytes(b"half a checkpoint")
        reached("save")
        real(content, path)

    torch.save = save
    torch.set_num_threads(1)
    run = Run(epochs=5)
    run.optimizer.register_step_pre_hook(lambda *_: reached("step"))
    run.fit(loss_function=noisy_loss, checkpoint=folder / "run.pt")
    (folder / "end.json").write_text(json.dumps([*run.end(), counts["step"]]))


def test_run_killed_again_and_again_ends_with_the_weights_of_one_left_alone(tmp_path):
    """kill -9 within an epoch (of 5 steps), and while a checkpoint is written; each process counts for itself."""
    options = {"cwd": REPOSITORY, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", "from tests.test_training import killed_run; killed_run()", tmp_path]
    processes = [subprocess.Popen(command, **options) for _ in range(3)]
    for process, moment, epochs in zip(processes, ("step 8", "save 2", "never"), (1, 2, 5)):
        out, _ = process.communicate(moment, timeout=600)  # against a hang
        assert process.returncode == 0 if moment == "never" else process.returncode not in (0, 1), out
        assert len(torch.load(tmp_path / "run.pt", weights_only=True)["history"]) == epochs
    alone = Run(epochs=5)
    alone.fit(loss_function=noisy_loss)
    assert json.loads((tmp_path / "end.json").read_text()) == [*alone.end(), 15]


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(("step", "precision"), [(1, "float32"), (3, "bfloat16"), (15, "float32"), (8, "float16")])
def test_interrupted_run_carries_on_bit_for_bit(tmp_path, step, precision, fresh, capsys):
    """In the same objects or, as in a restarted notebook, in `fresh` ones, whatever these hold."""
    options = {"loss_function": noisy_loss, "precision": getattr(torch, precision)}  # float16 has a loss scale to keep
    whole, run, done, seen = Run(), Run(), (step - 1) // 5, set()
    whole.model[0].register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    whole.fit(**options)
    assert (seen, whole.model[0].weight.dtype) == ({options["precision"]}, torch.float32)
    saved = f"saved: {done} of 3 epochs. Run this cell again to carry on" if done else "run this cell again to begin"
    with pytest.raises(Stopped, match=rf"^training stopped in epoch {done + 1}; {saved}"):
        run.fit(**options | {"loss_function": interrupted_at(step)}, checkpoint=tmp_path / "run.pt")
    assert bool(torch.load(tmp_path / "run.pt", weights_only=True)["scaler"]) is (precision == "float16")
    run = Run(seed=9) if fresh else run
    assert run.fit(**options, checkpoint=tmp_path / "run.pt").attrs["resumed"] is (done > 0)
    said = f"Resumed: {done} of 3 epochs are done. To start afresh, delete\nrun.pt\n"
    assert (said in capsys.readouterr().out) == (done > 0)
    assert run.end() == whole.end()
    seconds = list(run.history["seconds"])
    run.fit(**options | {"loss_function": interrupted_at(1)}, checkpoint=tmp_path / "run.pt")  # it has ended
    assert (run.end(), list(run.history["seconds"])) == (whole.end(), seconds), "and is not trained again"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, Run]:
    """The checkpoint, only to be read, of a finished run of three epochs, and the run."""
    path, run = tmp_path_factory.mktemp("finished") / "run.pt", Run()
    run.fit(checkpoint=path, settings=SETTINGS)
    return path, run


def refusal(run: Run, checkpoint, **options) -> str:
    """The message of the refusal; nothing may have changed by it."""
    before, rate, content = run.end(), run.optimizer.param_groups[0]["lr"], checkpoint.read_bytes()
    with pytest.raises(checkpoints.CheckpointError) as error:
        run.fit(checkpoint=checkpoint, **{"settings": SETTINGS} | options)
    assert (run.end(), run.optimizer.param_groups[0]["lr"], checkpoint.read_bytes()) == (before, rate, content)
    return str(error.value)


@pytest.mark.parametrize("kept", [slice(0), slice(99), slice(9000), slice(-99), None])
def test_damaged_checkpoint_is_an_error_that_changes_nothing(finished, tmp_path, kept):
    path = tmp_path / "run.pt"
    path.write_bytes(finished[0].read_bytes()[kept]) if kept else torch.save({"model": {}}, path)
    message = refusal(Run(), path)
    assert message.startswith("run.pt cannot be read (")
    assert message.endswith("), it may have been cut short. Delete it to start afresh.")


@pytest.mark.parametrize(
    ("made", "options", "difference"),
    [
        ({"model": network(6)}, {}, "model: 0.weight is (4, 3, 3, 3) there and (6, 3, 3, 3)"),
        ({"model": network().append(nn.PReLU())}, {}, "model: 7.weight is absent there and (1,)"),
        ({}, {"settings": SETTINGS | {"WIDTH": 5}}, "run: WIDTH is 4 there and 5"),
        ({}, {"epochs": 4}, "run: epochs is 3 there and 4"),
        ({}, {"precision": torch.bfloat16}, "run: precision is torch.float32 there and torch.bfloat16"),
        ({"data": (DATA[0][:80], DATA[1][:80])}, {}, "run: steps is 5 there and 4"),
        ({"optimizer": torch.optim.Adam}, {}, "run: optimizer is SGD of 6 tensors there and Adam of 6 tensors"),
        ({}, {"schedule": None}, "run: schedule is OneCycleLR there and NoneType"),
    ],
)
def test_checkpoint_of_another_model_or_run_is_refused(finished, made, options, difference):
    message = f"run.pt is from another {difference} here. Delete it, or name another checkpoint, to start afresh."
    assert refusal(Run(**made), finished[0], **options) == message


def test_full_disk_costs_the_checkpoint_and_not_the_run(tmp_path, monkeypatch, capsys, finished):
    errors = OSError("No space left"), RuntimeError("No space left\nat ...")  # after the start and the first epoch
    save = Mock(side_effect=[DEFAULT, DEFAULT, *errors], wraps=torch.save)
    monkeypatch.setattr(torch, "save", lambda content, path: (path.touch(), save(content, path)))
    run = Run()
    run.fit(checkpoint=tmp_path / "run.pt")
    said = [line for line in capsys.readouterr().out.splitlines() if "not saved" in line]
    assert said == [f"Epoch {k} was not saved (No space left, run.pt); training goes on without it." for k in (2, 3)]
    assert list(tmp_path.glob("*.p*t")) == [tmp_path / "run.pt"]
    assert len(torch.load(tmp_path / "run.pt", weights_only=True)["history"]) == 1
    assert run.end() == finished[1].end()


def test_another_model_or_other_settings_have_another_checkpoint_and_forget_deletes_one(tmp_path):
    asked = [(4, 3), (5, 3), (4, 4), (4, 3)]
    paths = [checkpoints.checkpoint_path("cnn", network(width), {"EPOCHS": epochs}) for width, epochs in asked]
    assert (len(set(paths)), paths[0].parent) == (3, REPOSITORY / "runs" / "checkpoints")
    assert paths[0] == paths[3]
    for name in ("run.pt", "run.pt.1-2.part", "run2.pt"):  # with what a kill left of this one, and another's
        (tmp_path / name).touch()
    for _ in range(2):  # nothing there is no error
        checkpoints.forget(tmp_path / "run.pt")
        assert list(tmp_path.glob("*.p*t")) == [tmp_path / "run2.pt"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_on_a_gpu_it_stops_resumes_and_predicts(tmp_path, precision):
    model, train = network().to("cuda"), Batches(*DATA, batch_size=20, augment=True, device="cuda")
    options = {
        "optimizer": sgd(model.parameters()),
        "epochs": 3,
        "precision": precision,
        "checkpoint": tmp_path / "a.pt",
    }
    with pytest.raises(Stopped):
        training.fit(model, train, loss_function=interrupted_at(8), **options)
    assert training.fit(model, train, **options).attrs["resumed"]
    logits, labels = training.predict(model, Batches(*DATA, batch_size=30, device="cuda"), precision)
    np.testing.assert_array_equal(labels, DATA[1])
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(("mode", "precision", "error"), [(True, torch.float32, 1e-5), (False, torch.bfloat16, 0.03)])
def test_predict_gives_every_image_in_order_and_leaves_the_model_as_it_was(mode, precision, error):
    run = Run()
    before, model = run.end(), run.model.train(mode)
    logits, labels = training.predict(model, Batches(*DATA, batch_size=30), precision)
    assert (logits.shape, logits.dtype, labels.dtype) == ((100, 10), np.float32, np.int64)
    np.testing.assert_array_equal(labels, DATA[1])
    assert all(module.training is mode for module in model.modules())
    assert run.end() == before
    (whole,) = [model.eval()(x).detach() for x, _ in Batches(*DATA, batch_size=100)]
    np.testing.assert_allclose(logits, whole, atol=error)
