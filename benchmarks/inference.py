"""What an answer costs each model: milliseconds for one picture, and pictures a second for many.

    python -m benchmarks.inference [--quick] [--write]

From uint8 pixels to logits, as a person would ask: by training.predict, and for Keras by predict_on_batch, which is
compiled. The networks have the full profile's size, first weights, and the device and precision that their notebooks
choose here. The models take turns; Keras has a process of its own.
"""

import functools
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from statistics import median

import numpy as np
import torch

from benchmarks.report import options, publish, spread, take_turns
from helpers import devices, training
from helpers.batches import Batches
from helpers.pretrained import NETWORKS
from helpers.records import MODELS


@functools.cache
def network(model: str) -> tuple:
    """A function from uint8 images (n, 32, 32, 3) to logits (n, 10), and its precision."""
    if model == "keras_baseline":
        from helpers import keras_runs  # takes seconds
        from helpers.keras_models import baseline

        precision, _ = keras_runs.choose_precision(keras_runs.HAS_GPU)
        return baseline().predict_on_batch, precision.removeprefix("mixed_")
    device = devices.choose_device("auto")
    precision = devices.choose_precision(device)
    made = NETWORKS[model]()
    made.to(device, memory_format=torch.channels_last)

    def answer(images: np.ndarray) -> np.ndarray:
        batches = Batches(images, np.zeros(len(images)), batch_size=len(images), device=device)
        return training.predict(made, batches, precision, progress=False)[0]

    return answer, devices.precision_name(precision)


def measure(model: str, count: int, tries: int) -> tuple[float, str]:
    """Median seconds of the answer for `count` pictures, after two that do not count; and the precision."""
    (answer, precision), seconds = network(model), []
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    for _ in range(tries + 2):
        began = time.perf_counter()
        assert answer(images).shape == (count, 10)
        seconds.append(time.perf_counter() - began)
    return median(seconds[2:]), precision


def main() -> None:
    arguments = options("inference", __doc__).parse_args()
    repeats, tries, many = (1, 1, 10) if arguments.quick else (5, 100, 500)
    process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def turn(model: str) -> tuple[float, float, str]:
        ask = (lambda *asked: process.submit(measure, *asked).result()) if model == "keras_baseline" else measure
        (one, precision), (all_, _) = ask(model, 1, tries), ask(model, many, min(tries, 3))
        return 1e3 * one, many / all_, precision

    rows, table = [], []
    for model, found in take_turns({name: functools.partial(turn, name) for name in MODELS}, repeats).items():
        ones, rates, (precision, *_) = zip(*found)
        rows.append({"model": model, "milliseconds": median(ones), "images_per_second": median(rates),
                     "precision": precision, "all": found})  # fmt: skip
        table.append({"model": MODELS[model], "one picture, ms": f"{median(ones):.1f}", "range": spread(ones, 1),
                      f"pictures/s, {many} at once": f"{median(rates):,.0f}", "their range": spread(rates),
                      "precision": precision})  # fmt: skip
    note = (f"From uint8 pixels to logits; medians of {repeats} turns, with {tries} answers for one picture in each "
            f"({devices.device_name(devices.choose_device())}).")  # fmt: skip
    publish("inference", table, rows, note, ["torch", "tensorflow", "keras"], script="inference", write=arguments.write)


if __name__ == "__main__":
    main()
