"""Runs in Blender's Python, `bpy`: prints what Blender makes of our files, as one JSON object.

python -m tests.video.blender_reader FILE.glb FILE.bvh FRAME ...
"""

import json
import sys

import bpy
import numpy as np


def mesh_of(thing, graph) -> np.ndarray:
    """Vertices of an object as they are drawn, in the world: metres, z up."""
    evaluated = thing.evaluated_get(graph)
    mesh = evaluated.to_mesh()
    corners = np.empty(3 * len(mesh.vertices))
    mesh.vertices.foreach_get("co", corners)
    matrix = np.array(evaluated.matrix_world)
    return corners.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]


def heads_of(armature) -> dict[str, list[float]]:
    """Where the joints are, in the world."""
    return {bone.name: list(armature.matrix_world @ bone.head) for bone in armature.pose.bones}


def read_glb(path: str, frames: list[int]) -> dict:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.fps = 30
    bpy.ops.import_scene.gltf(filepath=path)
    people = [thing for thing in bpy.data.objects if thing.name.startswith("person")]
    meshes = [thing for thing in people if thing.type == "MESH"]
    armatures = [thing for thing in people if thing.type == "ARMATURE"]
    seen = {}
    for frame in frames:
        scene.frame_set(frame)
        graph = bpy.context.evaluated_depsgraph_get()
        seen[frame] = {
            "meshes": {thing.name: mesh_of(thing, graph).tolist() for thing in meshes},
            "joints": {thing.name: heads_of(thing) for thing in armatures},
        }
    return {
        "bones": {thing.name: [bone.name for bone in thing.data.bones] for thing in armatures},
        "parents": {thing.name: thing.parent.name for thing in meshes},
        "actions": {action.name: list(action.frame_range) for action in bpy.data.actions},
        "cameras": [camera.name for camera in bpy.data.objects if camera.type == "CAMERA"],
        "extras": {thing.name: thing.get("largest_distance_mm") for thing in meshes},
        "frames": seen,
    }


def read_bvh(path: str, frames: list[int]) -> dict:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    bpy.ops.import_anim.bvh(filepath=path, global_scale=0.01, update_scene_fps=True)
    (armature,) = [thing for thing in bpy.data.objects if thing.type == "ARMATURE"]
    (action,) = bpy.data.actions
    first, last = (int(number) for number in action.frame_range)
    seen = {}
    for frame in frames:
        scene.frame_set(first + frame)
        seen[frame] = heads_of(armature)
    fps = scene.render.fps / scene.render.fps_base
    return {"fps": fps, "length": last - first + 1, "frames": seen}


if __name__ == "__main__":
    glb, bvh, *numbers = sys.argv[1:]
    frames = [int(number) for number in numbers]
    print(json.dumps({"glb": read_glb(glb, frames), "bvh": read_bvh(bvh, frames)}))
