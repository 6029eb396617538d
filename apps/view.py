"""People in space, in a browser: smpler view RESULT...

The page shows what result files hold: each person's body, the photo in its camera's frustum, and
a clip's motion along a time line.
"""

import argparse
import contextlib
import inspect
import io
import socket
import sys
import time
from collections.abc import Callable, Generator, Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from smpler.apps.pictures import find_pictures
from smpler.apps.results import Bodies, Person, find_results
from smpler.apps.scene import Scene, Stage
from smpler.utils.flags import Parser, port
from smpler.utils.paths import display

LOCAL = ("127.0.0.1", "localhost", "::1")
"""What this computer calls itself."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until Ctrl-C; return 0, or 2 when a result or an argument was unusable."""
    arguments = parse_arguments(argv)
    try:
        scenes = scenes_of(find_results(arguments.results), arguments.photo, arguments.body)
        server = start_server(arguments.host, arguments.port)
    except (OSError, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    Stage(server, scenes)
    count = sum(len(scene.people) for scene in scenes)
    people = "1 person" if count == 1 else f"{count} people"
    print(f"{people} at http://{arguments.host}:{server.get_port()} (Ctrl-C ends it)", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        server.stop()
    return 0


@contextlib.contextmanager
def own_pages_only() -> Generator[None]:
    """Let servers of viser that start in this context answer pages of this computer alone.

    viser itself does not ask which page connects, so that any other one that is open in the user's
    browser could read the photo.
    """
    from websockets.asyncio import server  # a part of viser

    serve = server.serve

    def serve_own(*arguments, process_request: Callable, **options):
        async def answer(connection, request):
            origin = request.headers.get("Origin")
            if origin is not None and urlsplit(origin).hostname not in LOCAL:
                return connection.respond(HTTPStatus.FORBIDDEN, "Only this computer's pages.\n")
            response = process_request(connection, request)
            return await response if inspect.isawaitable(response) else response

        return serve(*arguments, process_request=answer, **options)

    server.serve = serve_own
    try:
        yield
    finally:
        server.serve = serve


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="smpler view",
        description="Show people of result files in space, in a browser.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "results",
        type=Path,
        nargs="+",
        metavar="RESULT",
        help="results such as outputs/NAME_0.npz, their folder, or outputs/NAME",
    )
    add("--photo", type=Path, help="the photo or clip; default: of its name, near the results")
    add("--body", type=Path, help="SMPL's .pkl or .npz, for clips that were made with it")
    add("--host", default="127.0.0.1", help="0.0.0.0 lets other computers see the page")
    add("--port", type=port, default=8080, help="of the page; a taken one gives the next")
    return parser.parse_args(argv)


def scenes_of(people: Sequence[Person], photo: Path | None, body: Path | None) -> list[Scene]:
    """Sort people by their photo or clip, and open its pictures.

    Args:
        people: at least one.
        photo: the user's path of the photo or clip.
        body: the user's file of the body of clips.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the photo or body does not fit, or there are several photos for one path.
    """
    groups: dict[tuple, list[Person]] = {}
    for person in people:
        key = (person.path.absolute().parent, person.media, person.image_size, person.focal_length)
        groups.setdefault(key, []).append(person)
    if photo is not None and len(groups) > 1:
        raise ValueError(
            f"--photo {display(photo)} is one photo, but the results are of {len(groups)}; give "
            "the results of one."
        )
    bodies = Bodies(body)
    for person in people:
        if person.vertices is None:
            bodies.layer(person)
    return [Scene(group, find_pictures(group[0], photo), bodies) for group in groups.values()]


def start_server(host: str, number: int):
    """Start viser's server, which listens on a port of a host.

    Raises:
        ValueError: viser is not installed, or the host is no address.
    """
    try:
        import viser  # here, as nothing else needs it
    except ImportError:
        raise ValueError(
            "`smpler view` needs the package viser: `pip install viser`, or in a checkout "
            "`pip install '.[view]'`."
        ) from None
    try:  # viser would try a thousand ports
        family, *_, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.bind(address)
    except OSError as error:
        raise ValueError(f"--host {host} is no address of this computer: {error}.") from None
    hidden = contextlib.redirect_stdout(io.StringIO())  # its banner
    with hidden, own_pages_only() if host in LOCAL else contextlib.nullcontext():
        server = viser.ViserServer(host, number, label="SMPLer", verbose=False)
    server.gui.configure_theme(show_logo=False, show_share_button=False)
    server.scene.set_up_direction("-y")
    return server
