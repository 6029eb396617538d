import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

from smpler.datasets.engine.gpu_stream import SyntheticBatches, draw_scenes
from smpler.datasets.engine.render.scene_batch import (
    ALIGNMENT,
    MeshSizes,
    PackedScenes,
    mesh_sizes,
    pack_scenes,
)
from smpler.datasets.engine.stream import SyntheticPeople
from smpler.models.body import open_body
from tests.support.standin_wardrobe import Poses, wardrobe


@pytest.fixture(scope="module")
def stream() -> SyntheticPeople:
    body = open_body()
    return SyntheticPeople(body, wardrobe(body), Poses(), seed=5)


def test_a_block_holds_the_same_bits(stream):
    numbers = pack_scenes([stream.scene(i) for i in range(3)], len(stream.people.hidden_faces))
    numbers |= {"none": torch.zeros(0, 4), "one": torch.tensor(True), "odd": torch.ones(7).half()}
    packed = PackedScenes.of(numbers, MeshSizes(1, 2, 3))
    arrays = packed.to(torch.device("cpu")).arrays()
    assert arrays.keys() == numbers.keys()
    for name, expected in numbers.items():
        assert arrays[name].dtype == expected.dtype and arrays[name].shape == expected.shape, name
        assert torch.equal(arrays[name], expected), name
        assert arrays[name].data_ptr() % ALIGNMENT == 0, name
        assert arrays[name].untyped_storage().data_ptr() == packed.block.data_ptr(), name
    assert packed.block.nbytes < sum(x.nbytes + ALIGNMENT for x in numbers.values())


def test_a_batch_leaves_its_process_as_one_block(stream, monkeypatch):
    sent = []
    monkeypatch.setitem(
        ForkingPickler._extra_reducers,
        torch.Tensor,
        lambda tensor: sent.append(tensor.nbytes) or (int, (0,)),
    )
    packed = draw_scenes(stream, [0, 1])
    text = ForkingPickler.dumps(packed)
    assert sent == [packed.block.nbytes]
    assert pickle.loads(text).places == packed.places


def test_what_a_process_draws_is_what_this_one_draws(stream):
    batches = SyntheticBatches(stream, 2, "cpu", num_workers=1, first=4)
    indices, packed = next(batches.drawn())
    expected = draw_scenes(stream, [4, 5])
    assert indices == packed.arrays()["index"].tolist() == [4, 5]
    assert torch.equal(packed.block, expected.block) and packed.sizes == expected.sizes


def test_the_mesh_has_the_sizes_that_were_foretold(stream):
    batches = SyntheticBatches(stream, 2, "cpu")
    scenes = [stream.scene(index) for index in range(4)]
    assert any(actor.hiding for scene in scenes for actor in scene.actors)
    numbers = pack_scenes(scenes, len(stream.people.hidden_faces))
    sizes = mesh_sizes(scenes, stream.people)
    asked, told = (batches.renderer.mesh.pack(numbers, known) for known in (None, sizes))
    assert sizes.num_vertices == len(asked.vertices)
    assert sizes.num_drawn == len(asked.faces) < sizes.num_faces
    for name, expected in vars(asked).items():
        assert torch.equal(getattr(told, name), expected), name
