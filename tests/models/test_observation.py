"""Landmarks are looked for where people were estimated to be, and only their own count."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.groups.scenes import GroupPictures
from smpler.models.detectors import Landmarks
from smpler.models.detectors.landmarks import FACE, SEEN, BlazePoseLandmarkDetector
from smpler.models.fitting import points_2d
from smpler.models.observation import (
    Observation,
    SeenLandmarks,
    _seen_twice,
    confidence,
    observe,
    shows_one_person,
    with_the_estimates_sides,
)
from smpler.models.placement import Group
from smpler.utils.image import CropWindow, read_image
from smpler.utils.isolation import MAX_SIDE
from smpler.utils.joints import KEYPOINT_NAMES, SMPL_NAMES, mirrored
from smpler.utils.paths import SAMPLES
from tests.support.samples import empty_scene
from tests.support.standing import FITTED, WINDOW, smpl, standing

__all__ = ["smpl"]  # a fixture

BOX = (20.0, 20.0, 184.0, 184.0)
DARK = np.zeros((224, 224, 3), np.uint8)


class Detector:
    """Says what it was made with, and keeps what it was shown."""

    names = FITTED

    def __init__(self, places, visibility=None, score=1.0):
        self.places = np.broadcast_to(np.asarray(places, float), (len(FITTED), 2))
        self.visibility = np.ones(len(FITTED)) if visibility is None else visibility
        self.score, self.shown = score, []

    def find(self, image, hip, up, radius):
        self.shown.append((image, hip, up, radius))
        return Landmarks(self.places, self.visibility, self.score) if self.score else None


def look(smpl, detector, photo=DARK, windows=(WINDOW,), boxes=(BOX,), others=()) -> Observation:
    people = standing(smpl, people=len(windows)).estimate
    return observe(people, [Group(photo, windows, boxes, others, 300.0)], detector)


def test_landmarks_outside_the_photo_are_neither_seen_nor_followed(smpl):
    places = np.full((15, 2), 100.0)
    places[[2, 13]] = [[-3.0, 50.0], [50.0, 224.0]]
    seen = look(smpl, Detector(places), boxes=[(0.0, 0.0, 224.0, 224.0)])
    assert np.flatnonzero(seen.evidence.weights[0] == 0).tolist() == [2, 13]
    assert torch.equal(seen.landmarks.visibility, seen.evidence.weights)


def test_hidden_landmarks_are_not_followed_but_their_visibility_is_told(smpl):
    visibility = np.linspace(0, 1, 15)
    seen = look(smpl, Detector([100, 100], visibility))
    assert torch.allclose(
        seen.landmarks.visibility[0], torch.from_numpy(visibility).to(seen.landmarks.visibility)
    )
    expected = np.where(visibility < 0.5, 0, visibility)
    assert torch.allclose(seen.evidence.weights[0].double(), torch.from_numpy(expected))


def test_landmarks_at_the_border_that_cuts_a_person_off_must_be_plainly_visible(smpl):
    """Knees that are below the photo are seen squeezed into it."""
    places = np.full((15, 2), 100.0)
    places[[3, 4, 5]] = [[100.0, 215.0], [100.0, 215.0], [215.0, 100.0]]
    visibility = np.full(15, 0.8)
    visibility[4] = 0.95
    cut = (20.0, 20.0, 204.0 - 8, 204.0)  # reaches the bottom, not the right
    seen = look(smpl, Detector(places, visibility), boxes=[cut])
    assert np.flatnonzero(seen.evidence.weights[0] == 0).tolist() == [3]
    assert (seen.landmarks.visibility[0, 3] - 0.8).abs() < 1e-6


def test_landmarks_that_leave_the_box_or_lie_on_a_neighbour_are_not_followed(smpl):
    places = np.full((15, 2), 60.0)
    places[4] = [60.0, 100.0]  # 20 pixels below the box, a quarter of its longer side
    places[5] = [60.0, 111.0]  # too far
    places[6] = [80.0, 60.0]  # in a neighbour's box, but near the own one
    places[7] = [95.0, 60.0]  # in a neighbour's box
    box, neighbour = (30.0, 0.0, 45.0, 80.0), (78.0, 20.0, 60.0, 80.0)
    seen = look(smpl, Detector(places), boxes=[box], others=[neighbour])
    assert np.flatnonzero(seen.evidence.weights[0] == 0).tolist() == [5, 7]
    assert seen.landmarks.visibility[0, 5] == 1


def test_nobody_recognised_has_no_presence_and_nothing_to_follow(smpl):
    seen = look(smpl, Detector([100, 100], score=0))
    assert seen.presence.item() == 0 and not seen.evidence.weights.any()


def test_neighbours_are_black_but_for_what_is_in_the_persons_own_box(smpl):
    photo = np.full((300, 600, 3), 200, np.uint8)
    windows = [CropWindow(100, 20, 240, 240), CropWindow(260, 20, 240, 240)]
    boxes = [(180.0, 40.0, 80.0, 200.0), (340.0, 40.0, 80.0, 200.0)]
    third = (230.0, 40.0, 60.0, 200.0)
    detector = Detector([100, 100])
    look(smpl, detector, photo, windows, boxes, others=[third])
    (first, *_), (second, *_) = detector.shown
    # the first one's part begins at 60: own box and margin, the third behind it, black to 296
    assert first.shape[:2] == (300, 320)
    row = first[140, :, 0]
    assert (row[114:206] == 200).all() and (row[206:236] == 0).all(), np.flatnonzero(row == 0)
    assert (row[274:320] == 0).all() and (row[:114] == 200).all()
    assert (second[140, :76, 0] == 0).all() and (photo == 200).all()


def test_someone_alone_is_seen_in_the_photo_as_it_is(smpl):
    photo = np.random.default_rng(0).integers(0, 255, (224, 224, 3), np.uint8)
    detector = Detector([100, 100])
    look(smpl, detector, photo)
    assert np.array_equal(detector.shown[0][0], photo)


@pytest.mark.parametrize("enlarged", [1, 20])
def test_landmarks_come_back_to_the_photo_from_a_bounded_copy(smpl, enlarged):
    photo = np.zeros((260 * enlarged, 400 * enlarged, 3), np.uint8)
    window = CropWindow(150 * enlarged, 10 * enlarged, 224 * enlarged, 224 * enlarged)
    box = (170.0 * enlarged, 30.0 * enlarged, 184.0 * enlarged, 184.0 * enlarged)
    people = standing(smpl, people=1)
    places = window.to_photo(points_2d(people, FITTED)[0].numpy())
    detector = Detector(places)

    def find(image, hip, up, radius):
        assert max(image.shape[:2]) <= MAX_SIDE
        zoom = image.shape[0] / photo.shape[0]  # the part is as high as the photo
        corner = (box[0] + box[2] / 2 - 0.8 * box[2]) // 1
        return Landmarks((places - [corner, 0]) * zoom, np.ones(15), 1.0)

    detector.find = find
    seen = observe(people.estimate, [Group(photo, [window], [box], [], 300.0)], detector)
    error = (seen.evidence.places - points_2d(people, FITTED)).abs().max().item()
    assert error < 1e-3, error


def test_each_person_is_looked_for_where_they_were_estimated(smpl):
    windows = [CropWindow(0, 0, 224, 224), CropWindow(300, 50, 448, 448)]
    boxes = [BOX, (340.0, 90.0, 368.0, 368.0)]
    detector = Detector([100, 100])
    look(smpl, detector, np.zeros((500, 800, 3), np.uint8), windows, boxes)
    corners = [(0, 0), (229, 0)]
    for (_, hip, up, radius), window, corner in zip(detector.shown, windows, corners, strict=True):
        middle = np.array([window.x + window.width / 2, window.y + window.height / 2])
        assert np.abs(hip + corner - middle).max() < 0.2 * window.width
        assert up[1] < 0 and 0.2 * window.width < radius < window.width


class Crowd(Detector):
    """Sees the same body in every look, unless what is at its middle is black."""

    def __init__(self, places, beside):
        super().__init__(places)
        self.beside = np.asarray(beside, float)

    def find(self, image, hip, up, radius):
        self.shown.append((image, hip, up, radius))
        corner = 12 if len(image) == 256 else 0  # where the small one's part begins, and the other
        x, y = (self.places.mean(axis=0) - corner).astype(int)
        places = self.places if image[y, x].any() else self.beside
        return Landmarks(places - corner, self.visibility, 1.0)


def test_one_body_seen_for_two_people_is_that_whose_box_it_fills_and_is_looked_for_beside(smpl):
    """A small one in the box of a large one; the large one's look shows the small one's body."""
    photo = np.full((300, 300, 3), 200, np.uint8)
    small, large = (110.0, 60.0, 60.0, 160.0), (60.0, 30.0, 200.0, 250.0)
    windows = [CropWindow.for_box(small), CropWindow.for_box(large)]
    rng = np.random.default_rng(0)
    body = np.array([small[0], small[1]]) + rng.random((15, 2)) * [60, 160]
    beside = np.array([170.0, 40.0]) + rng.random((15, 2)) * [80, 230]
    detector = Crowd(body, beside)
    detector.visibility = np.ones(15)
    people, group = standing(smpl).estimate, Group(photo, windows, [small, large], [], 300.0)
    seen = observe(people, [group], detector)
    assert seen.hidden == {1: 0}
    found = [w.to_photo(p.numpy()) for w, p in zip(windows, seen.evidence.places, strict=True)]
    assert np.abs(found[0] - body).max() < 1e-3 and np.abs(found[1] - beside).max() < 1e-3
    # nobody beside: then nothing is followed
    seen = observe(people, [group], Crowd(body, body))
    assert seen.presence.tolist() == [1, 0] and not seen.evidence.weights[1].any()


def test_of_three_with_one_body_it_is_the_one_whose_box_it_fills_best():
    rng = np.random.default_rng(1)
    body = np.array([100.0, 100.0]) + rng.random((15, 2)) * [60, 160]
    found = [Landmarks(body + shift, np.ones(15), 1.0) for shift in (4.0, 0.0, -3.0)]
    best, wide, wider = (
        (98.0, 98.0, 64.0, 164.0),
        (60.0, 90.0, 140.0, 190.0),
        (0.0, 80.0, 260.0, 200.0),
    )
    assert _seen_twice(found, [wider, best, wide]) == {0: 1, 2: 1}
    assert _seen_twice([found[0], None, found[2]], [wider, best, wide]) == {0: 2}
    elsewhere = Landmarks(body + 150, np.ones(15), 1.0)
    assert _seen_twice([found[0], elsewhere], [best, wide]) == {}


def test_swapped_sides_swap_places_weights_and_confidences(smpl):
    people = standing(smpl)
    visibility = np.linspace(0.55, 0.99, 15)
    order = list(mirrored(FITTED))
    places = points_2d(people, FITTED).clone()
    weights = torch.from_numpy(visibility).expand(2, -1).clone()
    presence = torch.ones(2).double()
    landmarks = SeenLandmarks(FITTED, places, weights, weights, torch.ones_like(weights))
    plain = Observation(landmarks, {}, presence)
    parts = (x[:, order] for x in (places, weights, weights, torch.ones_like(weights)))
    behind = Observation(SeenLandmarks(FITTED, *parts), {}, presence)
    for seen in (plain, behind):
        found = with_the_estimates_sides(seen, people)
        assert torch.equal(found.evidence.places, places)
        assert torch.equal(found.evidence.weights, weights)
        assert torch.equal(confidence(found, SMPL_NAMES), confidence(plain, SMPL_NAMES))


def test_joints_without_a_landmark_have_no_confidence(smpl):
    class Few(Detector):
        names = ("L_Shoulder", "R_Shoulder", "L_Hip", "R_Hip")

    detector = Few([100, 100])
    detector.places, detector.visibility = np.full((4, 2), 100.0), np.full(4, 0.9)
    found = confidence(look(smpl, detector), SMPL_NAMES)[0]
    assert found[SMPL_NAMES.index("L_Wrist")] == 0 and found[SMPL_NAMES.index("Pelvis")] > 0.8
    assert found.isfinite().all()


def test_who_is_not_found_where_estimated_is_looked_for_in_the_whole_box(smpl):
    detector = Detector([100, 100])
    looks = []

    def find(image, hip, up, radius):
        looks.append((hip, radius))
        return None if len(looks) == 1 else Landmarks(detector.places, detector.visibility, 0.8)

    detector.find = find
    seen = look(smpl, detector)
    assert seen.presence.item() == pytest.approx(0.8)
    assert np.abs(looks[1][0] - [112, 112]).max() < 1e-6 and looks[1][1] == pytest.approx(92)


def test_joints_have_the_confidence_of_the_landmarks_round_them(smpl):
    visibility = np.linspace(0.05, 0.95, 15)
    seen = look(smpl, Detector([100, 100], visibility))
    known = dict(zip(FITTED, visibility, strict=True))
    joints = dict(zip(SMPL_NAMES, confidence(seen, SMPL_NAMES)[0].tolist(), strict=True))
    keypoints = dict(zip(KEYPOINT_NAMES, confidence(seen, KEYPOINT_NAMES)[0].tolist(), strict=True))
    for name in KEYPOINT_NAMES[:12]:
        assert keypoints[name] == joints[name] == pytest.approx(known[name]), name
    assert joints["L_Foot"] == pytest.approx(known["L_Ankle"])
    assert joints["R_Hand"] == pytest.approx(known["R_Wrist"])
    assert joints["Pelvis"] == pytest.approx((known["L_Hip"] + known["R_Hip"]) / 2)
    face = np.mean([known[name] for name in ("Nose", "L_Ear", "R_Ear")])
    assert joints["Head"] == keypoints["Head"] == pytest.approx(face)


def test_a_crop_plainly_shows_one_person_and_empty_pictures_do_not():
    detector = BlazePoseLandmarkDetector.load()
    crop = read_image(SAMPLES / "im01.png")[90:570, 110:460].copy()
    assert shows_one_person(crop, detector) > 0.9
    sky = np.repeat(np.linspace(80, 220, 300).astype(np.uint8)[:, None], 400, axis=1)
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    square = empty_scene(GroupPictures(seed=7), 6)  # the score is 0.97
    for empty in (np.full((300, 400, 3), 255, np.uint8), np.dstack([sky] * 3), noise, square):
        assert shows_one_person(empty, detector) == 0


def test_landmarks_that_the_fit_does_not_follow_count_nothing():
    """Hidden hands and faces, of which there are many, make nobody of a body that is plain."""
    followed, others = (*SEEN, *FACE), ("L_Thumb", "R_Thumb") * 20
    places = np.full((len(followed) + len(others), 2), 150.0)
    visibility = np.array([1.0] * len(followed) + [0.0] * len(others))
    found = Landmarks(places, visibility, 0.99)
    detector = SimpleNamespace(names=(*followed, *others), find=lambda *_: found)
    assert shows_one_person(np.zeros((300, 300, 3), np.uint8), detector) == 0.99
