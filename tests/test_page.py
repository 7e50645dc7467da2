"""The page in a real Chromium, as a person uses it, and what it does with what is no picture."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from base64 import b64encode
from pathlib import Path

import pytest
import requests
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.page import Client, bomb, encoded, scans
from helpers import data, predict
from helpers.files import REPOSITORY

pytest.importorskip("gradio", reason="needs the page's packages: pip install -r further/requirements.txt")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FAKE_CAMERA = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
WAIT = 120_000  # milliseconds after which the page is taken to hang


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The address of a running page, and the folder for its temporary files."""
    folder = tmp_path_factory.mktemp("page")
    env = os.environ | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(folder)}
    command = [sys.executable, "-m", "further.page", "--no-browser"]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True)  # fmt: skip
    said = process.stdout.readline()
    found = re.match(r"The page is at (http://127\.0\.0\.1:\d+)/", said)
    yield found[1] if found else pytest.fail(said + process.communicate()[0]), folder
    process.terminate()
    assert process.communicate(timeout=60)[0] == "", "nothing is printed while it answers, and nothing when it ends"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=FAKE_CAMERA)
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser, page):
    """The page, open at a desktop's width; what its console calls an error fails the test."""
    context = browser.new_context(viewport={"width": 1100, "height": 1000})
    context.set_default_timeout(WAIT)
    context.grant_permissions(["clipboard-read", "clipboard-write", "camera"])
    tab, errors = context.new_page(), []
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.goto(page[0])
    tab.get_by_label("Custom CNN:").check()
    yield tab
    context.close()
    assert not errors


@pytest.fixture
def photograph(tmp_path) -> Path:
    path = tmp_path / "temple.png"
    Image.fromarray(load_sample_images().images[0]).save(path)
    return path


def answer(tab) -> dict[str, float]:
    """The bars that are on the screen."""
    tab.locator(".bars:visible tr").first.wait_for()
    rows = tab.evaluate("""[...document.querySelectorAll(".bars tr")].filter(row => row.offsetParent).map(
        row => [row.cells[0].innerText, row.cells[1].innerText])""")
    return {label: float(share.strip(" %")) / 100 for label, share in rows}


def expected(path: Path, model: str = "custom_cnn", fit: str = "crop") -> dict[str, float]:
    return predict.load(model)(path, fit).iloc[0][list(data.CLASS_NAMES)].to_dict()


def until(tab, wanted: dict[str, float]) -> None:
    """Wait until the page gives this answer, to what it shows of it."""
    deadline = time.monotonic() + WAIT / 1000
    while not (found := answer(tab)) or any(abs(found[label] - share) > 1e-3 for label, share in wanted.items()):
        assert time.monotonic() < deadline, f"{found}, expected {wanted}"
        tab.wait_for_timeout(100)


def left(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_uploaded_picture_is_answered_as_in_python_for_each_model_and_fit_and_not_kept(tab, page, photograph):
    tab.set_input_files("input[type=file]", photograph)
    until(tab, expected(photograph))
    assert tab.locator(".answer img:visible").count() == 3
    assert all(tab.locator(".answer img").evaluate_all("all => all.map(one => one.alt && one.naturalWidth > 0)"))
    tab.get_by_label("all of it").check()
    until(tab, expected(photograph, fit="pad"))
    for name in predict.at_hand():
        tab.locator(f"input[type=radio][value={name}]").check()
        until(tab, expected(photograph, name, "pad"))
    assert left(page[1]) == []


def test_pasted_picture_and_example_are_answered(tab, page, photograph):
    tab.evaluate("""async address => {
        const blob = await (await fetch(address)).blob();
        await navigator.clipboard.write([new ClipboardItem({"image/png": blob})]);
    }""", "data:image/png;base64," + b64encode(photograph.read_bytes()).decode())  # fmt: skip
    tab.get_by_label("clipboard").click()
    until(tab, expected(photograph))
    tab.get_by_role("button", name="Try a horse").focus()
    tab.keyboard.press("Enter")
    tab.wait_for_function("document.querySelector('.bars .first').innerText.startsWith('horse')")
    assert left(page[1]) == []


def test_what_is_no_picture_is_said_and_the_next_one_is_answered(tab, page, photograph, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    for path, said in ((tmp_path / "text.jpg", "is no picture"), (bomb(tmp_path / "bomb.png", 50_000), "bomb.png")):
        tab.set_input_files("input[type=file]", path)
        tab.wait_for_function("said => document.querySelector('[role=alert]')?.innerText.includes(said)", arg=said)
        text = tab.inner_text("[role=alert]")
        assert str(page[1]) not in text and "Traceback" not in text
    tab.set_input_files("input[type=file]", photograph)
    until(tab, expected(photograph))
    assert left(page[1]) == []


def test_camera_is_answered_again_and_again(tab):
    tab.get_by_role("tab", name="Camera").click()
    tab.get_by_role("button", name="Click to Access Webcam").click()
    tab.get_by_label("capture photo").click()
    assert len(answer(tab)) == 10
    shown, deadline = set(), time.monotonic() + WAIT / 1000
    while len(shown) < 10:
        assert time.monotonic() < deadline
        shown.add(tab.locator(".answer img:visible").first.get_attribute("src"))
        tab.wait_for_timeout(20)


def test_page_fits_a_phone_in_the_dark(browser, page):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    tab = context.new_page()
    tab.goto(page[0])
    tab.get_by_role("button", name="Try a cat").click()
    assert len(answer(tab)) == 10
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    ink, paper = (tab.evaluate(f"getComputedStyle(document.querySelector('{place}')).{what}")
                  for place, what in ((".bars td", "color"), ("body", "backgroundColor")))  # fmt: skip
    assert sum(map(int, re.findall(r"\d+", ink)[:3])) > 400 > sum(map(int, re.findall(r"\d+", paper)[:3]))
    context.close()


CLOSED = """gradio_api/proxy=http://127.0.0.1/ gradio_api/file=/etc/hostname gradio_api/file=README.md docs openapi.json
    monitoring gradio_api/info gradio_api/run-history/records gradio_api/app_id token gradio_api/deep_link"""


@pytest.mark.parametrize("path", CLOSED.split())
def test_routes_that_the_page_does_not_need_are_closed(page, path):
    assert requests.get(f"{page[0]}/{path}", timeout=60).status_code in (403, 404)


def test_no_work_is_done_past_the_queue(page):
    for path in ("run/uploaded", "api/uploaded", "call/uploaded"):
        assert requests.post(f"{page[0]}/gradio_api/{path}", json={"data": []}, timeout=60).status_code == 404


def test_too_large_a_request_is_refused_also_without_its_length(page):
    content, address = bytes(predict.LARGEST_FILE + 2_000_000), f"{page[0]}/gradio_api/upload"
    for body in (content, iter([content])):
        with contextlib.suppress(requests.ConnectionError):  # when it did not wait for all of it
            assert requests.post(address, data=body, timeout=60).status_code == 413


def test_client_cannot_name_a_file_that_it_did_not_send(page, photograph):
    client, file = Client(page[0]), {"_type": "gradio.FileData"}
    text = photograph.with_name("secret.txt")
    text.write_text("secret")
    for path in (photograph, text):
        for payload in ({"path": str(path)}, {"path": f"http://../{path}", "meta": file}, {"url": path.as_uri()},
                        {"path": f"{page[1]}/x/../..{path}"}):  # fmt: skip
            for label in ("A picture", "Camera"):
                said = str(client.run(label, payload, "custom_cnn", "crop"))
                assert "figure" not in said and "picture" not in said and "secret" not in said
    assert photograph.exists() and text.exists()


def test_open_cameras_leave_room_for_others(page):
    frame = {"url": "data:image/jpeg;base64," + b64encode(encoded("JPEG")).decode()}
    for _ in range(4):  # each goes without a word
        assert "bars" in Client(page[0]).run("Camera", frame, "custom_cnn", "crop")[0]
    for content, said in ((b"no picture", "could not be answered"), (scans(200), "takes too long to decode")):
        bad = {"url": "data:image/jpeg;base64," + b64encode(content).decode()}
        assert said in Client(page[0]).run("Camera", bad, "custom_cnn", "crop")[0]


def test_configuration_names_no_folder_of_this_machine(page):
    config = requests.get(f"{page[0]}/config", timeout=60).json()
    assert str(REPOSITORY) not in str(config) and config["analytics_enabled"] is False
