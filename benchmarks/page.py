"""The page under pressure: pictures that are none, and many people at once.

    python -m benchmarks.page [--quick] [--write]

It starts the page, sends it hostile uploads one after the other (cut files, altered bytes, bombs, other types), then as
many good pictures at once as there are clients, and looks whether the next good picture is answered, how long each
took, and how much more memory the page holds than before. Then a browser (Chromium, by playwright) shows it a camera
whose picture gets brighter from frame to frame, which tells how old the picture is that an answer belongs to.
"""

import io
import json
import os
import re
import shutil
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


FRAMES, RATE = 100, 20  # of the camera: a round of grey from dark to bright, and frames a second
WATCH = """seconds => new Promise(done => {
    const seen = [], began = performance.now();
    let last = "";
    const shade = picture => {
        const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1}).getContext("2d");
        canvas.drawImage(picture, 0, 0, 1, 1);
        return canvas.getImageData(0, 0, 1, 1).data[0];
    };
    const look = () => {
        const image = [...document.querySelectorAll(".answer img")].find(one => one.offsetParent && one.complete);
        if (image && image.src !== last) {
            last = image.src;
            seen.push([shade(document.querySelector("video")), shade(image)]);
        }
        performance.now() - began < 1000 * seconds ? setTimeout(look, 5) : done(seen);
    };
    look();
})"""


def camera(address: str, folder: Path, seconds: int) -> tuple[float, list[float]]:
    """Answers a second of the custom CNN, and by how many seconds each lags behind what the camera shows."""
    from playwright.sync_api import sync_playwright

    grey = (np.full(320 * 240 * 3 // 2, 128, np.uint8) for _ in range(FRAMES))
    with open(folder / "camera.y4m", "wb") as file:
        file.write(f"YUV4MPEG2 W320 H240 F{RATE}:1 Ip A1:1 C420\n".encode())
        for number, frame in enumerate(grey):
            frame[: 320 * 240] = 20 + 2 * number
            file.write(b"FRAME\n" + frame.tobytes())
    words = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
             f"--use-file-for-fake-video-capture={file.name}"]  # fmt: skip
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=shutil.which("chromium"), args=words)
        tab = chromium.new_context(permissions=["camera"]).new_page()
        tab.goto(address)
        tab.get_by_label("Custom CNN:").check()
        tab.get_by_role("tab", name="Camera").click()
        tab.get_by_role("button", name="Click to Access Webcam").click()
        tab.get_by_label("capture photo").click()
        tab.locator(".bars:visible tr").first.wait_for()
        tab.wait_for_timeout(2_000)
        seen = tab.evaluate(WATCH, seconds)
        chromium.close()
    step = 2 * 255 / 219  # of the shades that the browser makes of one frame and the next
    behind = [(now - then) / step % FRAMES for now, then in seen]
    return len(seen) / seconds, sorted(max(one if one < FRAMES - 2 else 0, 0) / RATE for one in behind)


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
        rate, lags = camera(address, folder, 5 if arguments.quick else 30)
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
        {"what": "the camera", "outcome": f"{rate:.0f} answers a second; {lags[len(lags) // 2]:.2f} s behind (median), "
         f"at most {lags[-1]:.2f} s"},
        {"what": "more memory than before", "outcome": f"{more:.0f} MB"},
        {"what": "files left behind", "outcome": str(kept)},
    ]  # fmt: skip
    measured = [{"kinds": kinds, "slowest": slowest, "alone": alone, "together": waits, "more_megabytes": more,
                 "camera": {"answers_per_second": rate, "seconds_behind": lags},
                 "kept": kept}]  # fmt: skip
    note = "The custom CNN, with where it looked; an altered picture that can still be read is answered as one."
    publish("page", table, measured, note, ["gradio", "torch", "captum"], script="page", write=arguments.write)


if __name__ == "__main__":
    main()
