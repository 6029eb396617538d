"""Landmarks in photos, and bodies brought onto them; the energy's minimum against SciPy's."""

import cv2
import numpy as np
import pytest
import scipy.optimize
import torch

import demo
from scripts.build.blazepose import person_crop
from smpler.models import fitting
from smpler.models.body import open_body
from smpler.models.detectors.landmarks import (
    FACE,
    SEEN,
    LandmarkDetector,
    Landmarks,
    cut,
    view_matrix,
)
from smpler.models.detectors.person import PersonDetector
from smpler.models.fitting import (
    FITTED,
    changed,
    energy,
    fit_to_landmarks,
    fit_to_photo,
    points_2d,
)
from smpler.models.smpl import SMPL, Estimate
from smpler.models.weights.checkpoint import load_model
from smpler.utils.geometry import axis_angle_to_rotmat, project
from smpler.utils.image import CropWindow, read_image
from smpler.utils.joints import ANNOTATION_NAMES, KEYPOINT_NAMES, SMPL_NAMES, mirrored
from smpler.utils.paths import SAMPLES
from tests.support import standin

JOINTS = [SMPL_NAMES.index(name) for name in SEEN]


@pytest.fixture(scope="module")
def smpl() -> SMPL:
    return SMPL(open_body()).double()


@pytest.fixture(scope="module")
def detector() -> LandmarkDetector:
    return LandmarkDetector.load()


def standing(smpl: SMPL, seed: int = 0, people: int = 2) -> Estimate:
    """People who stand about, upright in the crop, float64."""
    generator = torch.Generator().manual_seed(seed)
    angles = 0.3 * torch.randn(people, 24, 3, generator=generator, dtype=torch.float64)
    upright = axis_angle_to_rotmat(torch.tensor([torch.pi, 0, 0], dtype=torch.float64))
    rotmat = axis_angle_to_rotmat(angles)
    rotmat[:, 0] = upright @ rotmat[:, 0]
    betas = torch.randn(people, 10, generator=generator, dtype=torch.float64)
    cam = torch.tensor([[0.9, 0.0, 0.1]], dtype=torch.float64).expand(people, -1)
    return smpl.estimate(rotmat, betas, cam)


def places_of(estimate: Estimate) -> torch.Tensor:
    return points_2d(estimate).clone()


def everywhere(people: int = 2) -> torch.Tensor:
    return torch.ones(people, len(FITTED), dtype=torch.float64)


def test_the_shipped_network_is_the_original(detector):
    golden = np.load(standin.GOLDEN / "blazepose_full.npz")
    with torch.no_grad():
        values, presence = detector.network(person_crop())
    error = (
        np.abs(values[0].numpy() - golden["landmarks"]).max() / np.abs(golden["landmarks"]).max()
    )
    assert error < 1e-4, f"{error} of the largest value"
    assert abs(presence.sigmoid().item() - golden["score"].item()) < 1e-4


def place_in_photo(name: str, turns: int = 0):
    """A sample, turned left by so many quarters, and where its best person is."""
    photo = read_image(SAMPLES / name)
    person = PersonDetector.load().detect(photo, max_people=1)[0]
    hip, shoulders = np.array(person.hip_center), np.array(person.shoulder_center)
    turned = photo
    for _ in range(turns):
        hip, shoulders = ((x[1], turned.shape[1] - x[0]) for x in (hip, shoulders))
        turned = np.rot90(turned)
    hip, shoulders = np.array(hip), np.array(shoulders)
    return np.ascontiguousarray(turned), hip, shoulders - hip, person.box[2] / 1.9


# Measured by hand in samples/im01.png, a woman who walks to the left; left is her left.
WOMAN = {
    "L_Ankle": (222, 512), "R_Ankle": (388, 508), "L_Knee": (243, 432), "R_Knee": (350, 432),
    "L_Wrist": (390, 318), "R_Wrist": (203, 285), "L_Elbow": (352, 258), "R_Elbow": (262, 250),
}  # fmt: skip
TORSO = 150


def test_landmarks_are_found_upright_and_turned(detector):
    found = {}
    for turns in (0, 1):
        photo, *place = place_in_photo("im01.png", turns)
        found[turns] = detector.find(photo, *place)
    errors = [np.linalg.norm(found[0].keypoints[SEEN.index(x)] - WOMAN[x]) for x in WOMAN]
    assert np.mean(errors) < 0.12 * TORSO, dict(zip(WOMAN, np.round(errors), strict=True))
    width = read_image(SAMPLES / "im01.png").shape[1]
    x, y = found[0].keypoints.T
    turned = np.column_stack([y, width - x])
    assert np.abs(found[1].keypoints - turned).max() < 0.05 * TORSO
    assert found[0].score > 0.9 and found[0].visibility.max() > 0.9


def test_nobody_is_found_where_nobody_is(detector):
    grey = np.full((300, 300, 3), 128, np.uint8)
    assert detector.find(grey, np.array([150.0, 150.0]), np.array([0.0, -50.0]), 100.0) is None


def test_landmarks_on_the_joints_change_nothing(smpl):
    before = standing(smpl)
    after = fit_to_landmarks(smpl, before, places_of(before), everywhere())
    assert (after.vertices - before.vertices).abs().max() < 1e-6
    assert torch.equal(after.betas, before.betas)
    # nor does rounding grow
    after = fit_to_landmarks(smpl, before, places_of(before) + 1e-6, everywhere())
    assert (after.vertices - before.vertices).norm(dim=-1).max() < 1e-3


def test_unseen_landmarks_change_nothing(smpl):
    before = standing(smpl)
    places = places_of(before) + 0.3
    places[1, 0] = torch.nan
    after = fit_to_landmarks(smpl, before, places, torch.zeros_like(everywhere()))
    assert (after.vertices - before.vertices).abs().max() < 1e-6


def test_a_landmark_pulls_as_much_as_it_is_seen(smpl):
    before = standing(smpl)
    wrist = FITTED.index("L_Wrist")
    places, moved = places_of(before), []
    places[:, wrist] += 0.1
    for weight in (0.0, 0.2, 1.0):
        weights = everywhere()
        weights[:, wrist] = weight
        after = fit_to_landmarks(smpl, before, places, weights)
        moved.append((points_2d(after) - points_2d(before))[:, wrist].norm(dim=-1))
    assert (moved[0] < 1e-6).all()
    assert (moved[1] > 0.01).all() and (moved[2] > 1.3 * moved[1]).all(), moved


def test_the_energy_is_the_sum_that_it_says(smpl):
    """Term by term, in a plain loop."""
    before, generator = standing(smpl), torch.Generator().manual_seed(5)
    turn = 0.2 * torch.randn(2, 24, 3, generator=generator, dtype=torch.float64)
    change = 0.1 * torch.randn(2, 3, generator=generator, dtype=torch.float64)
    weights = torch.rand(2, len(FITTED), generator=generator, dtype=torch.float64)
    noise = 0.1 * torch.randn(2, len(FITTED), 2, generator=generator, dtype=torch.float64)
    places = places_of(before) + noise
    found = energy(smpl, before, turn, change, places, weights)
    for person in range(2):
        rotmat = before.rotmat[person] @ axis_angle_to_rotmat(turn[person])
        s, *t = before.cam[person].tolist()
        cam = [s * np.exp(change[person, 0].item()), *(t + change[person, 1:].numpy())]
        cam = torch.tensor([cam], dtype=torch.float64)
        after = smpl.estimate(rotmat[None], before.betas[person : person + 1], cam)
        expected = 0.0
        for number, place in enumerate(points_2d(after)[0]):
            squared = ((place - places[person, number]) / fitting.LANDMARK_SCATTER) ** 2
            squared = squared.sum().item()
            robust = squared / (1 + squared / fitting.OUTLIER**2)
            expected += weights[person, number].item() * robust
        for joint in range(24):
            scatter = fitting.ROTATION_SCATTER if joint else fitting.ROOT_SCATTER
            expected += (turn[person, joint] / scatter).square().sum().item()
            depth = after.joints[0, joint, 2] - after.joints[0, 0, 2]
            depth -= before.joints[person, joint, 2] - before.joints[person, 0, 2]
            expected += (depth / fitting.DEPTH_SCATTER).square().item()
        expected += (change[person] / fitting.CAMERA_SCATTER).square().sum().item()
        assert abs(found[person].item() - expected) < 1e-9 * expected


def test_a_limb_that_is_elsewhere_is_brought_there_and_the_rest_stays(smpl):
    before = standing(smpl)
    turn = torch.zeros_like(before.joints)
    axis = before.rotmat.new_tensor([0.0, 0.0, 0.5])  # in the image, of the camera's frame
    shoulder = SMPL_NAMES.index("L_Shoulder")
    frame = before.rotmat[:, 0]
    for joint in ("Spine1", "Spine2", "Spine3", "L_Collar", "L_Shoulder"):
        frame = frame @ before.rotmat[:, SMPL_NAMES.index(joint)]
    turn[:, shoulder] = (frame.mT @ axis[:, None])[..., 0]
    target = changed(smpl, before, turn, torch.zeros_like(before.cam), "mesh")
    after = fit_to_landmarks(smpl, before, places_of(target), everywhere())
    wrist, ankle = (SMPL_NAMES.index(name) for name in ("L_Wrist", "R_Ankle"))
    was, now = ((x.joints_2d - target.joints_2d)[:, wrist].norm(dim=-1) for x in (before, after))
    assert (was > 0.15).all() and (now < 0.25 * was).all(), (was, now)
    now = (after.joints - target.joints)[:, wrist].norm(dim=-1)  # in space too
    assert (now < 0.4 * (before.joints - target.joints)[:, wrist].norm(dim=-1)).all()
    assert (after.joints - before.joints)[:, ankle].norm(dim=-1).max() < 0.02


def test_one_wild_landmark_hardly_pulls(smpl):
    before = standing(smpl)
    places = places_of(before)
    places[..., 0] += 0.1  # all a little to the right, which must be followed
    places[:, FITTED.index("R_Ankle")] += 1.0
    after = fit_to_landmarks(smpl, before, places, everywhere())
    moved = after.joints_2d - before.joints_2d
    assert (moved - moved.new_tensor([0.1, 0])).norm(dim=-1).max() < 0.03, moved


def test_the_minimum_is_found(smpl):
    """Adam's energy is at most a two-hundredth of what there was to gain above L-BFGS's."""
    before = standing(smpl, people=1)
    generator = torch.Generator().manual_seed(3)
    turn = torch.zeros_like(before.joints)
    for joint in ("L_Hip", "R_Knee", "L_Shoulder", "R_Elbow", "Neck"):
        turn[0, SMPL_NAMES.index(joint)] = 0.4 * torch.randn(3, generator=generator).double()
    target = changed(smpl, before, turn, torch.zeros_like(before.cam), "skeleton")
    noise = 0.03 * torch.randn(1, len(FITTED), 2, generator=generator, dtype=torch.float64)
    places, weights = places_of(target) + noise, everywhere(1)

    def at(x: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.from_numpy(x).requires_grad_()
        value = energy(smpl, before, x[:72].view(1, 24, 3), x[None, 72:], places, weights).sum()
        return value.item(), torch.autograd.grad(value, x)[0].numpy()

    best = scipy.optimize.minimize(at, np.zeros(75), jac=True, method="L-BFGS-B", tol=1e-9)
    after = fit_to_landmarks(smpl, before, places, weights)
    turn = before.rotmat.mT @ after.rotmat
    cosine = ((turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1)
    skew = torch.stack(
        [turn[..., 2, 1] - turn[..., 1, 2], turn[..., 0, 2] - turn[..., 2, 0],
         turn[..., 1, 0] - turn[..., 0, 1]], dim=-1,
    )  # fmt: skip
    angle = torch.arccos(cosine)
    vector = skew / 2 * (angle / torch.sin(angle).clamp(min=1e-12))[..., None]
    scale, shift = after.cam[:, :1] / before.cam[:, :1], after.cam[:, 1:] - before.cam[:, 1:]
    found = np.concatenate([vector.flatten(), scale.log()[0], shift[0]])
    start, ours = at(np.zeros(75))[0], at(found)[0]
    assert ours - best.fun < 0.005 * (start - best.fun), (start, ours, best.fun)


def test_the_face_is_where_the_open_body_has_it(smpl):
    """Nose and ears of a posed body, by the annotation's regressor, to two centimetres."""
    before = standing(smpl)
    regressor = torch.from_numpy(open_body().annotation_regressor).double()
    rows = [ANNOTATION_NAMES.index(name) for name in FACE]
    expected = project((regressor @ before.vertices)[:, rows], before.cam)
    error = (points_2d(before)[:, -3:] - expected).norm(dim=-1) / before.cam[:, :1]
    assert error.max() < 0.02, error


def test_the_head_turns_to_where_the_face_is(smpl):
    before = standing(smpl)
    turn = torch.zeros_like(before.joints)
    turn[:, SMPL_NAMES.index("Head"), 1] = 0.7
    target = changed(smpl, before, turn, torch.zeros_like(before.cam), "mesh")
    after = fit_to_landmarks(smpl, before, points_2d(target), everywhere())
    was, now = ((points_2d(x) - points_2d(target))[:, -3].norm(dim=-1) for x in (before, after))
    assert (was > 0.03).all() and (now < 0.5 * was).all(), (was, now)


def test_landmarks_that_no_body_reaches_change_nothing(smpl):
    before = standing(smpl)
    places = places_of(before)
    upside_down = places * torch.tensor([1.0, -0.6])
    places[0] = upside_down[0]
    places[1, :, 0] += 0.1
    after = fit_to_landmarks(smpl, before, places, everywhere())
    moved = (after.vertices - before.vertices).norm(dim=-1).amax(dim=1)
    assert moved[0] < 1e-6 and (after.cam - before.cam)[1].abs().max() > 0.05, moved


def test_steps_are_those_of_torchs_adam(monkeypatch):
    monkeypatch.setattr(fitting, "NUM_STEPS", 25)
    start = [torch.tensor([3.0, -2.0, 0.5], dtype=torch.float64), torch.tensor([[1.0]]).double()]
    ours, theirs = ([x.clone().requires_grad_() for x in start] for _ in range(2))
    optimizer = torch.optim.Adam(
        theirs,
        fitting.LEARNING_RATE,
        betas=fitting.MOMENTS,
        eps=fitting.SMALL_GRADIENT,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 25)

    def value(x):
        return (x[0].square() * torch.tensor([1.0, 30.0, 0.1])).sum() + (x[1] * x[0]).exp().sum()

    fitting.minimise(lambda: value(ours), ours)
    for _ in range(25):
        optimizer.zero_grad()
        value(theirs).backward()
        optimizer.step()
        schedule.step()
    for a, b, before in zip(ours, theirs, start, strict=True):
        assert (a - b).abs().max() < 1e-9 and (a - before).abs().min() > 0.1


def test_sides_that_the_network_sees_the_other_way_round_are_swapped(smpl):
    before = standing(smpl)
    places = places_of(before)
    swapped = places[:, list(mirrored(FITTED))]
    swapped[1] = places[1]  # the second person's are as they should be
    found = fitting.with_the_estimates_sides(before, swapped, everywhere())
    assert torch.equal(found, places)


@pytest.mark.parametrize("enlarged", [1, 8])
def test_a_view_shows_the_same_at_any_size_of_photo(enlarged):
    """A smooth picture, and on the large one noise of single pixels, which must average out."""
    x, y = np.meshgrid(np.arange(300 * enlarged), np.arange(300 * enlarged))
    smooth = 128 + 80 * np.sin((x + 0.5) / enlarged / 15) * np.cos((y + 0.5) / enlarged / 11)
    checks = 40 * (-1.0) ** (x + y) if enlarged > 1 else 0
    photo = (smooth + checks).round().astype(np.uint8)[..., None].repeat(3, axis=2)
    center, up = np.array([140.0, 160.0]), np.array([20.0, -60.0])
    large = (center + 0.5) * enlarged - 0.5
    view = cut(photo, view_matrix(large, up * enlarged, 200.0 * enlarged))
    small = np.indices((256, 256))[::-1].reshape(2, -1).T
    back = cv2.invertAffineTransform(view_matrix(center, up, 200.0))
    x, y = (small @ back[:, :2].T + back[:, 2]).T
    expected = 128 + 80 * np.sin((x + 0.5) / 15) * np.cos((y + 0.5) / 11)
    inside = (x > 2) & (x < 297) & (y > 2) & (y < 297)
    error = np.abs(view[..., 0].ravel() - expected)[inside]
    assert error.mean() < 3 and error.max() < 12, (error.mean(), error.max())


def test_landmarks_outside_the_photo_do_not_count(smpl, monkeypatch):
    before, told = standing(smpl, people=1), []
    detector = LandmarkDetector()
    places = np.full((15, 2), 100.0)
    places[[2, 13]] = [[-3.0, 50.0], [50.0, 224.0]]
    detector.find = lambda *_: Landmarks(places[:12], np.ones(12), 1.0, places[12:], np.ones(3))

    def fit(smpl, estimate, places, weights):
        told.append(weights)
        return estimate

    monkeypatch.setattr(fitting, "fit_to_landmarks", fit)
    photo = np.zeros((224, 224, 3), np.uint8)
    fit_to_photo(smpl, before, photo, [CropWindow(0, 0, 224, 224)], detector)
    assert np.flatnonzero(told[0][0] == 0).tolist() == [2, 13]


def test_who_is_not_found_stays_as_estimated(smpl):
    before = standing(smpl)
    detector = LandmarkDetector()
    detector.find = lambda *_: None
    window = CropWindow(0, 0, 224, 224)
    photo = np.zeros((224, 224, 3), np.uint8)
    after = fit_to_photo(smpl, before, photo, [window] * 2, detector)
    assert (after.vertices - before.vertices).abs().max() < 1e-6


def test_each_person_gets_their_own_landmarks(smpl):
    before = standing(smpl)
    windows = [CropWindow(0, 0, 224, 224), CropWindow(300, 50, 448, 448)]
    seen = []

    def find(photo, hip, up, radius):
        number = len(seen)
        seen.append((hip, up, radius))
        places = windows[number].to_photo(points_2d(before)[number].numpy() + [0.1, 0])
        return Landmarks(places[:12], np.ones(12), 1.0, places[12:], np.ones(3))

    detector = LandmarkDetector()
    detector.find = find
    photo = np.zeros((500, 800, 3), np.uint8)
    after = fit_to_photo(smpl, before, photo, windows, detector)
    moved = (after.joints_2d - before.joints_2d)[:, JOINTS].mean(dim=1)
    assert (moved - moved.new_tensor([0.1, 0])).abs().max() < 0.03, moved
    for (hip, up, radius), window in zip(seen, windows, strict=True):
        middle = np.array([window.x + window.width / 2, window.y + window.height / 2])
        assert np.abs(hip - middle).max() < 0.2 * window.width
        assert up[1] < 0 and 0.2 * window.width < radius < window.width


@pytest.mark.parametrize("inference", [True, False])
def test_the_released_model_and_the_fit_meet_a_walks_stride(detector, inference):
    """The network alone makes the stride half as wide."""
    photo, window = (
        read_image(SAMPLES / "im01.png"),
        CropWindow.for_box((160.0, 110.0, 250.0, 430.0)),
    )
    model = load_model()
    errors = {}
    for landmarks in (None, detector):
        with torch.inference_mode(inference):
            estimate = demo.estimate_people(photo, [window], model, True, landmarks)
        found = window.to_photo(estimate.keypoints_2d[0].double().numpy())
        errors[landmarks] = {
            name: np.linalg.norm(found[KEYPOINT_NAMES.index(name)] - place) / TORSO
            for name, place in WOMAN.items()
        }
    assert np.mean(list(errors[detector].values())) < 0.12, errors[detector]
    assert max(errors[detector].values()) < 0.25, errors[detector]
    assert np.mean(list(errors[None].values())) > 0.15, errors[None]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], (True, True)),
        (["--no-fit"], (True, False)),
        (["--no-mirror"], (False, True)),
        (["--checkpoint", "own.pt"], (False, False)),
        (["--checkpoint", "own.pt", "--fit"], (False, True)),
    ],
)
def test_the_demo_fits_by_default_with_the_open_weights_alone(
    flags, expected, monkeypatch, tmp_path
):
    told = []

    class Stop(Exception):
        pass

    def process_photo(path, name, model, detector, landmarks, weights, arguments):
        told.append((arguments.mirror, landmarks is not None))
        raise Stop

    monkeypatch.setattr(demo, "load_model", lambda *_, **__: None)
    monkeypatch.setattr(demo, "choose_backend", lambda model, _: model)
    monkeypatch.setattr(demo, "describe_weights", lambda _: ("", ""))
    monkeypatch.setattr(demo, "process_photo", process_photo)
    with pytest.raises(Stop):
        demo.main(["--device", "cpu", "--out_dir", str(tmp_path), *flags])
    assert told == [expected]
