"""The page under pressure: pictures that are none, and many people at once.

    python -m benchmarks.page [--quick] [--write]

It starts the page, sends it hostile uploads one after the other (cut files, altered bytes, bombs, other types), then as
many good pictures at once as there are clients, and looks whether the next good picture is answered, how long each
took, and how much more memory the page holds than before.
"""

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import uuid
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import requests
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.report import options, publish
from helpers.files import REPOSITORY

PATIENCE = 120  # seconds


def bomb(path: Path, side: int) -> Path:
    """A PNG that says it has side×side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    rows = chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b""))
    return path


def encoded(kind: str, **named: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(load_sample_images().images[0]).resize((320, 213)).save(buffer, kind, **named)
    return buffer.getvalue()


def scans(number: int) -> bytes:
    """A small JPEG that takes long to decode: so many passes over its pixels."""
    content = encoded("JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * number + content[-2:]


def hostile(number: int, random: np.random.Generator, folder) -> tuple[str, bytes]:
    """A file that is no good picture: its name and its content."""
    kind = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")[number % 6]
    content, name = bytearray(encoded(kind)), f"{number}.{kind.lower()}"
    match number // 6 % 5:
        case 0:
            content = content[: int(random.integers(0, len(content)))]
        case 1:
            content[: int(random.integers(1, 40))] = random.bytes(40)
        case 2:
            for place in random.integers(0, len(content), 50):
                content[place] = int(random.integers(0, 256))
        case 3:
            content = bomb(folder / "bomb.png", int(random.integers(8_000, 60_000))).read_bytes()
        case 4 if kind == "JPEG":
            content = scans(1_000)
        case 4:
            content = random.choice([b"", b"%PDF-1.7", b"<svg/>", b"GIF89a", b"MZ", random.bytes(10_000)])
    return name, bytes(content)


class Client:
    """A browser's requests without the browser."""

    def __init__(self, address: str):
        self.address, self.web = f"{address}/gradio_api", requests.Session()
        config = self.web.get(f"{address}/config", timeout=PATIENCE).json()
        labels = {one["id"]: one["props"].get("label") or "" for one in config["components"]}
        self.functions = {labels[one["targets"][0][0]].partition(":")[0]: one["id"] for one in config["dependencies"]}

    def run(self, label: str, *given: object) -> list | None:
        """What the function of the component with this label first puts out; None where that is nothing."""
        me = uuid.uuid4().hex
        work = {"data": given, "fn_index": self.functions[label], "session_hash": me}
        self.web.post(f"{self.address}/queue/join", json=work, timeout=PATIENCE).raise_for_status()
        stream = self.web.get(f"{self.address}/queue/data", params={"session_hash": me}, stream=True, timeout=PATIENCE)
        with stream:
            for line in stream.iter_lines():
                message = json.loads(line[5:]) if line.startswith(b"data:") else {}
                if "output" in message:
                    return message["output"].get("data")
        return None

    def ask(self, name: str, content: bytes, model: str = "custom_cnn") -> str:
        """What the page answers, as HTML, or why the upload itself was refused."""
        sent = self.web.post(f"{self.address}/upload", files={"files": (name, content)}, timeout=PATIENCE)
        if sent.status_code != 200:
            return f"refused: {sent.status_code}"
        found = self.run("A picture", {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}, model, "crop")
        return str(found[2] or "refused: an error") if found else "lost"


def main() -> None:
    arguments = options("page", __doc__).parse_args()
    bad, clients = (30, 10) if arguments.quick else (1_000, 200)
    folder, uploads, random = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp()), np.random.default_rng(0)
    env = os.environ | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(uploads)}
    page = subprocess.Popen([sys.executable, "-m", "further.page", "--no-browser"], env=env, cwd=REPOSITORY,
                            stdout=subprocess.PIPE, text=True)  # fmt: skip
    address = re.search(r"http://[\d.:]+", page.stdout.readline())[0]
    good, process = encoded("JPEG"), psutil.Process(page.pid)

    def timed(_: int) -> tuple[bool, float]:
        client, began = Client(address), time.perf_counter()
        return "bars" in client.ask("good.jpg", good), time.perf_counter() - began

    try:
        client = Client(address)
        for _ in range(20):
            assert "bars" in client.ask("good.jpg", good)
        memory, said, slowest = process.memory_info().rss, [], 0.0
        for number in range(bad):
            began = time.perf_counter()
            said.append(client.ask(*hostile(number, random, folder)))
            slowest = max(slowest, time.perf_counter() - began)
        answered = "bars" in client.ask("good.jpg", good)
        alone = sorted(timed(0)[1] for _ in range(5 if arguments.quick else 50))
        with ThreadPoolExecutor(clients) as pool:
            found = list(pool.map(timed, range(clients)))
        more = (process.memory_info().rss - memory) / 1e6
        kept = sum(path.is_file() for path in uploads.rglob("*"))
    finally:
        page.terminate()
    waits = sorted(one[1] for one in found)
    kinds = {"said what is wrong": sum("alert" in text for text in said), "answered": sum("bars" in t for t in said),
             "refused": sum("refused" in text for text in said), "lost": said.count("lost")}  # fmt: skip
    table = [
        {"what": f"{bad:,} hostile uploads", "outcome": ", ".join(f"{n:,} {k}" for k, n in kinds.items() if n)},
        {"what": "the slowest of them", "outcome": f"{slowest:.1f} s"},
        {"what": "the next good picture", "outcome": "answered" if answered else "NOT ANSWERED"},
        {"what": "one client, p50 and p99", "outcome": f"{alone[len(alone) // 2]:.2f} and {alone[-1]:.2f} s"},
        {"what": f"{clients} clients at once", "outcome": f"{sum(one[0] for one in found)} answered; "
         f"p50 {waits[len(waits) // 2]:.1f}, p99 {waits[int(0.99 * len(waits))]:.1f} s"},
        {"what": "more memory than before", "outcome": f"{more:.0f} MB"},
        {"what": "files left behind", "outcome": str(kept)},
    ]  # fmt: skip
    measured = [{"kinds": kinds, "slowest": slowest, "alone": alone, "together": waits, "more_megabytes": more,
                 "kept": kept}]  # fmt: skip
    note = "The custom CNN, with where it looked; an altered picture that can still be read is answered as one."
    publish("page", table, measured, note, ["gradio", "torch", "captum"], script="page", write=arguments.write)


if __name__ == "__main__":
    main()
