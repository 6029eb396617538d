"""People in space in a browser, by viser: the photo in its camera's frustum, a time line, names."""

import math
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from smpler.apps.actors import BODIES, CHOICES, PHOTO, QUALITY, Actor, table_of
from smpler.apps.pictures import Pictures
from smpler.apps.results import SAME_TIME, Bodies, Person
from smpler.utils.drawing.visualize import palette

if TYPE_CHECKING:
    import viser

VIEWS = ("Front", "Side", "Top")
UP, AWAY = np.array([0.0, -1.0, 0.0]), np.array([0.0, 0.0, 1.0])
BEHIND = 0.5
"""How far the photo stands behind the farthest joint, metres."""
MARGIN = 1.08
"""How much more than the photo or the people a view shows."""
FREE = 0.74
"""The left part of a window of usual width that viser's panel does not cover."""
SIDE_FOV = math.radians(35)
AROUND = 0.4
"""How much more than the joints a view from the side or from above shows, metres."""
ON = {PHOTO, BODIES, QUALITY}
"""What is shown at first."""
SPEEDS = {"0.25 x": 0.25, "0.5 x": 0.5, "1 x": 1.0, "2 x": 2.0}


@dataclass(frozen=True, eq=False)
class Scene:
    """The people of one photo or clip, and its pictures."""

    people: Sequence[Person]
    pictures: Pictures | None
    bodies: Bodies

    @property
    def title(self) -> str:
        """What the viewer calls the photo or clip."""
        return self.people[0].media

    @cached_property
    def moments(self) -> list[tuple[float, int]]:
        """Time [s] and number of the frames in which anybody is, in order."""
        pairs = sorted(
            pair
            for person in self.people
            for pair in zip(person.times.tolist(), person.frames.tolist(), strict=True)
        )
        found = pairs[:1]
        for pair in pairs:
            if pair[0] > found[-1][0] + 2 * SAME_TIME:
                found.append(pair)
        return found


@dataclass(frozen=True)
class Camera:
    """Where a view looks from."""

    position: Float[np.ndarray, "3"]
    look_at: Float[np.ndarray, "3"]
    up: Float[np.ndarray, "3"]
    fov: float
    """Vertical, radians."""


def camera_of(view: str, scene: Scene, aspect: float) -> Camera:
    """Return the camera of a view: the photo's own, from the people's side, or from above.

    Args:
        view: a name in `VIEWS`.
        scene: what is looked at.
        aspect: width over height of the browser's picture.
    """
    joints = np.concatenate([person.joints.reshape(-1, 3) for person in scene.people])
    low, high = joints.min(axis=0), joints.max(axis=0)
    center = (low + high) / 2
    if view == "Front":
        width, height = scene.people[0].image_size
        half = max(height / 2, width / 2 / aspect) * MARGIN / scene.people[0].focal_length
        return Camera(np.zeros(3), AWAY * max(center[2], 1.0), UP, 2 * math.atan(half))
    # what lies across and along the picture, in the order right, up
    across, along, depth = (2, 1, 0) if view == "Side" else (0, 2, 1)
    half = max((high - low)[along], (high - low)[across] / (aspect * FREE)) / 2 + AROUND
    distance = half * MARGIN / math.tan(SIDE_FOV / 2) + (high - low)[depth] / 2
    direction, up = (np.array([1.0, 0, 0]), UP) if view == "Side" else (UP, AWAY)
    center[across] += (1 - FREE) * distance * math.tan(SIDE_FOV / 2) * aspect
    return Camera(center + direction * distance, center, up, SIDE_FOV)


class Stage:
    """Shows scenes in viser's page, one at a time, and answers its buttons.

    Args:
        server: of viser.
        scenes: at least one.
    """

    def __init__(self, server: "viser.ViserServer", scenes: Sequence[Scene]):
        self.server, self.scenes = server, scenes
        self._lock = threading.RLock()  # viser answers in several threads
        self._playing = threading.Event()
        self._actors: list[Actor] = []
        self._make_panel()
        self.show_scene(scenes[0])
        server.on_client_connect(lambda client: self.look("Front", [client]))
        threading.Thread(target=self._play, daemon=True).start()

    def _make_panel(self) -> None:
        gui, titles = self.server.gui, unique([scene.title for scene in self.scenes])
        choice = gui.add_dropdown("Photo or clip", titles)
        choice.on_update(lambda _: self.show_scene(self.scenes[titles.index(choice.value)]))
        views = gui.add_button_group("View", VIEWS)
        views.on_click(lambda event: self.look(views.value, [event.client]))
        with gui.add_folder("Show"):
            self._shown = {name: gui.add_checkbox(name, name in ON) for name in CHOICES}
        self._time_line = gui.add_folder("Time")
        with self._time_line:
            self._slider = gui.add_slider("Frame", 0, 1, 1, 0)
            self._clock = gui.add_text("Time", "", disabled=True)
            self._button = gui.add_button("Play")
            self._speed = gui.add_dropdown("Speed", list(SPEEDS), initial_value="1 x")
        for box in self._shown.values():
            box.on_update(lambda _: self._show())
        self._slider.on_update(lambda _: self._show())
        self._button.on_click(lambda _: self._set_playing(not self._playing.is_set()))
        self._table = gui.add_html("")

    def show_scene(self, scene: Scene) -> None:
        """Show the people of another photo or clip, from its first frame."""
        self._set_playing(False)
        with self._lock:
            for actor in self._actors:
                actor.remove()
            self.scene = scene
            colors = palette(len(scene.people))
            self._actors = [
                Actor(self.server, person, scene.bodies, color, number)
                for number, (person, color) in enumerate(zip(scene.people, colors, strict=True))
            ]
            self._frustum = self._place_photo()
            self._pictured: int | None = None
            """The frame whose picture the frustum holds."""
            self._time_line.visible = len(scene.moments) > 1
            self._slider.value = 0
            self._slider.max = max(len(scene.moments) - 1, 1)
            self._show()
        self.look("Front", self.server.get_clients().values())

    def _place_photo(self):
        """Put the photo's camera at the origin, with the photo behind the people."""
        first = self.scene.people[0]
        width, height = first.image_size
        half = height / 2 / first.focal_length
        farthest = max(float(person.joints[..., 2].max()) for person in self.scene.people)
        depth = max(farthest + BEHIND, 1.0)
        return self.server.scene.add_camera_frustum(
            "/photo",
            fov=2 * math.atan(half),
            aspect=width / height,
            # viser draws the picture at the depth scale / cbrt(x y / 3), x and y its half sides
            # at depth 1
            scale=depth * math.cbrt(half * half * width / height / 3),
            thickness=1.5,
            thickness_units="screen",  # others would hide all from who looks along them
            color=(110, 110, 110),
            cast_shadow=False,
            receive_shadow=False,
        )

    def _show(self) -> None:
        """Show what slider and check boxes say."""
        with self._lock, self.server.atomic():
            index = min(int(self._slider.value), len(self.scene.moments) - 1)
            seconds, frame = self.scene.moments[index]
            shown = {name: box.value for name, box in self._shown.items()}
            for actor in self._actors:
                actor.show(seconds, shown)
            self._frustum.visible = shown[PHOTO]
            if shown[PHOTO] and self.scene.pictures is not None and frame != self._pictured:
                self._frustum.image = self.scene.pictures.at(frame)
                self._pictured = frame
            self._clock.value = f"{seconds:.2f} s, frame {frame}"
            self._table.content = table_of(self._actors, seconds)

    def look(self, view: str, clients: Iterable["viser.ClientHandle | None"]) -> None:
        """Bring browsers to a view."""
        for client in clients:
            if client is None:
                continue
            camera = camera_of(view, self.scene, client.camera.aspect)
            with client.atomic():
                client.camera.fov = camera.fov
                client.camera.up_direction = camera.up
                client.camera.position = camera.position
                client.camera.look_at = camera.look_at

    def _set_playing(self, is_playing: bool) -> None:
        if is_playing:
            self._playing.set()
        else:
            self._playing.clear()
        self._button.label = "Pause" if is_playing else "Play"

    def _play(self) -> None:
        """Move the time line while it plays; frames whose time has passed are left out."""
        while self._playing.wait():
            scene, now = self.scene, time.monotonic()
            times = np.array([seconds for seconds, _ in scene.moments])
            index = int(self._slider.value)
            at = times[index if index < len(times) - 1 else 0]
            while self._playing.is_set() and self.scene is scene:
                before, now = now, time.monotonic()
                at += (now - before) * SPEEDS[self._speed.value]
                self._slider.value = max(int(np.searchsorted(times, at, side="right")) - 1, 0)
                if at >= times[-1]:
                    self._set_playing(False)
                time.sleep(0.01)


def unique(titles: Sequence[str]) -> list[str]:
    """Return titles of which none stands twice: later ones get a number."""
    found: list[str] = []
    for title in titles:
        number, name = 1, title
        while name in found:
            number += 1
            name = f"{title} ({number})"
        found.append(name)
    return found
