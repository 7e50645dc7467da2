"""The page: a picture from a file, the clipboard or the camera, and what a trained network sees in it.

python run.py demo                 # on this machine only, and opens the browser
python run.py demo --host 0.0.0.0 # for everybody who can reach this machine

The same file is the app of a Hugging Face Space (further/space.md).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import copy
import ctypes
import functools
import html
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a Space starts this file alone
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_SHARE": "False", "HF_HUB_OFFLINE": "1"}
os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="cifar10-page-")  # not a folder with anything else in it

import gradio as gr
import numpy as np
import skimage.data
import torch
from PIL import Image
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from further.attention import lit
from helpers import data, predict, records
from helpers.files import InputError
from helpers.pretrained import Pretrained

UPLOADS = Path(os.environ["GRADIO_TEMP_DIR"]).resolve()
PATIENCE, LARGEST_FRAME = 30, 2_000_000  # seconds for an answer, bytes of a camera's picture
SHOWN = 360  # pixels of a picture's longer side on the page
EXAMPLES = {"a cat": "chelsea", "a horse": "horse", "a rocket": "rocket", "a cup": "coffee"}  # free, in scikit-image
OPEN = ("config", "assets/", "static/", "theme.css", "queue/", "upload", "file=", "heartbeat/", "stream/",
        "startup-events", "manifest.json", "favicon.ico")  # the routes of Gradio's that this page needs  # fmt: skip
CSS = """
footer {display: none !important} .gradio-container {max-width: 60rem !important; margin: auto !important}
.answer {display: flex; flex-wrap: wrap; gap: 1rem} .answer figure {margin: 0; flex: 1 1 4.5rem; max-width: 16rem}
.answer img {width: 100%; border-radius: .4rem} .answer .pixels {image-rendering: pixelated}
.answer figcaption {font-size: .85rem} .answer .bars {flex: 1 1 100%; border: 0}
.answer .bars :is(tr, td, th) {padding: .1rem .4rem; font-weight: inherit; border: 0; text-align: left}
.answer .bars .first :is(td, th) {font-weight: bold} .bars .bar {width: 75%}
.bars .bar div {background: #0072B2; height: 1rem; border-radius: .2rem}
.notice {flex: 1 1 100%; border-left: .3rem solid #D55E00; padding: .2rem .6rem}
"""
ABOUT = """# What does the network see?
Trained on the 50,000 small photographs that CIFAR-10 has for it, it knows ten kinds of things: {}.
Your pictures stay on {}; their files are deleted with the answer."""
pool = ThreadPoolExecutor(4)
torch.set_num_threads(1)  # several answers side by side, not one on all cores
with contextlib.suppress(OSError, AttributeError):  # glibc: two pools of memory for all threads, not one for each
    ctypes.CDLL("libc.so.6").mallopt(-8, 2)  # M_ARENA_MAX


@functools.cache
def classifier(name: str) -> predict.Classifier:
    return predict.load(name)


@functools.cache
def watched(name: str) -> torch.nn.Module:
    """The same network once more: while captum watches a layer, other answers must not pass through it."""
    return copy.deepcopy(classifier(name).module)


def models() -> list[tuple[str, str]]:
    """Each model at hand, in words with its accuracy, on spoiled images, too; and its name."""
    folder, found = records.REPOSITORY / "results", []
    full = [r for r in records.load(folder) if (r["profile"], r["seed"]) == ("full", 0)]  # whose weights these are
    known = {r["model"]: r["test"]["accuracy"] for r in full}
    spoiled = records.largest(records.load(folder / "trust")).get("spoiled", {})
    for name in predict.at_hand():
        said = [f"{known[name]:.1%} right"] if name in known else []
        said += [f"{spoiled[name]:.1%} of spoiled pictures"] if name in spoiled else []
        found.append((": ".join(filter(None, [records.title(name), ", ".join(said)])), name))
    return found


def shown(image: Image.Image | np.ndarray, text: str, kind: str = "PNG") -> str:
    """A picture as HTML that holds it, so that no file is needed."""
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    style = "pixels" * (image.size == (32, 32))
    return (f'<figure><img class="{style}" alt="{text}" src="data:image/{kind.lower()};base64,{encoded}">'
            f"<figcaption>{text}</figcaption></figure>")  # fmt: skip


def look(picture: object) -> dict:
    """What is kept of a picture while the page is open: the network's pixels both ways, and a small copy to show."""
    image = predict.opened(picture)
    seen = {fit: predict.reduced(image, fit) for fit in ("crop", "pad")}
    image.thumbnail((SHOWN, SHOWN))
    return seen | {"shown": shown(image, "Your picture", "JPEG")}


@functools.lru_cache(maxsize=64)
def look_at(path: str) -> dict:
    """`look` at an uploaded file. Gradio names files after their content: twins are one file, and are read once."""
    return look(Path(path))


async def unmoved(path: str) -> str:
    """In the place of what Gradio does first with what a client names: a copy of the file, a download."""
    return path


def received(payload: object) -> str | None:
    """The path of what was uploaded here. (Gradio would take any other that a client names, and it is deleted then.)"""
    path = Path(getattr(payload, "path", None) or "").resolve()
    return str(path) if UPLOADS in path.parents else None


def frame(payload: object) -> str:
    """A picture of the camera, in base64."""
    return (getattr(payload, "url", None) or "").partition(";base64,")[2]


def answer(seen: dict, name: str, fit: str) -> str:
    """The answer to what `look` gave, as HTML; for the camera ("shown" is missing) without where the network looked."""
    model, pixels = classifier(name), seen[fit]
    row = model.table([pixels]).iloc[0]
    shares = row[list(data.CLASS_NAMES)].astype(float).sort_values(ascending=False)
    parts = [seen.get("shown", ""), shown(pixels, "What the network sees: 32×32 pixels")]
    if "shown" in seen and isinstance(model.module, Pretrained):
        bright = lit(watched(name), pixels, data.CLASS_NAMES.index(shares.index[0]))
        parts.append(shown(bright, f"Yellow: where it looked for “{shares.index[0]}”"))
    if row[predict.UNLIKE]:
        parts.append('<p class="notice"><b>None of the ten, perhaps:</b> this is unlike the pictures that the '
                     "network was trained on, and its answer may mean nothing.</p>")  # fmt: skip
    rows = "".join(f'<tr class="{"first" * (not k)}"><th scope="row">{label}</th><td>{share:.1%}</td><td class="bar">'
                   f'<div style="width: {100 * share:.1f}%"></div></td></tr>'
                   for k, (label, share) in enumerate(shares.items()))  # fmt: skip
    return f'<div class="answer" aria-live="polite">{"".join(parts)}<table class="bars">{rows}</table></div>'


def safely(work: Callable, *asked: object) -> tuple[object, str]:
    """What the work gives and "", or None and why there is nothing, as HTML, within the time."""
    try:
        return pool.submit(work, *asked).result(PATIENCE), ""
    except InputError as error:
        said = str(error)
    except TimeoutError:
        said = f"this picture took more than {PATIENCE} seconds."
    except Exception:  # what it was is nobody's business
        said = "this picture could not be answered."
    return None, f'<div class="answer"><p class="notice" role="alert">{html.escape(said)}</p></div>'


def respond(seen: dict | None, name: str, fit: str) -> str:
    """The answer to the picture that is there, or why there is none."""
    if seen is None:
        return gr.skip()
    found, problem = safely(answer, seen, name, fit)
    return found or problem


def opened(work: Callable, picture: object, name: str, fit: str) -> tuple[dict | None, str]:
    seen, problem = safely(work, picture)
    return seen, problem or respond(seen, name, fit)


def uploaded(path: str | None, name: str, fit: str) -> tuple:
    if path is None:
        return None, gr.skip(), gr.skip()
    for _ in range(2):
        seen, said = opened(look_at, path, name, fit)
        if seen or Path(path).exists():
            break  # else a twin's answer has taken the file away, and is known now
    Path(path).unlink(missing_ok=True)
    return None, seen, said


def glance(encoded: str, name: str, fit: str) -> str:
    """The answer to a picture of the camera."""
    content = base64.b64decode(encoded)
    if len(content) > LARGEST_FRAME or content.count(b"\xff\xda") > predict.MOST_SCANS:
        raise InputError("this is no picture of a camera: it is too large, or takes too long to decode.")
    with Image.open(io.BytesIO(content), formats=predict.FORMATS) as image:
        return answer({fit: predict.pixels(image, fit)}, name, fit)


def streamed(encoded: str, name: str, fit: str) -> str:
    found, problem = safely(glance, encoded, name, fit) if encoded else (gr.skip(), "")
    return found or problem


def build(place: str = "this machine") -> gr.Blocks:
    """The page; place: where pictures go, in words."""
    with gr.Blocks(title="CIFAR-10: look at your pictures", analytics_enabled=False, delete_cache=(60, 60)) as page:
        gr.Markdown(ABOUT.format(", ".join(data.CLASS_NAMES[:-1]) + f" and {data.CLASS_NAMES[-1]}", place))
        choices = models()
        with gr.Row():
            model = gr.Radio(choices, value=choices[0][1], label="Model")
            fit = gr.Radio([("the middle", "crop"), ("all of it", "pad")], value="crop", label="Part of the picture")
        with gr.Tab("Picture"):
            upload = gr.Image(sources=["upload", "clipboard"], label="A picture: drop, paste or choose", height=180)
            upload.async_move_resource_to_block_cache, upload.preprocess = unmoved, received  # `predict` reads it
            with gr.Row():
                buttons = [gr.Button(f"Try {name}", size="sm") for name in EXAMPLES]
            found = gr.HTML(label="Answer")
        with gr.Tab("Camera"):
            small = gr.WebcamOptions(constraints={"video": {"width": 320, "height": 240}})
            camera = gr.Image(sources=["webcam"], streaming=True, webcam_options=small, label="Camera", height=300)
            camera.async_move_resource_to_block_cache, camera.preprocess = unmoved, frame
            live = gr.HTML(label="Answer")
        busy = {"api_visibility": "private", "show_progress": "hidden"}
        seen = gr.State(None, time_to_live=3600)
        upload.upload(uploaded, [upload, model, fit], [upload, seen, found], **busy)
        for button, picture in zip(buttons, EXAMPLES.values()):
            example = functools.partial(opened, look, getattr(skimage.data, picture)())
            button.click(example, [model, fit], [seen, found], **busy)
        for choice in (model, fit):
            choice.change(respond, [seen, model, fit], found, **busy)
        busy["concurrency_limit"] = None  # a stream holds its place while its camera is open
        camera.stream(streamed, [camera, model, fit], live, stream_every=0.05, time_limit=3600, **busy)
    page.queue(default_concurrency_limit=2, max_size=1000)
    return page


class Guard:
    """Closes Gradio's routes that this page does not use, and refuses what is too large before it is read."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            path = scope["path"].lstrip("/").removeprefix("gradio_api/")
            length = dict(scope["headers"]).get(b"content-length", b"0" if scope["method"] in ("GET", "HEAD") else b"")
            if path and not path.startswith(OPEN):
                return await PlainTextResponse("There is nothing here.", 404)(scope, receive, send)
            if not length.isdigit() or int(length) > predict.LARGEST_FILE + 1_000_000:
                limit = f"expected at most {predict.LARGEST_FILE // 1_000_000} MB, and to be told how many beforehand."
                return await PlainTextResponse(f"Too large: {limit}", 413)(scope, receive, send)
        await self.app(scope, receive, send)


def settings(**more: object) -> dict:
    """How Gradio is to serve the page."""
    guarded = {"middleware": [Middleware(Guard)], "docs_url": None, "redoc_url": None}
    return {"css": CSS, "share": False, "show_error": False, "max_file_size": predict.LARGEST_FILE, "quiet": True,
            "state_session_capacity": 300, "ssr_mode": False, "app_kwargs": guarded, **more}  # fmt: skip


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser("python run.py demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: for everybody who can reach this machine")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--no-browser", action="store_true", help="only say where the page is")
    chosen = parser.parse_args(words)
    here = chosen.host in ("127.0.0.1", "localhost")
    if not here:
        print(f"--host {chosen.host}: whoever can reach this machine can use the page, without a password. (Browsers "
              "open a camera on this machine only, or over https.)")  # fmt: skip
    page = build("this machine" if here else "the machine that runs this page")
    _, address, _ = page.launch(**settings(server_name=chosen.host, server_port=chosen.port, prevent_thread_lock=True,
                                           inbrowser=here and not chosen.no_browser))  # fmt: skip
    print(f"The page is at {address} (Ctrl-C ends it).", flush=True)
    try:
        page.block_thread()
    finally:
        shutil.rmtree(UPLOADS, ignore_errors=True)


if __name__ == "__main__":
    if "SPACE_ID" in os.environ:
        build("the machine that runs this page").launch(**settings())
    else:
        main(sys.argv[1:])
