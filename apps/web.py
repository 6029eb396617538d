"""The demo as a page in a browser: smpler web.

Drop a photo or a clip, see the bodies over it, turn them, download the results. Nothing is kept.
"""

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from smpler.apps.private_folder import PrivateFolder
from smpler.apps.requests import MEGABYTE, Limits, answer
from smpler.models.predictor import Predictor
from smpler.utils.flags import Parser, above_zero, port
from smpler.video.clip import Progress

if TYPE_CHECKING:
    import gradio

KEEP_MINUTES = 10.0
"""How long results can be downloaded."""
MAX_WAITING = 8
"""How many requests may wait for their turn."""
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""What keeps gradio from calling home."""
INTRODUCTION = f"""# SMPLer
Drop a photo or a short clip: the people in it become posed 3D bodies. It is deleted as soon as it
is read, the results after {KEEP_MINUTES:g} minutes.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until Ctrl-C; return 0, or 2 when it cannot be served."""
    arguments = parse_arguments(argv)
    limits = Limits(arguments.max_mb, arguments.max_seconds)
    signal.signal(signal.SIGTERM, _interrupt)  # so that files are deleted then as well
    try:
        with PrivateFolder(60 * KEEP_MINUTES) as folder:
            prepare_gradio(folder)
            predictor = Predictor.load(arguments.checkpoint)
            predictor.load_person_detector()
            for is_clip in (False, True):
                predictor.load_landmark_detector(is_clip)
            page = build_page(predictor, folder, limits)
            url = serve(page, arguments.host, arguments.port, limits)
            print(f"The page is at {url} (Ctrl-C ends it)", flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        return 0
    except (OSError, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="smpler web",
        description="The demo as a page in a browser: photo or clip in, bodies and files out.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="0.0.0.0 lets other computers use the page")
    add("--port", type=port, default=7860, help="of the page")
    add("--max_mb", type=above_zero, default=100.0, help="largest file that is taken, MB")
    add("--max_seconds", type=above_zero, default=20.0, help="longest clip that is taken, seconds")
    add("--checkpoint", type=Path, help="weights, published or ours; default: the open weights")
    return parser.parse_args(argv)


def prepare_gradio(folder: PrivateFolder) -> None:
    """Make gradio keep its files in a folder, and call nobody.

    Raises:
        ValueError: gradio is not installed.
    """
    os.environ |= QUIET | {"GRADIO_TEMP_DIR": str(folder.path / "gradio")}
    try:
        import gradio  # noqa: F401  # here, as nothing else needs it
    except ImportError:
        raise ValueError(
            "`smpler web` needs the package gradio: `pip install gradio`, or in a checkout "
            "`pip install '.[web]'`."
        ) from None


def build_page(predictor: Predictor, folder: PrivateFolder, limits: Limits) -> "gradio.Blocks":
    """Lay out the page and connect it with the predictor."""
    import gradio

    with gradio.Blocks(title="SMPLer", analytics_enabled=False) as page:
        gradio.Markdown(INTRODUCTION)
        with gradio.Row():
            with gradio.Column(scale=1):
                limit = f"at most {limits.megabytes:g} MB; a clip at most {limits.seconds:g} s"
                file = gradio.File(label=f"Photo or clip, {limit}", height=160)
                words = gradio.Markdown()
                archive = gradio.DownloadButton("Download all results (zip)", visible=False)
            with gradio.Column(scale=2):
                looks = {"interactive": False, "height": 480}
                picture = gradio.Image(label="Overlay", buttons=["fullscreen"], **looks)
                video = gradio.Video(label="Overlay", visible=False, buttons=[], **looks)
                # one that is invisible at first would stay empty
                model = gradio.Model3D(label="Bodies in space", **looks)

        def work(upload: str | None, bar: gradio.Progress = gradio.Progress()) -> list:  # noqa: B008
            """Return new values of the page's parts; the file's is None, for the next one."""
            result, said = None, ""
            try:
                if upload is not None:
                    with folder.place() as place:
                        result = answer(predictor, Path(upload), place, limits, told(bar))
                    said = result.words
            except ValueError as error:
                said = f"**Error:** {escaped(str(error))}"
            except Exception:  # a mistake of ours: the page says so, the terminal shows it
                traceback.print_exc()
                said = "**Error:** something went wrong here."
            finally:
                if upload is not None:
                    Path(upload).unlink(missing_ok=True)
            if result is None:
                files, is_clip = [None] * 4, False
            else:
                files = [result.archive, result.picture, result.video, result.model]
                is_clip = result.video is not None
            visible = (result is not None, not is_clip, is_clip, True)
            return [
                None,
                said,
                *(
                    gradio.update(value=None if file is None else str(file), visible=is_visible)
                    for file, is_visible in zip(files, visible, strict=True)
                ),
            ]

        file.upload(
            work,
            file,
            [file, words, archive, picture, video, model],
            api_visibility="private",
            show_progress="full",
            show_progress_on=model,
        )
    return page.queue(default_concurrency_limit=1, max_size=MAX_WAITING)


def serve(page: "gradio.Blocks", host: str, number: int, limits: Limits) -> str:
    """Serve the page; return its address.

    Raises:
        OSError: host or port cannot be had.
    """
    _, url, _ = page.launch(
        server_name=host,
        server_port=number,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=int(limits.megabytes * MEGABYTE),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
    )
    return url


def told(bar: Callable) -> Progress:
    """Return what tells gradio's progress bar how far a clip is."""
    return lambda stage, done, total: bar((done, total), desc=stage)


def escaped(text: str) -> str:
    """Return a text that Markdown and HTML show as it is."""
    return "".join(x if x.isalnum() or x in " .,:;-'" else f"&#{ord(x)};" for x in text)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
