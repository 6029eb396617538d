import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import trimesh

from smpler.models.body import open_body
from smpler.models.smpl import SMPL
from smpler.utils.camera import project_pinhole
from smpler.utils.drawing import overlay
from smpler.utils.drawing.overlay import (
    NEAR,
    draw_bodies,
    place_body,
    write_overlay,
)
from smpler.utils.drawing.rasterizer import rasterize
from smpler.utils.drawing.visualize import palette
from smpler.utils.image import read_image

FOCAL, CENTER = 500.0, np.array([200.0, 180.0])
RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
PHOTO = np.random.default_rng(0).integers(0, 256, (360, 400, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def body() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, faces and joints of the open body, upright; metres, camera frame."""
    layer = SMPL(open_body())
    pose = torch.from_numpy(layer.body.mean_pose.copy().reshape(1, 72))
    posed = layer(pose, torch.zeros(1, 10))
    return posed.vertices[0].numpy(), layer.body.faces, posed.joints[0].numpy()


def put(body, place, color=RED):
    vertices, faces, _ = body
    return place_body(vertices + np.array(place), faces, color, FOCAL, CENTER)


def square(corners, color):
    """Two triangles before the camera that it sees from their outside."""
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    return place_body(np.array(corners, float), faces, color, FOCAL, CENTER)


def crossing() -> list:
    """Two squares that cross: the red one is nearer on the left, the blue one on the right."""
    red = square([[-1, -1, 4], [-1, 1, 4], [1, 1, 6], [1, -1, 6]], RED)
    blue = square([[-1, -1, 6], [-1, 1, 6], [1, 1, 4], [1, -1, 4]], BLUE)
    return [red, blue]


def coverage(*bodies) -> np.ndarray:
    """How much of each pixel bodies without light cover: white on black, in [0, 1]."""
    black = np.zeros_like(PHOTO)
    white = np.full_like(PHOTO, 255)
    over = draw_bodies(black, bodies).astype(float), draw_bodies(white, bodies).astype(float)
    return 1 - (over[1] - over[0]).mean(axis=-1) / 255


def test_a_ball_at_each_joint_is_drawn_where_the_full_image_camera_sees_the_joint(body):
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.02)
    for joint in body[2] + [0.2, -0.2, 3.0]:
        placed = place_body(ball.vertices + joint, np.array(ball.faces), RED, FOCAL, CENTER)
        alpha = coverage(placed)
        rows, columns = np.indices(alpha.shape)
        centre = np.array([(alpha * (columns + 0.5)).sum(), (alpha * (rows + 0.5)).sum()])
        error = np.abs(centre / alpha.sum() - project_pinhole(joint, FOCAL, CENTER)).max()
        assert error < 0.3, f"{error:.2f} px"


def test_every_vertex_lies_in_the_drawn_body_which_ends_with_them(body):
    alpha = coverage(put(body, [0.2, -0.2, 3.0]))
    pixels = project_pinhole(body[0] + [0.2, -0.2, 3.0], FOCAL, CENTER)
    rows, columns = np.floor(pixels[:, ::-1]).astype(int).T
    # a vertex on the outline may lie between the samples of its pixel
    assert (alpha[rows, columns] > 0).mean() > 0.98
    around = cv2.dilate((alpha > 0).astype(np.uint8), np.ones((3, 3)))
    assert around[rows, columns].all(), f"{(around[rows, columns] == 0).sum()} vertices outside"
    drawn = np.argwhere(alpha > 0)[:, ::-1]
    for edge, extreme in ((drawn.min(axis=0), np.min), (drawn.max(axis=0) + 1, np.max)):
        error = np.abs(edge - extreme(pixels, axis=0)).max()
        assert error <= 1.5, f"{error:.2f} px"


def test_the_near_is_drawn_larger_than_the_far():
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.2)
    near, far = (
        place_body(ball.vertices + [0, 0, z], np.array(ball.faces), RED, FOCAL, CENTER)
        for z in (2.0, 4.0)
    )
    # the outline of a ball of radius r at z has the radius f * r / sqrt(z^2 - r^2)
    expected = (4.0**2 - 0.2**2) / (2.0**2 - 0.2**2)
    ratio = coverage(near).sum() / coverage(far).sum()
    assert ratio == pytest.approx(expected, rel=0.01)


def test_a_small_step_away_is_as_long_as_a_step_sideways(body):
    """At every distance, on the optical axis, so that the drawn shape is not squeezed."""
    faces = np.array([[0, 1, 2]])
    for z in (0.5, 3.0, 40.0):
        points = np.array([[0, 0, z], [1e-4 * z, 0, z], [0, 0, z * (1 + 1e-4)]])
        origin, aside, away = place_body(points, faces, RED, FOCAL, CENTER).vertices
        assert away[2] - origin[2] == pytest.approx(aside[0] - origin[0], rel=1e-3), z


@pytest.mark.parametrize("nearer", [0, 1])
def test_the_nearest_person_covers_the_others_in_any_order(nearer, body):
    places = [[0, 0.1, 3.0], [0, 0.1, 3.0]]
    places[nearer] = [0, 0.1, 2.4]
    bodies = [put(body, places[0], RED), put(body, places[1], BLUE)]
    drawn = draw_bodies(np.zeros_like(PHOTO), bodies)
    assert drawn.reshape(-1, 3).sum(axis=0).argmax() == (0, 2)[nearer]
    behind = coverage(bodies[1 - nearer])[coverage(bodies[nearer]) == 0]
    assert behind.sum() < 0.2 * coverage(bodies[nearer]).sum(), "the far one is smaller"
    assert np.array_equal(drawn, draw_bodies(np.zeros_like(PHOTO), bodies[::-1]))


def test_where_bodies_cross_each_pixel_shows_the_nearer():
    drawn = draw_bodies(np.zeros_like(PHOTO), crossing()).astype(int)
    left, right = drawn[100:260, 110:195], drawn[100:260, 205:290]
    assert (left[..., 0] > 90).all() and (left[..., 2] < left[..., 0] / 2).all()
    assert (right[..., 2] > 90).all() and (right[..., 0] < right[..., 2] / 2).all()


def test_one_depth_buffer_is_one_mesh_of_all_bodies(body):
    """Who is seen at each sample, by rasterising all bodies as a single mesh."""
    places = [[-0.2, 0.1, 3.0], [0.2, 0.1, 3.05], [0.05, 0.0, 2.9]]
    bodies = [put(body, place, color) for place, color in zip(places, palette(3), strict=True)]
    count = len(body[0])
    corners = np.concatenate([placed.vertices for placed in bodies]).astype(np.float32)
    faces = np.concatenate([placed.faces + i * count for i, placed in enumerate(bodies)])
    seen = rasterize(torch.from_numpy(2 * corners)[None], torch.from_numpy(faces), 720, 800)
    owner = torch.where(seen.face_index < 0, -1, seen.face_index // len(body[1]))[0]
    share = [(owner == i).float().reshape(360, 2, 400, 2).mean((1, 3)).numpy() for i in range(3)]
    for number, expected in enumerate(share):
        black = [replace(placed, color=(0.0, 0.0, 0.0)) for placed in bodies]
        lit = [*black[:number], bodies[number], *black[number + 1 :]]
        difference = draw_bodies(PHOTO * 0, lit).astype(int) - draw_bodies(PHOTO * 0, black)
        shown = difference.max(axis=-1) > 8  # what its colour adds where it is seen
        wrong = (shown & (expected == 0)) | (~shown & (expected == 1))
        assert expected.sum() > 2000 and wrong.sum() <= 10, (number, wrong.sum())


def test_no_photo_shines_through_where_two_bodies_meet():
    """Red and blue share pixels; the white photo behind has no share in them."""
    drawn = draw_bodies(np.full_like(PHOTO, 255), crossing()).astype(int)
    middle = drawn[120:240, 195:205]
    assert middle[..., 1].max() < 60, middle[..., 1].max()


def test_bodies_apart_are_drawn_as_if_alone(body):
    bodies = [put(body, [x, y, 9.0]) for x, y in ((-2, -1), (2, -1), (0, 1.5))]
    drawn = PHOTO
    for placed in bodies:
        drawn = draw_bodies(drawn, [placed])
    assert np.array_equal(draw_bodies(PHOTO, bodies), drawn)
    assert (drawn != PHOTO).any()


def test_the_photo_is_kept_and_not_painted_on(body):
    before = PHOTO.copy()
    placed = put(body, [0, 0.1, 3.0])
    alpha = coverage(placed)
    drawn = draw_bodies(PHOTO, [placed])
    assert np.array_equal(PHOTO, before)
    assert np.array_equal(drawn[alpha == 0], PHOTO[alpha == 0])
    assert ((alpha > 0.01) & (alpha < 0.99)).sum() > 100, "edges are smooth"


def test_nothing_is_drawn_of_bodies_outside_or_behind_the_camera(body):
    for place in ([50, 0, 3.0], [0, 50, 3.0], [0, 0, -3.0], [0, 0, NEAR - 5]):
        assert np.array_equal(draw_bodies(PHOTO, [put(body, place)]), PHOTO), place
    assert np.array_equal(draw_bodies(PHOTO, []), PHOTO)


def test_what_reaches_the_camera_is_left_out_and_darkens_nothing_else():
    """A wall that slants to the camera's side ends at NEAR, evenly lit up to its edge."""
    rows, columns = np.mgrid[:21, :41]
    x, y = 0.001 * columns - 0.02, 0.001 * rows - 0.01
    points = np.stack([x, y, 0.06 + x], axis=-1).reshape(-1, 3)
    corner = (np.arange(20)[:, None] * 41 + np.arange(40)).ravel()
    first = np.stack([corner, corner + 41, corner + 1], axis=1)
    faces = np.concatenate([first, first[:, [2, 1, 1]] + [0, 0, 1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = draw_bodies(PHOTO, [place_body(points, faces, RED, FOCAL, CENTER)])
    covered = (drawn != PHOTO).any(axis=-1)[150:210]
    edge = np.flatnonzero(covered.all(axis=0))[0] + 2  # behind the pixels of the edge
    expected = CENTER[0] + FOCAL * (NEAR - 0.06) / NEAR
    assert 0 <= edge - expected < 15, (edge, expected)
    wall = drawn[150:210, edge : edge + 100].reshape(-1, 3).astype(int)
    assert np.ptp(wall[:, 0]) < 12 and wall[0, 0] > 60, (wall.min(axis=0), wall.max(axis=0))


def test_bands_and_strips_give_the_picture_of_the_whole(body, tmp_path, monkeypatch):
    bodies = [put(body, [-0.2, 0.1, 2.5], RED), put(body, [0.2, 0.2, 2.6], BLUE)]
    whole = draw_bodies(PHOTO, bodies)
    monkeypatch.setattr(overlay, "BAND_PIXELS", 20_000)
    banded = draw_bodies(PHOTO, bodies)
    monkeypatch.setattr(overlay, "MAX_WHOLE", 0)
    monkeypatch.setattr(overlay, "STRIP_PIXELS", 400 * 50)
    paths = tmp_path / "alone.png", tmp_path / "beside.png"
    write_overlay(PHOTO, bodies, rasterize, *paths)
    alone, beside = map(read_image, paths)
    assert np.array_equal(beside[:, :400], PHOTO) and np.array_equal(beside[:, 400:], alone)
    for name, picture in (("bands", banded), ("strips", alone)):
        different = (picture != whole).any(axis=-1).sum()
        assert different <= 5, f"{name}: {different} pixels"
