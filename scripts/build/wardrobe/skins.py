"""MakeHuman's skins, with underwear, eyebrows and eyes painted on."""

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from scipy.ndimage import distance_transform_edt

from smpler.models.body import Body
from smpler.utils.drawing.rasterizer import interpolate, rasterize
from smpler.utils.joints import SMPL_NAMES

ZOOM = 4
"""Masks are painted at this many times the skin's size."""
MARGIN = 8
"""Pixels, at that size, by which paint extends beyond the faces: seams must not show."""
EYE_VERTICES = range(14598, 14742)
"""Of MakeHuman's base mesh."""
EYE_PLACE, EYE_RADIUS = (0.88, 0.085), 0.07
"""A spot of MakeHuman's layout that is free: both eyes are painted there, seen from the front."""
IRIS, PUPIL = 30, 12
"""Radii of iris and pupil, degrees from the middle of the eye."""

UNDERWEAR = ((32, 34, 40), (232, 232, 228), (46, 60, 98), (120, 30, 38), (128, 130, 134))
"""sRGB; a skin gets one of the three colours that differ most from it."""
IRISES = ((74, 48, 28), (60, 38, 24), (92, 68, 40), (88, 108, 128), (84, 100, 66))
SCLERA, DARK = (226, 221, 216), (14, 12, 12)
BROW_SHADE = 0.4


class Painter:
    """Paints skins; knows which spot of the body each pixel of a skin shows."""

    def __init__(self, body: Body, body_uv: Float[np.ndarray, "f 3 2"], size: int):
        self.size = size
        side = size * ZOOM
        corners = torch.from_numpy(body_uv.reshape(1, -1, 2) * side).float()
        corners = torch.nn.functional.pad(corners, (0, 1))  # all at depth 0
        faces = torch.arange(corners.shape[1]).view(-1, 3)
        seen = rasterize(corners, faces, side, side, cull_backfaces=False)
        arm = [SMPL_NAMES.index(f"{s}_{n}") for s in "LR" for n in ("Shoulder", "Elbow", "Wrist")]
        known = np.column_stack([body.v_template, body.lbs_weights[:, arm].sum(axis=1)])
        known = torch.from_numpy(known[body.faces].reshape(1, -1, 4)).float()
        place = interpolate(seen, faces, known)[0].numpy()
        distance, nearest = distance_transform_edt(seen.face_index[0] < 0, return_indices=True)
        self.position, self.arm = np.split(place[tuple(nearest)], [3], axis=-1)
        self.painted = distance < MARGIN

    def paint(self, name: str, skin: UInt8[np.ndarray, "s s 3"]) -> UInt8[np.ndarray, "s s 3"]:
        """Return an RGB skin with underwear, brows and eyes; `name` chooses the colours."""
        number = sum(name.encode())
        torso = skin[self.size * 2 // 5, self.size * 2 // 5].astype(np.float64)
        contrast = [-np.abs(np.subtract(color, torso)).mean() for color in UNDERWEAR]
        choice = [UNDERWEAR[i] for i in np.argsort(contrast)[:3]]
        masks = underwear(self.position, self.arm[..., 0] > 0.5, "female" in name)
        image = self._cover(skin.astype(np.float64), masks, choice[number % len(choice)])
        image = self._cover(image, brows(self.position), BROW_SHADE * torso)
        dark_eyes = "caucasian" not in name
        iris = IRISES[number % 3] if dark_eyes else IRISES[number % len(IRISES)]
        return paint_eyes(np.round(image).astype(np.uint8), iris)

    def _cover(self, image, mask: Bool[np.ndarray, "z z"], color) -> Float[np.ndarray, "s s 3"]:
        share = (mask & self.painted).astype(np.float32)
        share = cv2.resize(share, (self.size, self.size), interpolation=cv2.INTER_AREA)[..., None]
        return image * (1 - share) + np.array(color) * share


def underwear(
    position: Float[np.ndarray, "*n 3"], on_arm: Bool[np.ndarray, "*n"], female: bool
) -> Bool[np.ndarray, "*n"]:
    """Say which spots of the body at rest (metres, pelvis at 0) are under underwear."""
    side, up, front = np.abs(position[..., 0]), position[..., 1], position[..., 2]
    if not female:
        return ~on_arm & (up < 0.03) & (up > -0.23)
    leg = np.where(front > 0.02, -0.165 + 0.75 * (side - 0.03), -0.19 + 0.5 * (side - 0.03))
    briefs = (up < 0.005) & (up > leg)
    band = (up > 0.19) & (up < 0.345)
    straps = (np.abs(side - 0.09) < 0.018) & (up > 0.34) & (up < 0.52)
    return ~on_arm & (briefs | band | straps)


def brows(position: Float[np.ndarray, "*n 3"]) -> Bool[np.ndarray, "*n"]:
    """Say which spots of the body at rest are under the eyebrows."""
    side, up, front = np.abs(position[..., 0]), position[..., 1], position[..., 2]
    along = (side - 0.012) / 0.042  # from the nose outward
    middle = 0.656 + 0.006 * np.sin(np.pi * along.clip(0, 1) * 0.8)
    thickness = 0.0035 * (1 - 0.7 * along.clip(0, 1))
    return (along > 0) & (along < 1) & (np.abs(up - middle) < thickness) & (front > 0.09)


def move_eyes(
    body_uv: Float[np.ndarray, "f 3 2"], body: Body, base_index: Int[np.ndarray, "v"]
) -> Float[np.ndarray, "f 3 2"]:
    """Map the eyes' faces to the spot where eyes are painted: angles from the gaze become radii."""
    is_eye = np.isin(base_index, EYE_VERTICES)
    places = np.zeros((body.num_vertices, 2))
    for side in (1, -1):
        ball = np.flatnonzero(is_eye & (side * body.v_template[:, 0] > 0))
        outward = body.v_template[ball] - body.v_template[ball].mean(axis=0)
        outward /= np.linalg.norm(outward, axis=1, keepdims=True)
        radius = (np.arccos(outward[:, 2:]) / (np.pi / 2)).clip(max=1) * EYE_RADIUS
        around = outward[:, :2] / np.linalg.norm(outward[:, :2], axis=1, keepdims=True).clip(1e-6)
        places[ball] = EYE_PLACE + radius * around * (1, -1)
    return np.where(is_eye[body.faces].all(axis=1)[:, None, None], places[body.faces], body_uv)


def paint_eyes(image: UInt8[np.ndarray, "s s 3"], iris: tuple) -> UInt8[np.ndarray, "s s 3"]:
    """Paint an eye, seen from the front, on its spot of the skin."""
    image = np.ascontiguousarray(image)
    center = [round(16 * len(image) * place - 8) for place in EYE_PLACE]
    for degrees, color in ((100, SCLERA), (IRIS, DARK), (IRIS - 4, iris), (PUPIL, DARK)):
        radius = round(16 * len(image) * EYE_RADIUS * degrees / 90)
        cv2.circle(image, center, radius, color, cv2.FILLED, cv2.LINE_AA, shift=4)
    return image
