"""`smpler view` and `smpler web` as a user meets them, in Debian's chromium; screenshots of all."""

import re
import shutil
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from smpler.utils.image import read_image
from smpler.utils.paths import ROOT, SAMPLES

pytestmark = pytest.mark.web

SCREENSHOTS = ROOT / "outputs" / "web"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
SECOND = 1000  # playwright counts milliseconds
PATIENCE = 240 * SECOND


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="make test-web installs playwright")
    if CHROMIUM is None:
        pytest.skip("There is no chromium here: apt-get install chromium.")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser):
    """A page that remembers where its requests went."""
    opened = browser.new_page(viewport={"width": 1280, "height": 1100})
    opened.set_default_timeout(PATIENCE)
    opened.hosts = set()
    opened.on("request", lambda request: opened.hosts.add(host_of(request.url)))
    yield opened
    opened.close()


def host_of(url: str) -> str:
    """Return whom a request goes to; the page's own data count as this computer."""
    here = "127.0.0.1"
    return here if url.startswith("data:") else urlsplit(url.removeprefix("blob:")).hostname or here


def served(*arguments) -> Iterator[str]:
    """Run a subcommand, yield its address, and end it as a user does."""
    command = [sys.executable, "-m", "smpler", *(str(argument) for argument in arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.readline()
    address = re.search(r"http://\S+", said)
    assert address, said
    yield address.group()
    process.terminate()
    process.wait(60)


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    yield from served("web", "--port", "7891", "--max_seconds", "3")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Results of two people in a photo, and of a walk."""
    folder = tmp_path_factory.mktemp("results")
    clip = write_clip(folder / "walk.avi")
    command = [sys.executable, "demo.py", "samples/im02.jpg", str(clip), "--device", "cpu"]
    command += ["--out_dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def view(results) -> Iterator[str]:
    yield from served("view", results, "--port", "8891")


def write_clip(path: Path) -> Path:
    """Write a second of a camera that moves past the woman of a sample photo."""
    photo = read_image(SAMPLES / "im01.png")
    height, width = (length // 2 * 2 - 40 for length in photo.shape[:2])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (width, height))
    for shift in range(0, 40, 4):
        writer.write(photo[shift : shift + height, shift : shift + width, ::-1].copy())
    writer.release()
    return path


def shot(page, name: str, part: str | None = None) -> np.ndarray:
    """Take a screenshot of the page, or of the first part that a selector finds."""
    path = SCREENSHOTS / f"{name}.png"
    (page if part is None else page.locator(part).first).screenshot(path=path)
    return read_image(path)


def wait_until(is_done: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_done():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.5)


def is_drawn(page, part: str) -> bool:
    """Say whether a part of the page shows more than its ground."""
    return shot(page, "waiting", part).std() > 5


def upload(page, path: Path, answer: str) -> str:
    """Drop a file on the page; return the words that then appear."""
    page.set_input_files("input[type=file]", path)
    words = page.locator(f"text=/{answer}/").first
    words.wait_for(timeout=PATIENCE)
    return words.inner_text()


def test_a_photos_people_are_shown_turned_and_downloaded(page, web, tmp_path):
    page.goto(web)
    upload(page, SAMPLES / "im02.jpg", "2 people")
    wait_until(lambda: is_drawn(page, "canvas"))
    before = shot(page, "web_photo", "canvas").astype(float)
    shot(page, "web_photo")
    box = page.locator("canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 150, y, steps=5)
    page.mouse.up()
    wait_until(lambda: np.abs(shot(page, "web_turned", "canvas") - before).mean() > 1)
    with page.expect_download() as download:
        page.locator("text=Download all results").first.click()
    download.value.save_as(tmp_path / "results.zip")
    names = zipfile.ZipFile(tmp_path / "results.zip").namelist()
    assert {"photo_out.png", "photo_scene.glb", "photo_0.npz", "photo_1.json"} <= set(names)
    assert page.hosts == {"127.0.0.1"}, page.hosts


def test_a_clips_people_are_shown_and_downloaded(page, web, tmp_path):
    page.goto(web)
    upload(page, write_clip(tmp_path / "walk.avi"), "Person 1, from 0.0 to 0.9 s")
    wait_until(lambda: is_drawn(page, "canvas"))
    shot(page, "web_clip")
    with page.expect_download() as download:
        page.locator("text=Download all results").first.click()
    download.value.save_as(tmp_path / "results.zip")
    names = zipfile.ZipFile(tmp_path / "results.zip").namelist()
    assert {"clip.glb", "clip_track1.npz", "clip_track1.bvh"} <= set(names), names


def test_what_is_no_photo_damaged_or_too_large_is_refused_in_a_sentence(page, web, tmp_path):
    (tmp_path / "notes.jpg").write_text("a text")
    (tmp_path / "cut.jpg").write_bytes((SAMPLES / "im02.jpg").read_bytes()[:30_000])
    with open(tmp_path / "large.jpg", "wb") as file:
        file.truncate(200 * 10**6)
    page.goto(web)
    for name, said in (
        ("notes.jpg", "notes.jpg is neither a photo nor a clip that can be read."),
        ("cut.jpg", "cut.jpg was not read: image file is truncated"),
        ("large.jpg", "exceed the maximum allowed size of 100"),
    ):
        assert said in upload(page, tmp_path / name, said[:30])
        shot(page, f"web_{name.split('.')[0]}")
    assert "Traceback" not in page.content()


def test_the_server_itself_refuses_large_uploads_and_other_files(web, tmp_path):
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    body = head + bytes(105 * 2**20) + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(f"{web}gradio_api/upload", body, kind)
    with pytest.raises(OSError):  # an HTTP status, or a connection that is closed early
        urllib.request.urlopen(request)
    for path in ("/etc/passwd", ROOT / "README.md"):
        with pytest.raises(OSError):
            urllib.request.urlopen(f"{web}gradio_api/file={path}")


def choose(page, title: str) -> None:
    """Choose a photo or clip of the viewer."""
    page.locator("input[role=combobox]:visible").first.click()
    page.get_by_role("option", name=title).click()


def press(page, name: str) -> None:
    page.locator(f'button:has-text("{name}")').first.click()


def shot_when_still(page, name: str) -> np.ndarray:
    """Take a screenshot when two in a row are the same."""
    last = shot(page, name)
    for _ in range(40):
        time.sleep(1)
        now = shot(page, name)
        if np.array_equal(now, last):
            break
        last = now
    return last


def test_people_stand_in_front_of_their_photo_from_all_views(page, view):
    page.goto(view)
    page.wait_for_selector("text=Front")
    choose(page, "im02.jpg")
    views = {}
    for name in ("Front", "Side", "Top"):
        press(page, name)
        time.sleep(3)
        views[name] = shot_when_still(page, f"view_{name.lower()}").astype(float)
        assert views[name].std() > 20, name
    press(page, "Front")
    again = shot_when_still(page, "view_front_again").astype(float)
    difference = np.abs(again - views["Front"]).mean()
    assert difference < 3, f"the view from the front changed by {difference}"
    for other in ("Side", "Top"):
        assert np.abs(views[other] - again).mean() > 20, other
    for box in ("Skeletons", "Joint names"):
        page.get_by_label(box).click()
    time.sleep(5)
    assert np.abs(shot_when_still(page, "view_names") - again).mean() > 1
    assert page.hosts == {"127.0.0.1"}, page.hosts


def test_pages_of_others_cannot_read_what_the_viewer_shows(view):
    connect = pytest.importorskip("websockets.sync.client").connect
    address = view.replace("http", "ws")
    for origin in (None, view, "http://localhost:8000"):
        with connect(address, origin=origin, subprotocols=["viser-v0"]):
            pass
    for origin in ("http://other.example:8891", "http://127.0.0.1.example", "null"):
        with pytest.raises(Exception, match="HTTP 403"):
            connect(address, origin=origin, subprotocols=["viser-v0"])


def test_a_clip_plays_to_its_end(page, view):
    page.goto(view)
    page.wait_for_selector("text=Front")
    choose(page, "walk.avi")
    time.sleep(3)
    before = shot_when_still(page, "view_clip_start").astype(float)
    press(page, "Play")
    page.wait_for_selector('input[value^="0.90 s"]')
    time.sleep(3)
    assert np.abs(shot_when_still(page, "view_clip_end") - before).mean() > 1
