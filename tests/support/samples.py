"""What is to be seen in the sample photos, measured by hand; scenes in which nobody is."""

import dataclasses

import numpy as np

from benchmarks.groups.scenes import GroupPictures

WOMAN = {
    "L_Ankle": (222, 512), "R_Ankle": (388, 508), "L_Knee": (243, 432), "R_Knee": (350, 432),
    "L_Wrist": (390, 318), "R_Wrist": (203, 285), "L_Elbow": (352, 258), "R_Elbow": (262, 250),
}  # fmt: skip
"""Joints of the woman in im01.png, who walks to the left, in pixels; left is her left."""
TORSO = 150
"""Length of her torso, pixels."""


def empty_scene(pictures: GroupPictures, number: int) -> np.ndarray:
    """Render the surroundings of a group without the people, RGB."""
    group = pictures.group(number)
    far_away = group.scene.actors[0].moved(np.eye(3), np.array([0, 0, 5000.0]))
    scene = dataclasses.replace(group.scene, actors=(far_away,))
    return pictures.render(dataclasses.replace(group, num_people=0, scene=scene))
