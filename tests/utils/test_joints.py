from smpler.utils.joints import (
    ANNOTATION_NAMES,
    H36M_NAMES,
    KEYPOINT_BONES,
    KEYPOINTS_FROM_ANNOTATION,
    KEYPOINTS_FROM_H36M,
    SMPL_NAMES,
    SMPL_PARENTS,
    mirrored,
)


def test_keypoint_tables_are_the_published_ones():
    assert KEYPOINTS_FROM_H36M == (3, 2, 1, 4, 5, 6, 16, 15, 14, 11, 12, 13, 8, 10)
    assert KEYPOINTS_FROM_ANNOTATION == (*range(13), 18)


def test_kinematic_tree_is_smpls():
    published = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
    assert SMPL_PARENTS == published


def test_mirroring_twice_is_identity():
    for names in (SMPL_NAMES, H36M_NAMES, ANNOTATION_NAMES):
        flip = mirrored(names)
        assert [flip[i] for i in flip] == list(range(len(names)))
        for name, other in zip(names, flip, strict=True):
            assert names[other][1:] == name[1:]


def test_bones_connect_all_keypoints():
    assert {end for bone in KEYPOINT_BONES for end in bone} == set(range(14))
