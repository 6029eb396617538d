"""One person in viser's scene: mesh, skeleton, names of joints, name and quality."""

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from smpler.apps.results import Bodies, Person
from smpler.models.answers import LOW_QUALITY
from smpler.utils.drawing.visualize import Color
from smpler.utils.joints import SMPL_NAMES, SMPL_PARENTS

if TYPE_CHECKING:
    import viser

ABOVE_HEAD = np.array([0.0, -0.3, 0.0])
"""From the highest joint to where a person's name stands, metres."""
SKELETON_OPACITY = 0.4
"""Of a body while its skeleton or the names of its joints are shown inside."""
GAP_OPACITY = 0.35
"""Of a person whom nobody saw in this frame."""
BONES = np.array([(parent, joint) for joint, parent in enumerate(SMPL_PARENTS) if parent >= 0])
DARK = 0.55
"""How bright a skeleton is beside its body."""

PHOTO, BODIES, SKELETONS, JOINT_NAMES, QUALITY = CHOICES = (
    "Photo",
    "Bodies",
    "Skeletons",
    "Joint names",
    "Quality",
)
"""What can be shown."""


class Actor:
    """Draws one person, moment by moment.

    Args:
        server: of viser.
        person: who.
        bodies: pose the person.
        color: of the body.
        number: of the person in the scene.
    """

    def __init__(
        self,
        server: "viser.ViserServer",
        person: Person,
        bodies: Bodies,
        color: Color,
        number: int,
    ):
        self.person, self.color = person, color
        self._bodies, self._scene = bodies, server.scene
        self._node = f"/person_{number}"
        self._rgb = tuple(round(255 * channel) for channel in color)
        self._root = self._scene.add_frame(self._node, show_axes=False)
        self._mesh: Any = None
        self._skeleton: Any = None
        self._joint_labels: list[Any] = []
        self._name = self._scene.add_label(f"{self._node}/name", "", anchor="bottom-center")
        self._posed: int | None = None
        """The moment that the mesh shows."""

    def remove(self) -> None:
        """Take the person out of the scene."""
        self._root.remove()

    def show(self, seconds: float, shown: Mapping[str, bool]) -> None:
        """Show the person at a time, or nothing when the person is not there then.

        Args:
            seconds: of the clip; of a photo, 0.
            shown: which of `CHOICES` are.
        """
        moment = self.person.moment(seconds)
        self._root.visible = moment is not None
        if moment is None:
            return
        joints = self.person.joints[moment]
        if shown[BODIES] and moment != self._posed:
            self._pose(moment)
        if self._mesh is not None:
            self._mesh.visible = shown[BODIES]
            is_inside = shown[SKELETONS] or shown[JOINT_NAMES]
            seen = bool(self.person.is_seen[moment])
            self._mesh.opacity = SKELETON_OPACITY if is_inside else 1.0 if seen else GAP_OPACITY
        if shown[SKELETONS]:
            self._draw_skeleton(joints)
        if self._skeleton is not None:
            self._skeleton.visible = shown[SKELETONS]
        if shown[JOINT_NAMES]:
            self._write_joint_names(joints)
        for label in self._joint_labels:
            label.visible = shown[JOINT_NAMES]
        self._name.visible = shown[QUALITY]
        self._name.text = f"{self.person.name}: {self.quality(moment)}"
        self._name.position = joints[joints[:, 1].argmin()] + ABOVE_HEAD

    def quality(self, moment: int) -> str:
        """Say how well the body is likely to be right."""
        quality = float(self.person.quality[moment])
        if not self.person.is_seen[moment]:
            return "not seen"
        return f"{quality:.2f}{' (low)' if quality < LOW_QUALITY else ''}"

    def _pose(self, moment: int) -> None:
        vertices = self._bodies.mesh(self.person, moment)
        if self._mesh is None:
            self._mesh = self._scene.add_mesh_simple(
                f"{self._node}/mesh",
                vertices,
                self._bodies.faces(self.person),
                color=self._rgb,
                opacity=1.0,
                cast_shadow=False,
                receive_shadow=False,
            )
        else:
            self._mesh.vertices = vertices
        self._posed = moment

    def _draw_skeleton(self, joints: np.ndarray) -> None:
        bones = joints[BONES]  # (23, 2, 3)
        if self._skeleton is None:
            color = tuple(round(DARK * channel) for channel in self._rgb)
            self._skeleton = self._scene.add_line_segments(
                f"{self._node}/skeleton", bones, color, thickness=0.015
            )
        else:
            self._skeleton.points = bones

    def _write_joint_names(self, joints: np.ndarray) -> None:
        if not self._joint_labels:
            self._joint_labels = [
                self._scene.add_label(
                    f"{self._node}/{name}", name, font_screen_scale=0.7, anchor="center-left"
                )
                for name in SMPL_NAMES
            ]
        for label, place in zip(self._joint_labels, joints, strict=True):
            label.position = place


def table_of(actors: Sequence[Actor], seconds: float) -> str:
    """Return the people at a time as HTML: colour, name, quality, distance."""
    rows = []
    for actor in actors:
        moment = actor.person.moment(seconds)
        color = "#" + "".join(f"{round(255 * channel):02x}" for channel in actor.color)
        square = f'<span style="color: {color}">&#9632;</span>'
        cells = [f"{square} {html.escape(actor.person.name)}", "not here now", ""]
        if moment is not None:
            distance = float(actor.person.joints[moment, 0, 2])
            cells[1:] = [actor.quality(moment), f"{distance:.1f} m"]
        rows.append("".join(f"<td>{cell}</td>" for cell in cells))
    heads = "".join(
        f'<th style="text-align: left">{head}</th>' for head in ("who", "quality", "distance")
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<table style="width: 90%; margin: 0.5em 1em"><tr>{heads}</tr>{body}</table>'
