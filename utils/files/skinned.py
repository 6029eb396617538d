"""Bodies with a skeleton as binary glTF 2.0 (.glb): one pose, or a motion of many.

A person NAME is the node NAME with mesh and skin, whose own transform glTF ignores; and the node
NAME_skeleton, which holds the joints. Tests skin the files with a plain loop and read them with
pygltflib, trimesh and Blender.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from smpler.utils.drawing.visualize import Color
from smpler.utils.files.meshes import (
    FLOAT,
    UNSIGNED_BYTE,
    VERTEX_BUFFER,
    Binary,
    Part,
    PhotoCamera,
    container,
    material,
    primitive,
)
from smpler.utils.geometry import rotmat_to_quaternion
from smpler.utils.rig import Motion, Rig

ANIMATION = "motion"
"""Name of the one animation, which moves everybody."""


@dataclass(frozen=True, eq=False)
class SkinnedPart:
    """A body of a .glb file."""

    name: str
    rig: Rig
    vertices: Float[np.ndarray, "v 3"]
    """At rest; the rig's, or those that one pose needs (`Rig.unposed`)."""
    normals: Float[np.ndarray, "v 3"]
    """Of these, of length 1."""
    motion: Motion
    """The first pose is the one that the nodes hold."""
    color: Color
    times: Float[np.ndarray, "t"] | None = None
    """Of the poses, seconds, increasing; None: there is one pose, and no animation."""
    duration: float = 0.0
    """How long each pose is there, seconds."""
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Where the skeleton's origin stands, metres, y up."""
    extras: dict = field(default_factory=dict)
    """What the mesh's node says besides."""


def skinned_glb(parts: Sequence[SkinnedPart], camera: PhotoCamera | None = None) -> bytes:
    """Return bodies with their skeletons as a .glb file.

    One animation, `motion`, moves those that have times: rotations of the joints and the place of
    the first. A body whose times begin later or end sooner than the others' is scaled to nothing
    before and after.

    Args:
        parts: at least one.
        camera: becomes the node `photo_camera`; None leaves it out.
    """
    binary = Binary()
    content: dict = {"scenes": [{"nodes": []}], "nodes": [], "meshes": [], "materials": []}
    content["skins"], animation = [], {"name": ANIMATION, "channels": [], "samplers": []}
    end = max((part.times[-1] for part in parts if part.times is not None), default=0.0)
    for number, part in enumerate(parts):
        first = len(content["nodes"])
        content["scenes"][0]["nodes"] += [first, first + 1]
        content["nodes"] += _nodes(part, number, first)
        content["materials"].append(material(part.name, part.color))
        content["meshes"].append(_mesh(binary, part, number))
        content["skins"].append(_skin(binary, part, first + 1))
        if part.times is not None:
            _animate(binary, part, first + 1, end, animation)
    if animation["channels"]:
        content["animations"] = [animation]
    return container(content, binary, camera)


def _nodes(part: SkinnedPart, number: int, first: int) -> list[dict]:
    """Return a body's nodes in the order mesh, skeleton, joints; `first` is the mesh's number."""
    skeleton = {"name": f"{part.name}_skeleton", "translation": list(part.translation)}
    nodes: list[dict] = [{"name": part.name, "mesh": number, "skin": number}, skeleton]
    if part.extras:
        nodes[0]["extras"] = part.extras
    rig = part.rig
    quaternions = rotmat_to_quaternion(part.motion.rotations[0])
    for joint, (name, parent) in enumerate(zip(rig.names, rig.parents, strict=True)):
        place = part.motion.root[0] if parent < 0 else rig.joints[joint] - rig.joints[parent]
        node = {"name": name, "translation": place.tolist()}
        nodes.append(node | {"rotation": quaternions[joint].tolist()})
        nodes[parent + 2].setdefault("children", []).append(first + 2 + joint)
    return nodes


def _mesh(binary: Binary, part: SkinnedPart, number: int) -> dict:
    """Append a body's mesh with what moves its vertices; return it in glTF's words."""
    rig = part.rig
    mesh = Part(part.name, part.vertices, part.normals, rig.faces, part.color)
    content = primitive(binary, mesh, number)
    content["attributes"] |= {
        "JOINTS_0": binary.add_once(rig.joint_index, UNSIGNED_BYTE, "VEC4", VERTEX_BUFFER),
        "WEIGHTS_0": binary.add_once(rig.joint_weights, FLOAT, "VEC4", VERTEX_BUFFER),
    }
    return {"name": part.name, "primitives": [content]}


def _skin(binary: Binary, part: SkinnedPart, skeleton: int) -> dict:
    """Append the ways from the rest mesh to each joint; return a body's skin in glTF's words."""
    back = np.tile(np.eye(4), (len(part.rig.joints), 1, 1))
    back[:, 3, :3] = -part.rig.joints  # glTF stores matrices column by column
    matrices = binary.add(back.reshape(-1, 16).astype("<f4"), FLOAT, "MAT4")
    joints = [skeleton + 1 + joint for joint in range(len(part.rig.joints))]
    content = {"name": part.name, "joints": joints, "skeleton": skeleton}
    return content | {"inverseBindMatrices": matrices}


def _animate(binary: Binary, part: SkinnedPart, skeleton: int, end: float, animation: dict) -> None:
    """Append a body's motion to an animation.

    Args:
        binary: what the numbers are appended to.
        part: with times.
        skeleton: number of its skeleton's node; the joints' nodes follow it.
        end: when the last pose of all bodies is, seconds.
        animation: in glTF's words.
    """

    def add(node: int, path: str, times: int, values: np.ndarray, way: str = "LINEAR") -> None:
        output = binary.add(values.astype("<f4"), FLOAT, f"VEC{values.shape[1]}")
        sampler = {"input": times, "output": output, "interpolation": way}
        target = {"node": node, "path": path}
        animation["channels"].append({"sampler": len(animation["samplers"]), "target": target})
        animation["samplers"].append(sampler)

    assert part.times is not None
    times = binary.add_limited(part.times, "SCALAR")
    add(skeleton + 1, "translation", times, part.motion.root)
    quaternions = continuous(rotmat_to_quaternion(part.motion.rotations))
    for joint in range(len(part.rig.joints)):
        add(skeleton + 1 + joint, "rotation", times, quaternions[:, joint])
    # half a pose's time away, so that rounding hides nobody at their first or last pose
    first, last = float(part.times[0]), float(part.times[-1])
    keys = [(max(first - part.duration / 2, first / 2), 1.0)]
    if first > 0:
        keys.insert(0, (0.0, 0.0))
    if last + part.duration / 2 < end:
        keys.append((last + part.duration / 2, 0.0))
    if len(keys) > 1:
        seconds, sizes = np.array(keys).T
        times = binary.add_limited(seconds, "SCALAR")
        add(skeleton, "scale", times, np.repeat(sizes[:, None], 3, axis=1), "STEP")


def continuous(quaternions: Float[np.ndarray, "t n 4"]) -> Float[np.ndarray, "t n 4"]:
    """Return the same rotations by quaternions that never jump to the opposite sign."""
    agree = (quaternions[1:] * quaternions[:-1]).sum(axis=-1, keepdims=True) >= 0
    signs = np.cumprod(np.where(agree, 1.0, -1.0), axis=0)
    return np.concatenate([quaternions[:1], signs * quaternions[1:]])
