from dataclasses import replace

import numpy as np
import pygltflib
import pytest
import trimesh
from scipy.spatial.transform import Rotation, Slerp

from smpler.utils.drawing.visualize import palette
from smpler.utils.files.meshes import PhotoCamera
from smpler.utils.files.skinned import SkinnedPart, continuous, skinned_glb
from smpler.utils.joints import SMPL_NAMES, SMPL_PARENTS
from smpler.utils.rig import Motion
from tests.utils.test_rig import BETAS, pose_by_layer, some_pose

DTYPES = {5126: "<f4", 5125: "<u4", 5121: "u1"}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class SkinnedFile:
    """A .glb file as pygltflib reads it, skinned by a plain loop as the glTF 2.0 text says."""

    def __init__(self, data: bytes):
        self.gltf = pygltflib.GLTF2().load_from_bytes(data)
        self.binary = self.gltf.binary_blob()
        self.nodes = self.gltf.nodes

    def node(self, name: str) -> pygltflib.Node:
        (node,) = [node for node in self.nodes if node.name == name]
        return node

    def array(self, number: int) -> np.ndarray:
        accessor = self.gltf.accessors[number]
        view = self.gltf.bufferViews[accessor.bufferView]
        dtype, width = DTYPES[accessor.componentType], WIDTHS[accessor.type]
        count = accessor.count * width
        flat = np.frombuffer(self.binary, dtype, count, view.byteOffset)
        assert view.byteLength == flat.nbytes and view.byteOffset % 4 == 0
        return flat.reshape(-1, width)

    def matrices(self, time: float | None) -> dict[int, np.ndarray]:
        """Global matrix of each node; None: as the nodes stand without the animation."""
        own = [
            {"translation": node.translation, "rotation": node.rotation, "scale": node.scale}
            for node in self.nodes
        ]
        if time is not None:
            (animation,) = self.gltf.animations
            for channel in animation.channels:
                sampler = animation.samplers[channel.sampler]
                times, keys = self.array(sampler.input)[:, 0], self.array(sampler.output)
                value = sample(times, keys, time, sampler.interpolation, channel.target.path)
                own[channel.target.node][channel.target.path] = value
        found = {}

        def visit(number: int, above: np.ndarray) -> None:
            matrix, trs = np.eye(4), own[number]
            rotation = Rotation.from_quat(trs["rotation"] or [0, 0, 0, 1]).as_matrix()
            scale = trs["scale"] if trs["scale"] is not None else [1, 1, 1]
            matrix[:3, :3] = rotation * scale
            matrix[:3, 3] = trs["translation"] or [0, 0, 0]
            found[number] = above @ matrix
            for child in self.nodes[number].children or []:
                visit(child, found[number])

        for number in self.gltf.scenes[self.gltf.scene].nodes:
            visit(number, np.eye(4))
        assert len(found) == len(self.nodes), "every node is in the scene, once"
        return found

    def skinned(self, name: str, time: float | None = None, every: int = 1) -> np.ndarray:
        """Every so many-th vertex of a person, in the scene."""
        node = self.node(name)
        skin = self.gltf.skins[node.skin]
        world, back = self.matrices(time), self.array(skin.inverseBindMatrices)
        joints = [
            world[joint] @ back[number].reshape(4, 4).T for number, joint in enumerate(skin.joints)
        ]
        (primitive,) = self.gltf.meshes[node.mesh].primitives
        corners = self.array(primitive.attributes.POSITION)
        index = self.array(primitive.attributes.JOINTS_0)
        weights = self.array(primitive.attributes.WEIGHTS_0)
        places = []
        for vertex in range(0, len(corners), every):
            rest = np.append(corners[vertex].astype(float), 1.0)
            place = np.zeros(4)
            for joint, weight in zip(index[vertex], weights[vertex], strict=True):
                place += weight * (joints[joint] @ rest)
            places.append(place[:3])
        return np.array(places)


def sample(times, keys, time, interpolation, path) -> list[float]:
    """The value of a sampler; before the first key and after the last it stays as it is there."""
    times = times.astype(float)
    time = min(max(time, times[0]), times[-1])
    if len(times) == 1 or interpolation == "STEP":
        return keys[np.searchsorted(times, time, side="right") - 1].tolist()
    assert interpolation == "LINEAR"
    if path == "rotation":
        return Slerp(times, Rotation.from_quat(keys))(time).as_quat().tolist()
    return [float(np.interp(time, times, column)) for column in keys.T]


@pytest.fixture
def part(tiny_body) -> SkinnedPart:
    """Six poses, from frame 2 on, of a body whose vertices 24 joints move."""
    rig, rotmat = tiny_body.rig(BETAS), some_pose(6)
    root = rig.joints[0] + np.random.default_rng(1).normal(size=(6, 3))
    times = np.arange(2, 8) / 10
    motion = Motion.of(rotmat, root)
    color = palette(1)[0]
    return SkinnedPart(
        "person_1", rig, rig.vertices, rig.normals, motion, color, times, 0.1, extras={"a": 1.5}
    )


def test_a_still_bends_into_exactly_the_bodys_mesh(part, tiny_body):
    rotmat = some_pose(1)
    vertices, _ = pose_by_layer(tiny_body, rotmat, BETAS)
    rest, normals = part.rig.unposed(vertices[0], rotmat[0])
    motion = Motion.of(rotmat, part.rig.joints[:1])
    still = replace(part, vertices=rest, normals=normals, motion=motion, times=None)
    file = SkinnedFile(skinned_glb([replace(still, translation=(1.0, 2.0, -3.0))]))
    assert not file.gltf.animations
    error = np.abs(file.skinned("person_1") - (vertices[0] * [1, -1, -1] + [1, 2, -3])).max()
    assert error < 1e-5, error


def test_a_motion_bends_as_the_rig_does_at_every_key(part):
    file = SkinnedFile(skinned_glb([part]))
    posed = part.rig.posed(part.motion.rotations) + (part.motion.root - part.rig.joints[0])[:, None]
    for frame, time in enumerate(part.times):
        error = np.abs(file.skinned("person_1", time) - posed[frame]).max()
        assert error < 1e-5, (frame, error)
    at_rest = np.abs(file.skinned("person_1") - posed[0]).max()
    assert at_rest < 1e-5, "the nodes hold the first pose"
    (animation,) = file.gltf.animations
    assert animation.name == "motion"
    assert file.node("person_1").extras == {"a": 1.5}
    # the rest pose is the shaped body's, which a program shows that ignores skins
    scene = trimesh.load_scene(trimesh.util.wrap_as_stream(skinned_glb([part])), file_type="glb")
    mesh = scene.geometry["person_1"]
    assert np.abs(np.asarray(mesh.bounds[0]) - part.rig.vertices.min(axis=0)).max() < 1e-6
    assert set(SMPL_NAMES) <= set(scene.graph.nodes)


def test_people_come_and_go(part):
    """Nobody is seen before the first or after the last of their poses."""
    later = replace(part, name="person_2", times=part.times + 0.4)
    file = SkinnedFile(skinned_glb([part, later], PhotoCamera(500.0, (640, 480))))

    def size(name: str, time: float) -> float:
        return float(np.ptp(file.skinned(name, time), axis=0).max())

    for name, first, last in (("person_1", 2, 7), ("person_2", 6, 11)):
        for frame in (0, first - 1, first, last, last + 1):
            is_there = first <= frame <= last or frame > 11  # 11 is the last pose of all
            assert (size(name, frame / 10) > 0.1) == is_there, (name, frame)
    alone = SkinnedFile(skinned_glb([replace(part, times=part.times - part.times[0])]))
    paths = {channel.target.path for channel in alone.gltf.animations[0].channels}
    assert paths == {"rotation", "translation"}, "who is always there needs no scale"


def test_the_file_keeps_the_specifications_rules(part):
    later = replace(part, name="person_2", times=part.times + 0.4)
    file = SkinnedFile(skinned_glb([part, later], PhotoCamera(500.0, (640, 480))))
    gltf, nodes = file.gltf, file.nodes
    assert [nodes[number].name for number in gltf.scenes[0].nodes] == [
        "person_1", "person_1_skeleton", "person_2", "person_2_skeleton", "photo_camera",
    ]  # fmt: skip
    for skin in gltf.skins:
        names = [nodes[joint].name for joint in skin.joints]
        assert tuple(names) == SMPL_NAMES
        for number, joint in enumerate(skin.joints):
            parents = [i for i, node in enumerate(nodes) if joint in (node.children or [])]
            own = SMPL_PARENTS[number]
            assert parents == [skin.skeleton if own < 0 else skin.joints[own]]
        # the last row of a matrix is (0, 0, 0, 1), and matrices lie column by column
        assert np.array_equal(
            file.array(skin.inverseBindMatrices)[:, 3::4].T[:3], np.zeros((3, 24))
        )
    (animation,) = gltf.animations
    targets = [(c.target.node, c.target.path) for c in animation.channels]
    assert len(set(targets)) == len(targets) == 2 * (24 + 1 + 1)
    for sampler in animation.samplers:
        accessor, times = gltf.accessors[sampler.input], file.array(sampler.input)[:, 0]
        assert (np.diff(times) > 0).all() and times[0] >= 0
        assert (accessor.min, accessor.max) == ([times[0]], [times[-1]])
        assert gltf.accessors[sampler.output].count == len(times)
        assert gltf.bufferViews[gltf.accessors[sampler.output].bufferView].target is None
    for mesh in gltf.meshes:
        attributes = mesh.primitives[0].attributes
        weights, index = file.array(attributes.WEIGHTS_0), file.array(attributes.JOINTS_0)
        assert np.abs(weights.sum(axis=1) - 1).max() < 1e-6 and (index[weights == 0] == 0).all()
        assert np.allclose(np.linalg.norm(file.array(attributes.NORMAL), axis=1), 1, atol=1e-5)
    first, second = (mesh.primitives[0] for mesh in gltf.meshes)
    assert first.indices == second.indices, "the same faces lie there once"
    assert first.attributes.JOINTS_0 == second.attributes.JOINTS_0


def test_quaternions_never_take_the_long_way_round():
    """A turn of 720 degrees, whose quaternions change sign at every half turn."""
    angles = np.linspace(0, 4 * np.pi, 50)
    quaternions = Rotation.from_rotvec(angles[:, None] * [0, 1, 0]).as_quat(canonical=True)
    smooth = continuous(quaternions[:, None])
    steps = np.linalg.norm(np.diff(smooth[:, 0], axis=0), axis=1)
    assert steps.max() < 0.2 < np.linalg.norm(np.diff(quaternions, axis=0), axis=1).max()
    assert np.allclose(np.abs((smooth[:, 0] * quaternions).sum(axis=1)), 1)
