"""From a photo to posed bodies: the one call that demo, hub, benchmarks and users share.

people = Predictor.load()("photo.jpg")
people[0].vertices, people[0].joints_3d, people[0].pose, people[0].translation
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from smpler import __version__
from smpler.models.body import Body
from smpler.models.detectors import LandmarkDetector, PersonDetector
from smpler.models.detectors.landmarks import BlazePoseLandmarkDetector
from smpler.models.detectors.person import BlazePosePersonDetector
from smpler.models.fitting import fit_to_photo
from smpler.models.smpl import SMPL, Estimate
from smpler.models.smpler import SMPLer
from smpler.models.weights.checkpoint import describe_weights, load_model, released_weights
from smpler.utils.export import SCHEMA, PersonResult
from smpler.utils.geometry import default_focal_length, full_image_camera, rotmat_to_axis_angle
from smpler.utils.image import Box, CropWindow, crop, read_image
from smpler.utils.joints import KEYPOINT_NAMES, SMPL_NAMES

BACKENDS = ("eager", "fused", "onnxruntime")
"""What runs the network: the plain model, or a faster copy that takes a while to make."""
MAX_PEOPLE = 1
"""Of a photo, when nothing else is asked for."""


class PersonBox(NamedTuple):
    """Where a person is, and who says so."""

    box: Box
    source: str
    """`detector`, `given`, or `photo` when nobody was found."""
    score: float


@runtime_checkable
class Network(Protocol):
    """A `SMPLer`, or the faster copy that `optimize_for_inference` makes of it."""

    @property
    def smpl(self) -> SMPL:
        """The body layer."""
        ...

    @property
    def mean(self) -> Tensor:
        """Mean of the images' normalisation; it tells the device."""
        ...

    def __call__(self, images: Float[Tensor, "b 3 224 224"], /) -> list[Estimate]:
        """Return one estimate a stage, the answer last."""
        ...


class Predictor:
    """Finds the people in a photo and estimates their bodies. `Predictor.load` makes one.

    Args:
        model: in eval mode.
        person_detector: finds people; None takes the shipped one, when a photo needs it.
        landmark_detector: bodies are brought onto what it sees; None leaves the network's answer.
        mirror: average with the answer to the mirrored crop, which takes the network twice as long.
        weights: what results call the model's weights.
        weights_sha256: hash of their file.
    """

    def __init__(
        self,
        model: Network,
        person_detector: PersonDetector | None = None,
        landmark_detector: LandmarkDetector | None = None,
        mirror: bool = False,
        weights: str = "given model",
        weights_sha256: str = "",
    ):
        self.model, self.mirror = model, mirror
        self.person_detector, self.landmark_detector = person_detector, landmark_detector
        self.weights, self.weights_sha256 = weights, weights_sha256

    @classmethod
    def load(
        cls,
        checkpoint: str | Path | Mapping | None = None,
        body: str | Path | Mapping | Body | None = None,
        device: str | torch.device | None = None,
        backend: str = "eager",
        mirror: bool | None = None,
        fit: bool | None = None,
    ) -> "Predictor":
        """Assemble model, weights, body and detectors.

        Args:
            checkpoint: a file or state dict, published or ours; None takes the open weights, `init`
                untrained parameters.
            body: SMPL's .pkl or .npz, its arrays, or a `Body`; None takes the checkpoint's, else
                SMPL from meta_data/, else the open body.
            device: None takes the GPU if there is one.
            backend: a name in `BACKENDS`.
            mirror: average with the mirrored crop; None: with the open weights.
            fit: bring bodies onto landmarks that BlazePose sees; None: with the open weights.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is unusable, or choices do not go together.
        """
        if backend not in BACKENDS:
            raise ValueError(f"backend is {backend!r}; choose one of {', '.join(BACKENDS)}.")
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        is_open = checkpoint is None
        model = load_model(None, checkpoint, body, device=device)
        weights = released_weights() if checkpoint is None else checkpoint
        assert weights is not None  # otherwise `load_model` has raised an error
        name, sha256 = describe_weights(weights)
        mirror, fit = (is_open if choice is None else choice for choice in (mirror, fit))
        landmarks = BlazePoseLandmarkDetector.load(device=device) if fit else None
        return cls(with_backend(model, backend), None, landmarks, mirror, name, sha256)

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.model.mean.device

    def load_person_detector(self) -> PersonDetector:
        """Return what finds the people; it is loaded when it is first needed."""
        if self.person_detector is None:
            self.person_detector = BlazePosePersonDetector.load(device=self.device)
        return self.person_detector

    def __call__(
        self,
        photo: str | Path | np.ndarray,
        boxes: Sequence[Sequence[float] | np.ndarray] | np.ndarray | None = None,
        max_people: int | None = None,
        focal_length: float | None = None,
        name: str | None = None,
    ) -> list[PersonResult]:
        """Estimate the people in a photo.

        Args:
            photo: a file, or RGB as uint8 (height, width, 3).
            boxes: (x, y, width, height) of each person in photo pixels, instead of the detector's.
            max_people: how many people are taken at most, best detection first; None: 1.
            focal_length: of the photo, pixels; None takes its diagonal.
            name: what results and messages call the photo; None: the file's name.

        Returns:
            One result a person. When nobody is found, the whole photo is taken for one person, and
            a warning says so.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: photo, box, number or focal length is unusable.
        """
        if name is None:
            name = Path(photo).name if isinstance(photo, str | Path) else ""
        photo = _pixels(photo)
        if max_people is not None and max_people < 1:
            raise ValueError(f"max_people is {max_people}; it must be at least 1.")
        if focal_length is not None and not 0 < focal_length < float("inf"):
            raise ValueError(f"focal_length is {focal_length}; it is a number of pixels above 0.")
        if boxes is None:
            people = self.find_people(photo, max_people or MAX_PEOPLE, name)
        else:
            people = [PersonBox(_checked(box, photo, name), "given", 1.0) for box in boxes]
            if not people:
                raise ValueError("boxes is empty; leave it away to let the detector find people.")
        windows = [CropWindow.for_box(person.box) for person in people]
        estimate = self.estimate(photo, windows)
        size = (photo.shape[1], photo.shape[0])
        focal_length = focal_length or default_focal_length(size)
        body = self.model.smpl.body
        return [
            PersonResult(
                schema=SCHEMA,
                version=__version__,
                image=name,
                image_size=np.array(size),
                person=number,
                box=np.array(person.box),
                box_source=person.source,
                box_score=person.score,
                crop=np.array(astuple(window)),
                body=body.name,
                body_sha256=body.sha256,
                weights=self.weights,
                weights_sha256=self.weights_sha256,
                faces=body.faces,
                **_numbers(estimate, number, window, size, focal_length),
            )
            for number, (person, window) in enumerate(zip(people, windows, strict=True))
        ]

    def find_people(
        self, photo: UInt8[np.ndarray, "h w 3"], max_people: int = MAX_PEOPLE, name: str = ""
    ) -> list[PersonBox]:
        """Return the best-scored people of a photo; the whole photo when there is nobody.

        Args:
            photo: RGB.
            max_people: how many at most.
            name: what a warning calls the photo.
        """
        found = self.load_person_detector().detect(photo, max_people=max_people)
        if found:
            return [PersonBox(person.box, "detector", person.score) for person in found]
        warnings.warn(
            f"{name or 'The photo'}: no person was found, so the whole photo is taken; --bbox "
            "x,y,w,h (boxes=) says where the person is.",
            stacklevel=3,
        )
        height, width = photo.shape[:2]
        return [PersonBox((0.0, 0.0, float(width), float(height)), "photo", 0.0)]

    def estimate(self, photo: UInt8[np.ndarray, "h w 3"], windows: list[CropWindow]) -> Estimate:
        """Estimate the person in each window of a photo: network, mirrored average, fit."""
        crops = np.stack([crop(photo, window) for window in windows])
        images = torch.from_numpy(crops).permute(0, 3, 1, 2).to(self.device)
        with torch.inference_mode():
            estimate = self.model(images)[-1]
            if self.mirror:
                mirrored = self.model(images.flip(-1))[-1]
                estimate = self.model.smpl.average_with_mirrored(estimate, mirrored)
        if self.landmark_detector is None:
            return estimate
        return fit_to_photo(self.model.smpl, estimate, photo, windows, self.landmark_detector)


def with_backend(model: SMPLer, backend: str) -> Network:
    """Return the model itself, or a faster copy; `backend` is a name in `BACKENDS`.

    Raises:
        ValueError: the backend does not run here, or is not installed.
    """
    if backend == "eager":
        return model
    if model.mean.device.type == "mps":  # the faster copies are made in float64
        raise ValueError(f"backend {backend} does not run on mps; use eager.")
    # imported here, as few runs need it
    from smpler.models.inference.optimize import optimize_for_inference

    try:
        return optimize_for_inference(model, backend="torch" if backend == "fused" else backend)
    except ImportError as error:
        raise ValueError(f"backend {backend}: {error}") from error


def _pixels(photo: str | Path | np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """Return a photo's pixels; read it, or see that it is RGB."""
    if isinstance(photo, str | Path):
        return read_image(photo)
    is_rgb = isinstance(photo, np.ndarray) and photo.dtype == np.uint8 and photo.ndim == 3
    if not (is_rgb and photo.shape[2] == 3 and photo.size):
        what = f"{photo.dtype} {photo.shape}" if hasattr(photo, "dtype") else type(photo).__name__
        raise ValueError(f"The photo is {what}; give a path, or RGB as uint8 (height, width, 3).")
    return np.ascontiguousarray(photo)


def _checked(box: Sequence[float] | np.ndarray, photo: np.ndarray, name: str) -> Box:
    """Return a given box, which must show something of the photo."""
    try:
        x, y, width, height = (float(number) for number in box)
    except (TypeError, ValueError):
        raise ValueError(f"The box {box!r} is not x, y, width, height.") from None
    values = f"{x:g},{y:g},{width:g},{height:g}"
    if not (np.isfinite([x, y, width, height]).all() and width > 0 and height > 0):
        raise ValueError(f"The box {values} has no positive width and height.")
    inside = x < photo.shape[1] and y < photo.shape[0] and x + width > 0 and y + height > 0
    if not inside or max(width, height) > 4 * max(photo.shape[:2]):
        raise ValueError(
            f"The box {values} does not fit {name or 'the photo'}, which is {photo.shape[1]} x "
            f"{photo.shape[0]} pixels."
        )
    return x, y, width, height


def _numbers(
    estimate: Estimate, number: int, window: CropWindow, size: tuple[int, int], focal_length: float
) -> dict:
    """Turn one person of a batch into what `PersonResult` says of poses, places and cameras."""

    def of_person(batch: Tensor) -> np.ndarray:
        return batch[number].float().cpu().numpy()

    def in_photo(batch: Float[Tensor, "b n 2"]) -> Float[np.ndarray, "n 2"]:
        return window.to_photo(of_person(batch))

    assert estimate.vertices is not None
    rotmat, cam = of_person(estimate.rotmat), of_person(estimate.cam)
    keypoints_3d, keypoints_2d = estimate.keypoints_3d, estimate.keypoints_2d
    crop_box = (float(window.x), float(window.y), float(window.width), float(window.height))
    return {
        "pose": rotmat_to_axis_angle(rotmat).reshape(-1).astype(np.float32),
        "rotmat": rotmat,
        "betas": of_person(estimate.betas),
        "cam": cam,
        "focal_length": focal_length,
        "principal_point": np.array(size) / 2,
        "translation": full_image_camera(cam, crop_box, size, focal_length),
        "vertices": of_person(estimate.vertices),
        "joints_3d": of_person(estimate.joints),
        "joints_2d": in_photo(estimate.joints_2d),
        "joint_names": SMPL_NAMES,
        "keypoints_3d": None if keypoints_3d is None else of_person(keypoints_3d),
        "keypoints_2d": None if keypoints_2d is None else in_photo(keypoints_2d),
        "keypoint_names": KEYPOINT_NAMES,
    }
