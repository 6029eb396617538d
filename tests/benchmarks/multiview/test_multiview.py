from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from benchmarks.multiview.__main__ import estimates, main
from benchmarks.multiview.clips import CLIPS, frames_of, look_at_all, through_the_middle
from benchmarks.multiview.views import Case
from smpler.models.detectors import Detection, Landmarks
from smpler.models.detectors.landmarks import SEEN_KEYPOINTS
from tests.benchmarks.multiview.synthetic import NUM, PHOTO, cameras, joints, view


def test_a_missing_archive_is_one_sentence(tmp_path, capsys):
    assert main(["--movenet", str(tmp_path / "none.tgz")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Error: --movenet: ") and "none.tgz is missing" in said


@pytest.mark.parametrize("count", [1, 5])
def test_every_second_frame_is_read(count, tmp_path):
    path = tmp_path / "video.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 64))
    for number in range(count):
        writer.write(np.full((64, 64, 3), 40 * number, np.uint8))
    writer.release()
    frames = list(frames_of(path.read_bytes()))
    assert [round(float(frame.mean()) / 40) for frame in frames] == list(range(0, count, 2))


def test_the_clips_share_no_video():
    contents = [{source.sha256 for source in clip.videos} for clip in CLIPS.values()]
    assert len(contents) == 2 and not contents[0] & contents[1]


def test_a_camera_through_the_middle_sees_the_middle_straight_ahead():
    camera = through_the_middle(cameras()[1], (1088, 1920))
    assert np.allclose(camera.rays(np.array([[544.0, 960.0]])), 0)
    assert cameras()[1].intrinsics[0, 2] == 540  # the other one is as it was


def test_everybody_is_looked_at_with_the_boxes_of_the_others():
    camera, boxes = cameras()[0], [(0.0, 0.0, 4.0, 8.0), (5.0, 0.0, 4.0, 8.0), (1.0, 1.0, 2.0, 2.0)]
    people = dict(zip(boxes, (0.9, None, 0.3), strict=True))

    def look(_, detection):
        visibility = people[detection.box]
        if visibility is None:
            return None
        return Landmarks(np.full((NUM, 2), 5.0), np.full(NUM, visibility), 1.0)

    judge = SimpleNamespace(look=look)
    detector = SimpleNamespace(detect=lambda _: [Detection(box, 1.0) for box in boxes])
    first, second = look_at_all(PHOTO, camera, judge, detector)
    assert (first.box, first.others) == (boxes[0], (boxes[1], boxes[2]))
    assert (first.visible == 0.9).all() and (second.visible == 0).all()


@pytest.mark.parametrize("scatter", [None, torch.arange(24.0)[None]])
def test_answers_give_joints_and_scatters_if_they_have_any(scatter):
    points, camera = joints(0), cameras()[0]
    keypoints = torch.zeros(1, 14, 3)
    keypoints[0, SEEN_KEYPOINTS] = torch.from_numpy(points).float()
    people = SimpleNamespace(estimate=SimpleNamespace(keypoints_3d=keypoints))
    answer = SimpleNamespace(people=people, **({} if scatter is None else {"scatter": scatter}))
    way = SimpleNamespace(look=lambda *_: answer)
    cases = [Case(view(camera, points), camera, points, np.zeros(NUM))] * 2
    found, scatters = estimates(way, cases)
    assert found.shape == (2, NUM, 3) and np.abs(found[1].numpy() - points).max() < 1e-6
    assert (scatters is None) == (scatter is None)
    if scatters is not None:
        assert scatters.shape == (2, NUM)
