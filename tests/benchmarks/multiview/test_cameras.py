import numpy as np

from benchmarks.multiview.cameras import read_cameras

CONTENT = b"""<calibration><cameras>
<camera serial="b"><transform x="1000" y="0" z="2000" r11="1" r12="0" r13="0" r21="0" r22="1"
 r23="0" r31="0" r32="0" r33="1"/><intrinsic focallength="9" focalLengthU="64000"
 focalLengthV="128000" centerPointU="640" centerPointV="1280" radialDistortion1="0.64"
 radialDistortion2="0" tangentalDistortion1="0" tangentalDistortion2="0.064"/></camera>
<camera serial="a"><transform x="0" y="0" z="0" r11="0" r12="1" r13="0" r21="-1" r22="0"
 r23="0" r31="0" r32="0" r33="1"/><intrinsic focallength="9" focalLengthU="64"
 focalLengthV="64" centerPointU="0" centerPointV="0" radialDistortion1="0"
 radialDistortion2="0" tangentalDistortion1="0" tangentalDistortion2="0"/></camera>
<camera serial="c"><transform x="0" y="-3000" z="1000" r11="1" r12="0" r13="0" r21="0" r22="0"
 r23="1" r31="0" r32="-1" r33="0"/><intrinsic focallength="9" focalLengthU="64"
 focalLengthV="64" centerPointU="0" centerPointV="0" radialDistortion1="0"
 radialDistortion2="0" tangentalDistortion1="0" tangentalDistortion2="0"/></camera>
</cameras></calibration>"""


def test_the_calibration_file_gives_places_and_axes():
    first, second, _ = read_cameras(CONTENT)
    assert (first.name, second.name) == ("a", "b")
    assert second.intrinsics.tolist() == [[1000, 0, 10], [0, 2000, 20], [0, 0, 1]]
    assert np.allclose(second.distortion, [0.01, 0, 0, 0.001])
    # it looks along -z of its axes, which are the world's, from two metres up
    assert np.allclose(second.see(np.array([1.0, 0.0, 0.0])), [0, 0, 2])
    assert np.allclose(second.see(np.array([1.0, 0.5, 0.0])), [0, -0.5, 2])
    assert np.allclose(first.see(np.array([1.0, 0.0, 0.0])), [0, 1, 0])


def test_the_worlds_vertical_is_the_cameras_way_up():
    _, down, level = read_cameras(CONTENT)
    assert np.allclose(down.up(), [0, 0, -1])  # it looks down: up is towards it
    assert np.allclose(level.see(np.array([0.0, 0.0, 1.0])), [0, 0, 3])
    assert np.allclose(level.up(), [0, -1, 0])
    low, high = level.see(np.array([[0.5, 0.2, 0.0], [0.5, 0.2, 1.7]]))
    assert np.allclose(high - low, 1.7 * level.up())
