"""Around Keras's `compile` and `fit` in notebook 1: a quiet start, the precision, a progress bar, checkpoints, weights.

Only notebook 1 imports this module: it imports Keras, and with it TensorFlow ($KERAS_BACKEND: or JAX, or PyTorch).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from safetensors.numpy import load_file
from tqdm import tqdm

from helpers import cells, profiles, weights
from helpers.files import REPOSITORY, InputError, Stopped, count, first_line, relative, replacing
from helpers.metrics import refuse_infinite

with contextlib.suppress(ImportError):
    import triton  # noqa: F401  before TensorFlow: after it, its import by PyTorch ends the process (two LLVMs)

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
standard_error = os.dup(2)
with open(os.devnull, "w") as nowhere:  # where TensorFlow's start-up messages may go
    os.dup2(nowhere.fileno(), 2)
    try:
        import keras

        if keras.backend.backend() == "torch":
            import torch

            HAS_GPU = torch.cuda.is_available() or torch.backends.mps.is_available()
        else:
            HAS_GPU = bool(keras.distribution.list_devices("gpu"))
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
keras.config.set_image_data_format("channels_last")  # whatever the person's ~/.keras/keras.json says
keras.config.set_floatx("float32")
keras.config.set_epsilon(1e-7)


def device(name: str) -> str:
    """The device in words; name: "auto", "cpu", or a GPU's. Raises InputError for one that is not to be had."""
    profiles.check("DEVICE", name)
    if name not in ("auto", "cpu") and not HAS_GPU:
        raise InputError(f'DEVICE is "{name}", and Keras finds no GPU here: set "auto" or "cpu".')
    if name == "cpu" and HAS_GPU and sys.platform != "darwin":
        raise InputError('DEVICE is "cpu", and Keras has the GPU already: restart the kernel and run from the top.')
    return f"{'GPU' if HAS_GPU else 'CPU'}, Keras on {keras.backend.backend()}"


def choose_precision(gpu: bool, tries: int = 10) -> tuple[str, float]:
    """Set the layers' type, "mixed_bfloat16" or "float32"; gives it, and the operations a second of a convolution.

    bfloat16 on a CPU that has the instructions, and on a GPU where the convolution is clearly faster that way.
    """
    policies, seconds = ("float32", "mixed_bfloat16"), {}
    convolutions = [keras.layers.Conv2D(64, 3, padding="same", dtype=name) for name in policies]
    x = keras.random.normal((64, 16, 16, 64))
    for _ in range(tries):  # taken in turn, and the fastest counts
        for name, convolution in zip(policies, convolutions):
            start = time.perf_counter()
            float(keras.ops.sum(keras.ops.cast(keras.ops.stop_gradient(convolution(x)), "float32")))
            seconds[name] = min(seconds.get(name, 1e9), time.perf_counter() - start)
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    instructions = "avx512_bf16" in flags or "amx_bf16" in flags
    chosen = policies[1.3 * seconds["mixed_bfloat16"] < seconds["float32"] if gpu else instructions]
    keras.mixed_precision.set_global_policy(chosen)
    return chosen, 2 * 64 * 16 * 16 * 9 * 64 * 64 / seconds[chosen]


def matmul_flops() -> float:
    """Floating-point operations a second of a large matrix product in the layers' type, as `devices.matmul_flops`."""
    a, seconds = keras.ops.ones((1024, 1024), keras.mixed_precision.dtype_policy().compute_dtype), []
    for _ in range(8):
        start = time.perf_counter()
        float(keras.ops.matmul(a, a)[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(seconds)


class Progress(keras.callbacks.Callback):
    """A bar with the time left; the seconds of training and the learning rate of each epoch go into the history.

    Raises InputError for a loss that is no longer finite.
    """

    def __init__(self, label: str):
        super().__init__()
        self.label, self.epoch, self.bar = label, 0, None

    def on_train_begin(self, logs=None):
        total = self.params["epochs"] * self.params["steps"]
        self.bar = tqdm(total=total, desc=self.label, unit="step", file=sys.stdout, ncols=96, mininterval=0.5)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.bar.n = epoch, epoch * self.params["steps"]  # further than zero after a resume
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update(1)
        self.end = time.perf_counter()  # of training, before the validation

    def on_epoch_end(self, epoch, logs):
        logs |= {"seconds": self.end - self.start, "learning_rate": float(self.model.optimizer.learning_rate)}
        refuse_infinite(logs["loss"], "training", epoch)


@contextlib.contextmanager
def progress(label: str, checkpoint: Checkpoint | None = None) -> Iterator[list[keras.callbacks.Callback]]:
    """The callbacks of a training, for the time that it takes: its bar, and its checkpoint if there is one.

    Raises Stopped at Ctrl-C, in one line, and InputError where a parameter is not what it was.
    """
    profiles.current()
    bar = Progress(label)
    try:
        yield [bar, *([checkpoint] if checkpoint else [])]
    except KeyboardInterrupt:
        done, saved = (len(checkpoint.rows), checkpoint.saved) if checkpoint else (bar.epoch, 0)
        raise Stopped(done + 1, (bar.params or {}).get("epochs", 1), saved) from None
    finally:
        if bar.bar is not None:
            bar.bar.close()


class Checkpoint(keras.callbacks.Callback):
    """The last epoch in one file: weights, optimizer and the history up to it; it gets its name when it is whole.

    (Keras's BackupAndRestore could not resume after 3 of 60 kills, or 11 of 20 without its second checkpoint; its
    CSVLogger wrote epochs twice.)
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.rows, self.saved, self.resumed = path, [], 0, False

    def load(self, model: keras.Model, epochs: int) -> int:
        """Carry on from the file, if there is one; returns how many of the epochs are done."""
        if self.path.exists():
            model.optimizer.build(model.trainable_variables)
            try:
                with h5py.File(self.path) as file:
                    self.rows, self.resumed = json.loads(file.attrs["history"]), True
                model.load_weights(self.path)
            except (OSError, ValueError, KeyError) as error:
                reason = first_line(error)[:90]
                raise InputError(
                    f"{relative(self.path)} cannot be read ({reason}). Delete it to start afresh."
                ) from None
            done = f"{len(self.rows)} of {count(epochs, 'epoch')}"
            print(f"Resumed: {done} are done. To start afresh, delete\n{relative(self.path)}")
        self.saved = len(self.rows)
        return self.saved

    def on_epoch_end(self, epoch, logs):
        self.rows.append({"epoch": epoch} | logs)
        try:
            with replacing(self.path, ending=".weights.h5") as part:
                self.model.save_weights(part)
                with h5py.File(part, "a") as file:
                    file.attrs["history"] = json.dumps(self.rows)
            self.saved = len(self.rows)
        except OSError as error:
            print(f"\nEpoch {epoch + 1} was not saved ({first_line(error)}); training goes on without it.")


def checkpoint(name: str, model: keras.Model, settings: object) -> Checkpoint:
    """In runs/checkpoints/<name>-<hash>.weights.h5: another model or other settings have another file.

    The notebook's training begins here: what it has of an earlier one is dropped.
    """
    profiles.current()
    cells.drop(*cells.TRAINED)
    digest = zlib.crc32(repr((settings, architecture(model))).encode())
    return Checkpoint(REPOSITORY / "runs" / "checkpoints" / f"{name}-{digest:08x}.weights.h5")


def architecture(model: keras.Model) -> str:
    """Eight hexadecimal digits that change with the layers' configurations, but for names, seeds and types."""

    def configurations(layers: list) -> list:
        named = [configurations(one.layers) if hasattr(one, "layers") else one.get_config() for one in layers]
        return [c if isinstance(c, list) else {k: v for k, v in c.items() if k not in ("name", "seed", "dtype")}
                for c in named]  # fmt: skip

    return f"{zlib.crc32(repr(configurations(model.layers)).encode()):08x}"


def description(model: keras.Model) -> dict:
    """`architecture`, and in words: "layers", one a line."""
    layers = [f"{type(one).__name__} {one.output.shape[1:]}, {one.count_params()} parameters" for one in model.layers]
    return {"architecture": architecture(model), "layers": layers}


def history_table(rows: list[dict] | dict[str, list]) -> pd.DataFrame:
    """Keras's history with the column names of all notebooks, epochs counted from 1."""
    new = {"accuracy": "train_accuracy", "loss": "train_loss", "val_accuracy": "validation_accuracy",
           "val_loss": "validation_loss"}  # fmt: skip
    table = pd.DataFrame(rows)
    return table.rename(columns=new).assign(epoch=table["epoch"] + 1)


def packed_weights(model: keras.Model) -> bytes:
    """The model's weights as float16 safetensors, each named after its place in the model: "3.kernel"."""
    return weights.packed_arrays({name: keras.ops.convert_to_numpy(w) for name, w in _named(model).items()})


def load_weights(model: keras.Model, path: Path) -> None:
    """Put a file of `packed_weights` into a model of the same architecture; InputError if it is another."""
    arrays, named = load_file(path), _named(model)  # nothing in the file is executed
    if {name: array.shape for name, array in arrays.items()} != {name: tuple(w.shape) for name, w in named.items()}:
        raise InputError(f"{relative(path)} does not fit this model: other layers or other shapes.")
    for name, weight in named.items():
        weight.assign(arrays[name])


def answering(path: Path, temperature: float = 1.0) -> tuple[Callable, keras.Model]:
    """What `predict` asks of the baseline with these weights, and the model that gives logits and features.

    The first: images (n, 32, 32, 3) uint8 -> logits over the temperature (n, 10), lengths of the features (n,).
    """
    from helpers import keras_models

    model = keras_models.baseline()
    load_weights(model, path)
    both = keras.Model(model.inputs[0], [model.layers[-1].output, model.layers[-2].output])

    def answer(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = [both(images[k : k + 250], training=False) for k in range(0, len(images), 250)]
        logits, features = (np.concatenate([keras.ops.convert_to_numpy(p) for p in part]) for part in zip(*parts))
        return logits / np.float32(temperature), np.linalg.norm(features, axis=1)

    return answer, both


def _named(model: keras.Model) -> dict:
    return {f"{k}.{weight.name}": weight for k, weight in enumerate(model.weights)}


def forward_flops(model: keras.Model) -> int:
    """Floating-point operations of one image's forward pass, convolutions and products (2 per multiply-add)."""
    return int(sum(
        2 * np.prod(layer.kernel.shape) * (np.prod(layer.output.shape[1:3]) if len(layer.kernel.shape) == 4 else 1)
        for layer in model.layers if hasattr(layer, "kernel")
    ))  # fmt: skip
