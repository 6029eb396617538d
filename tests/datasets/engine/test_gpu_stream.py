"""Batches on a device: on the CPU, a device and streams that only note what happens stand in."""

from contextlib import contextmanager

import pytest
import torch

from smpler.datasets.engine.gpu_stream import SyntheticBatches, draw_scenes, one_ahead
from smpler.datasets.engine.stream import OPTIONS, SyntheticPeople
from smpler.models.body import open_body
from smpler.utils.drawing import rasterizer
from tests.datasets.engine.render.standin_gpu import DEVICE, StandInGPU
from tests.support.standin_wardrobe import Poses, wardrobe

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def stream() -> SyntheticPeople:
    body = open_body()
    return SyntheticPeople(body, wardrobe(body), Poses(), seed=5, options=OPTIONS)


def test_a_batch_on_a_device_is_the_cpus_and_nothing_but_the_scenes_is_copied(stream):
    """What is waited for are the lengths of lists that depend on what is seen."""
    scenes = draw_scenes(stream, [0])
    expected = SyntheticBatches(stream, 1, "cpu").render([0], scenes)
    with StandInGPU() as device:
        batches = SyntheticBatches(stream, 1, DEVICE)
        batches.render([0], scenes)  # it takes the constants along
        device.copies.clear()
        device.waits.clear()
        batch = batches.render([0], scenes)
    assert +device.copies == {"to": 1}
    assert +device.waits == {"nonzero": 7, "_local_scalar_dense": 4}
    assert batch.keys() == expected.keys() and batch["key"] == expected["key"]
    for name in batch.keys() - {"key"}:
        assert torch.equal(batch[name].real_numbers, expected[name]), name


def test_work_in_small_pieces_gives_the_same_and_waits_once_or_twice_for_each(stream, monkeypatch):
    scenes = draw_scenes(stream, [0])
    expected = SyntheticBatches(stream, 1, "cpu").render([0], scenes)
    monkeypatch.setitem(rasterizer._CHUNK, "cpu", 20_000)
    with StandInGPU() as device:
        batch = SyntheticBatches(stream, 1, DEVICE).render([0], scenes)
    assert "index by a mask" not in +device.waits
    assert 0 < device.copies["from"] < device.waits["_local_scalar_dense"] < 30, device.waits
    for name in ("image", "mask", "parts", "depth"):
        assert torch.equal(batch[name].real_numbers, expected[name]), name


class StandInStreams:
    """torch.cuda's streams: `events` lists what is queued on which, and who waits for what."""

    def __init__(self):
        self.events, self.current = [], StandInStream("usual", self)

    def Stream(self, device):
        return StandInStream("own", self)

    def current_stream(self, device):
        return self.current

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before


class StandInStream:
    def __init__(self, name: str, owner: StandInStreams):
        self.name, self.owner, self.recorded = name, owner, 0

    def wait_stream(self, other):
        self.owner.events.append((self.name, "waits for all of", other.name))

    def record_event(self):
        self.recorded += 1
        self.owner.events.append((self.name, "reached", self.recorded))
        return self.recorded

    def wait_event(self, event):
        self.owner.events.append((self.name, "waits for", event))


class Kept(torch.Tensor):
    """Notes which stream must have used it before its memory is used again."""

    def record_stream(self, stream):
        self.used_on = [*getattr(self, "used_on", []), stream.name]


def test_the_next_batch_is_queued_before_one_is_handed_over():
    cuda = StandInStreams()

    def render(item: int) -> dict:
        cuda.events.append((cuda.current.name, "renders", item))
        return {"image": Kept(torch.zeros(1)), "more": [{"x": Kept(torch.ones(1))}], "key": ["a"]}

    for batch in one_ahead(render, [7, 8, 9], torch.device("cuda"), cuda):
        cuda.events.append((cuda.current.name, "uses", None))
        assert batch["image"].used_on == batch["more"][0]["x"].used_on == ["usual"]
    assert cuda.events == [
        ("own", "waits for all of", "usual"),
        ("own", "renders", 7),
        ("own", "reached", 1),
        ("own", "renders", 8),
        ("own", "reached", 2),
        ("usual", "waits for", 1),
        ("usual", "uses", None),
        ("own", "renders", 9),
        ("own", "reached", 3),
        ("usual", "waits for", 2),
        ("usual", "uses", None),
        ("usual", "waits for", 3),
        ("usual", "uses", None),
    ]


def test_a_batch_waits_for_the_stream_that_asks_for_it():
    cuda = StandInStreams()
    batches = one_ahead(lambda item: [Kept(torch.zeros(1))], range(3), torch.device("cuda"), cuda)
    next(batches)
    with cuda.stream(StandInStream("another", cuda)):
        (tensor,) = next(batches)
    assert tensor.used_on == ["another"] and cuda.events[-1] == ("another", "waits for", 2)


def test_on_the_cpu_nothing_is_done_ahead():
    done = []
    batches = one_ahead(lambda item: done.append(item) or item, [7, 8], torch.device("cpu"))
    assert next(batches) == 7 and done == [7]
    assert list(batches) == [8]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_every_item_is_handed_over_once_and_in_order(device, count):
    results = one_ahead(lambda item: [item], range(count), torch.device(device), StandInStreams())
    assert list(results) == [[item] for item in range(count)]


def test_rendered_ahead_a_stream_continues_with_the_same_samples(stream, monkeypatch):
    """Batches from `first` on are those that an earlier iterator came to."""
    monkeypatch.setattr(SyntheticBatches, "render", lambda self, indices, scenes: list(indices))

    def indices(first: int, device: str) -> list[list[int]]:
        batches = SyntheticBatches(stream, 2, "cpu", first=first)
        drawn = ((numbers, None) for numbers, _ in batches.drawn())
        ahead = one_ahead(
            lambda item: batches.render(*item), drawn, torch.device(device), StandInStreams()
        )
        return [next(ahead) for _ in range(3)]

    assert indices(0, "cuda") == indices(0, "cpu") == [[0, 1], [2, 3], [4, 5]]
    assert indices(4, "cuda") == indices(4, "cpu") == [[4, 5], [6, 7], [8, 9]]


@needs_gpu
def test_on_a_gpu_batches_rendered_ahead_are_the_streams_samples(stream):
    """Though the stream that uses them is busy, and lets go of each before it has used it."""
    batches = SyntheticBatches(stream, 4, "cuda", num_workers=2)
    busy, seen = torch.rand(4096, 4096, device="cuda"), []
    for batch, _ in zip(batches, range(6), strict=False):
        for _ in range(20):
            busy = busy @ busy / busy.norm()
        seen.append({name: x.clone() for name, x in batch.items() if torch.is_tensor(x)})
        del batch
    plain = SyntheticBatches(stream, 4, "cpu")
    for number, found in enumerate(seen):
        alone, expected = (x.batch(range(4 * number, 4 * number + 4)) for x in (batches, plain))
        for name, value in found.items():
            value, again = value.float(), alone[name].float()
            assert (value - again).nan_to_num(0, 0, 0).abs().mean() < 1e-5, name
        levels = 255 * (found["image"].cpu() - expected["image"]).abs().mean()
        assert levels < 1, f"{levels:.2f} grey levels"
        assert torch.allclose(found["keypoints_2d"].cpu(), expected["keypoints_2d"], atol=2e-5)
