import hashlib
import json
import re
import shutil
import time

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from scripts.build.wardrobe.panoramas import pixel_directions
from scripts.build.wardrobe.sources import SKINS
from smpler.datasets.engine.wardrobe import (
    GROUPS,
    HELD_OUT,
    WARDROBE,
    Garment,
    Wardrobe,
    load_wardrobe,
    spherical_harmonics,
)
from smpler.models.body import open_body
from smpler.models.smpl import SMPL
from smpler.utils.drawing.rasterizer import Fragments, rasterize
from smpler.utils.geometry import vertex_normals
from smpler.utils.joints import SMPL_NAMES
from smpler.utils.paths import ROOT

SIDE = 160
DEEPEST = {"outfit": 5e-3, "hat": 3e-3}
"""Metres by which the deepest percent of a garment may be inside a body, where it is not hidden."""
ARMS_DOWN = {"L_Shoulder": (0, 0, -1.1), "R_Shoulder": (0, 0, 1.1)}
STRIDE = ARMS_DOWN | {
    "L_Hip": (-0.7, 0, 0),
    "R_Hip": (0.4, 0, 0),
    "R_Knee": (0.9, 0, 0),
    "L_Elbow": (0, -1.2, 0),
    "Spine2": (0.15, 0.2, 0),
}


@pytest.fixture(scope="module")
def body():
    return open_body()


@pytest.fixture(scope="module")
def wardrobe() -> Wardrobe:
    return load_wardrobe()


@pytest.fixture(scope="module")
def index() -> dict:
    with np.load(WARDROBE) as archive:
        return json.loads(str(archive["index"]))


def garments(wardrobe: Wardrobe) -> list[Garment]:
    return [garment for group in GROUPS for garment in getattr(wardrobe, group)]


def random_betas(rng: np.random.Generator, suits: str) -> np.ndarray:
    betas = rng.normal(size=10).clip(-2, 2)
    betas[2] = {"male": -1, "female": 1}.get(suits, np.sign(betas[2])) * abs(betas[2])
    return betas


def test_there_is_enough_to_wear_and_enough_places(wardrobe):
    counts = {name: len(getattr(wardrobe, name)) for name in (*GROUPS, "skins", "panoramas")}
    least = {"outfits": 11, "shoes": 6, "hair": 10, "hats": 1, "skins": 20, "panoramas": 18}
    assert all(counts[name] >= least[name] for name in least), counts
    for sex in ("male", "female"):
        for group in (*GROUPS, "skins"):
            assert any(i.suits in (sex, "both") for i in getattr(wardrobe, group)), (sex, group)
    for group in (*GROUPS, "skins", "panoramas"):
        names = [item.name for item in getattr(wardrobe, group)]
        assert len(set(names)) == len(names), names


def test_splits_are_disjoint_and_together_everything(wardrobe):
    train, val = wardrobe.split("train"), wardrobe.split("val")
    for group, held_out in HELD_OUT.items():
        names = [[i.name for i in getattr(part, group)] for part in (train, val)]
        assert not set(names[0]) & set(names[1])
        assert set(names[1]) == set(held_out)
        assert set(names[0]) | set(names[1]) == {i.name for i in getattr(wardrobe, group)}
    for part in (train, val):
        assert part.shoes == wardrobe.shoes and part.hats == wardrobe.hats
        for sex in ("male", "female"):
            for group in (*GROUPS, "skins"):
                assert any(i.suits in (sex, "both") for i in getattr(part, group)), (sex, group)


def test_an_unknown_split_is_named(wardrobe):
    with pytest.raises(ValueError, match="not 'test'"):
        wardrobe.split("test")


def test_garments_are_consistent(wardrobe, body):
    for garment in garments(wardrobe):
        count = len(garment.v_template)
        assert garment.shapedirs.shape == (count, 3, 10)
        assert np.abs(garment.lbs_weights.sum(axis=1) - 1).max() < 1e-5, garment.name
        assert garment.lbs_weights.min() >= 0 and garment.lbs_indices.max() < 24
        assert 0 <= garment.anchor.min() and garment.anchor.max() < body.num_vertices
        assert garment.faces.min() == 0 and garment.faces.max() == count - 1
        assert garment.uv.shape == (len(garment.faces), 3, 2)
        assert garment.uv.min() >= 0 and garment.uv.max() <= 1
        assert garment.texture.shape == (512, 512, 4)
        assert garment.hidden_faces.shape == (len(body.faces),)


def test_the_pack_was_made_for_the_shipped_body(wardrobe, body, index):
    assert index["body_sha256"] == body.sha256
    assert wardrobe.body_uv.shape == (len(body.faces), 3, 2)
    assert wardrobe.body_uv.min() >= 0 and wardrobe.body_uv.max() <= 1


def test_garments_lie_outside_the_body(wardrobe, body):
    rng = np.random.default_rng(0)
    for garment in garments(wardrobe):
        if garment.kind not in DEEPEST:
            continue  # shoes enclose feet that are not drawn, hair begins under the skin
        for _ in range(3):
            betas = random_betas(rng, garment.suits)
            rest = body.v_template + body.shapedirs @ betas
            faces = torch.from_numpy(body.faces)
            normals = vertex_normals(torch.from_numpy(rest).float()[None], faces)[0].numpy()
            worn = garment.v_template + garment.shapedirs @ betas
            offset = ((worn - rest[garment.anchor]) * normals[garment.anchor]).sum(axis=1)
            low, middle = np.percentile(offset, [1, 50])
            assert low > -DEEPEST[garment.kind] and middle > 4e-3, (garment.name, low, middle)


def test_skin_does_not_show_through_clothes_and_no_hole_is_left(wardrobe, body):
    """Skin within 15 mm in front of cloth shows through, even if none were hidden.

    A hidden face with no cloth before it, or 50 mm behind, is a hole.
    """
    rng = np.random.default_rng(0)
    layer, through, holes = SMPL(body), {}, {}
    for number, outfit in enumerate(wardrobe.outfits):
        shoes = wardrobe.shoes[number % len(wardrobe.shoes)]
        hidden = torch.from_numpy(outfit.hidden_faces | shoes.hidden_faces)
        for angles, yaw in ((ARMS_DOWN, 0.4), (STRIDE, 2.6)):
            betas = random_betas(rng, outfit.suits)
            vertices, transforms = posed(layer, betas, angles)
            skin = view(vertices, body.faces, yaw)
            cloth = torch.full((SIDE, SIDE), torch.inf)
            for garment in (outfit, shoes):
                clothed = worn(garment, body, betas, angles, transforms)
                depth = view(clothed, garment.faces, yaw).depth[0]
                pokes = (skin.depth[0] < depth) & (depth < skin.depth[0] + 0.015)
                if garment is shoes:  # there are no feet in shoes
                    pokes &= ~hidden[skin.face_index[0]]
                share = (pokes.sum() / depth.isfinite().sum()).item()
                through[garment.name] = max(share, through.get(garment.name, 0))
                both_sides = view(clothed, garment.faces, yaw, cull_backfaces=False)
                cloth = torch.minimum(cloth, both_sides.depth[0])
            seen = skin.depth[0].isfinite()
            hole = seen & hidden[skin.face_index[0]] & (cloth > skin.depth[0] + 0.05)
            holes[outfit.name] = max((hole.sum() / seen.sum()).item(), holes.get(outfit.name, 0))
    assert max(through.values()) < 0.003, through
    assert max(holes.values()) < 0.003, holes


def posed(layer: SMPL, betas: np.ndarray, angles: dict):
    """Vertices (V, 3) of a body, and the transforms (24, 3, 4) of its joints."""
    pose = axis_angles(angles)
    rotmat = torch.from_numpy(Rotation.from_rotvec(pose.numpy()).as_matrix()).float()[None]
    betas = torch.from_numpy(betas).float()[None]
    with torch.no_grad():
        _, transforms = layer.skeleton(rotmat, betas)
        return layer(rotmat, betas).vertices[0].numpy(), transforms[0].numpy()


def axis_angles(angles: dict) -> torch.Tensor:
    pose = torch.zeros(24, 3)
    for name, rotation in angles.items():
        pose[SMPL_NAMES.index(name)] = torch.tensor(rotation)
    return pose


def worn(garment: Garment, body, betas, angles, transforms) -> np.ndarray:
    """The garment's vertices (n, 3), posed as its docstring says."""
    rotmat = Rotation.from_rotvec(axis_angles(angles)[1:].numpy()).as_matrix()
    correctives = body.posedirs[garment.anchor] @ (rotmat - np.eye(3)).ravel()
    rest = garment.v_template + garment.shapedirs @ betas + correctives
    blended = np.einsum("nk,nkab->nab", garment.lbs_weights, transforms[garment.lbs_indices])
    return np.einsum("nab,nb->na", blended[..., :3], rest) + blended[..., 3]


def view(vertices: np.ndarray, faces: np.ndarray, yaw: float, **options) -> Fragments:
    """What a camera sees that has gone round the body by `yaw` radians; depth in metres."""
    x, y, z = vertices.T
    across, away = x * np.cos(yaw) + z * np.sin(yaw), x * np.sin(yaw) - z * np.cos(yaw)
    pixels = np.stack([SIDE * (0.5 + across / 2.1), SIDE * (0.5 - (y + 0.1) / 2.1), away], axis=1)
    pixels, faces = torch.from_numpy(pixels).float()[None], torch.from_numpy(faces)
    return rasterize(pixels, faces, SIDE, SIDE, **options)


def test_skins_wear_underwear(wardrobe, body):
    """Seat and groin have one colour that differs from the belly's by 60 of 255 or more.

    On women the same holds for the bust.
    """
    middles = body.v_template[body.faces].mean(axis=1)
    side, up = np.abs(middles[:, 0]), middles[:, 1]
    torso = body.lbs_weights[body.faces].mean(axis=1)[:, :16].sum(axis=1) > 0.9
    regions = {
        "groin": (side < 0.06) & (up < -0.04) & (up > -0.15),
        "belly": (side < 0.08) & (up > 0.06) & (up < 0.15) & (middles[:, 2] > 0.1),
        "bust": torso & (side < 0.14) & (up > 0.22) & (up < 0.31),
    }
    for skin in wardrobe.skins:
        size = len(skin.texture)
        color = {}
        for name, region in regions.items():
            assert region.sum() > 50
            column, row = (wardrobe.body_uv[region].mean(axis=1) * size).astype(int).T
            color[name] = skin.texture[row, column].astype(float)
        covered = ["groin", "bust"] if skin.suits == "female" else ["groin"]
        for name in covered:
            median = np.median(color[name], axis=0)
            even = (np.abs(color[name] - median).max(axis=1) < 40).mean()
            contrast = np.abs(median - np.median(color["belly"], axis=0)).max()
            assert even > 0.97 and contrast > 60, (skin.name, name, even, contrast)


def test_light_is_in_one_unit(wardrobe):
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(20000, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    for panorama in wardrobe.panoramas:
        assert abs(np.linalg.norm(panorama.sun_direction) - 1) < 1e-4
        assert panorama.sun_direction[1] > 0, panorama.name
        assert panorama.sun_color.min() >= 0
        sun = (normals @ panorama.sun_direction).clip(0)[:, None] * panorama.sun_color
        shown = (spherical_harmonics(normals) @ panorama.ambient + sun).mean()
        assert abs(shown - 1) < 0.02, (panorama.name, shown)
        assert panorama.image.shape == (256, 512, 3) and panorama.image.min() >= 0


def test_ambient_is_the_light_of_the_picture(wardrobe):
    """White matt, lit by the picture pixel by pixel, shows what the harmonics and the sun say.

    Lamps are clipped in the picture, so that it can give less; what is compared is a scene whose
    light comes from its sky.
    """
    panorama = next(p for p in wardrobe.panoramas if p.name == "city")
    directions, solid_angles = pixel_directions(*panorama.image.shape[:2])
    normals = np.array([[0, 1, 0], [1, 0, 0], [0, 0, -1], [0.6, 0, 0.8], [0, -1, 0]])
    cosine = np.einsum("hwk,nk->hwn", directions, normals).clip(0)
    radiance = panorama.image * solid_angles
    exact = np.einsum("hwn,hwc->nc", cosine, radiance) / np.pi
    sun = (normals @ panorama.sun_direction).clip(0)[:, None] * panorama.sun_color
    shown = spherical_harmonics(normals) @ panorama.ambient + sun
    assert np.abs(shown - exact).max() < 0.08, (shown, exact)


def test_spherical_harmonics_are_orthonormal():
    directions, solid_angles = pixel_directions(128, 256)
    basis = spherical_harmonics(directions)
    gram = np.einsum("hwi,hwj->ij", basis * solid_angles, basis)
    assert np.abs(gram - np.eye(9)).max() < 1e-3


def test_loading_takes_about_a_second():
    start = time.process_time()
    load_wardrobe()
    assert time.process_time() - start < 2


def test_the_pack_is_small():
    assert WARDROBE.stat().st_size <= 7e6


def test_notice_names_the_pack_and_every_source(wardrobe, index):
    notice = (ROOT / "NOTICE").read_text().split("Wardrobe: meta_data/wardrobe.npz")[1]
    digest = hashlib.sha256(WARDROBE.read_bytes()).hexdigest()
    assert digest in notice, f"NOTICE lacks sha256 {digest} of the pack"
    listed = dict((name, value) for value, name in re.findall(r"([0-9a-f]{64}) (\S+)", notice))
    sources = {}
    for files in index["sources"].values():
        sources |= {name.removeprefix("package/"): value for name, value in files.items()}
    lacking = [f"    {value} {name}" for name, value in sources.items() if name not in listed]
    assert not lacking, "NOTICE lacks\n" + "\n".join(lacking)
    assert listed == sources, sorted(set(listed.items()) ^ set(sources.items()))
    for garment in garments(wardrobe):
        assert any(name.endswith(f"/{garment.name}.json") for name in sources), garment.name
    for skin in wardrobe.skins:
        assert f"public/data/{SKINS[skin.name]}" in sources, skin.name
    for panorama in wardrobe.panoramas:
        assert f"hdri/{panorama.name}.exr.js" in sources, panorama.name


def test_a_missing_pack_gives_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="is missing") as caught:
        load_wardrobe(tmp_path / "wardrobe.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["text", "cut", "other", "lacks"])
def test_a_broken_pack_gives_one_sentence(tmp_path, damage):
    path = tmp_path / "wardrobe.npz"
    if damage == "text":
        path.write_text("no archive")
    elif damage == "cut":
        shutil.copy(WARDROBE, path)
        with open(path, "r+b") as file:
            file.truncate(WARDROBE.stat().st_size // 2)
    elif damage == "other":
        np.savez(path, v_template=np.zeros(3))
    else:
        with np.load(WARDROBE) as archive:
            np.savez(path, index=archive["index"])
    with pytest.raises(ValueError, match="is no wardrobe") as caught:
        load_wardrobe(path)
    assert "\n" not in str(caught.value) and "scripts.build.wardrobe" in str(caught.value)
