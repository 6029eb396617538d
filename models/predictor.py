"""From a photo to posed bodies: the one call that demo, hub, benchmarks and users share.

people = Predictor.load()("photo.jpg")
people[0].vertices, people[0].joints_3d, people[0].pose, people[0].translation
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from smpler.models.answers import (
    Answer,
    Found,
    PersonBox,
    Weights,
    fit_states,
    qualities,
    results_of,
)
from smpler.models.body import Body, open_body
from smpler.models.detectors import LandmarkDetector, PersonDetector, prominence
from smpler.models.detectors.landmarks import checked_size
from smpler.models.detectors.shipped import Detectors
from smpler.models.fitting import MIN_LANDMARKS, Prior, fit_to_landmarks
from smpler.models.inference.backends import BACKENDS, Network, with_backend
from smpler.models.lifter import Lifter, combined
from smpler.models.observation import (
    Observation,
    observe,
    shows_one_person,
    with_the_estimates_sides,
)
from smpler.models.placement import Group, Pinhole, Placement, place, with_some_replaced
from smpler.models.smpl import Estimate
from smpler.models.weights.checkpoint import describe_weights, load_model, released_weights
from smpler.utils.camera import default_focal_length
from smpler.utils.export import PersonResult
from smpler.utils.image import Box, CropWindow, Photo
from smpler.utils.inputs import as_photo, checked_boxes, checked_count, focal_length_of
from smpler.utils.isolation import isolated_crop

MAX_PEOPLE = 20
"""Of a photo, when nothing else is asked for."""


class Predictor:
    """Finds the people in a photo and estimates their bodies. `Predictor.load` makes one.

    Args:
        model: in eval mode.
        person_detector: finds people; None takes the shipped one, when a photo needs it.
        landmark_detector: says how well people are seen; None takes the shipped one, when it is
            needed.
        mirror: average with the answer to the mirrored crop, which takes the network twice as long.
        fit: show the network each person alone, and bring bodies onto the landmarks; otherwise the
            network sees the photo and its answer stays as it is.
        weights: what results call the model's weights.
        weights_sha256: hash of their file.
        landmarks: which of the shipped landmark networks looks at people, `full` or `heavy`; None:
            heavy for a fit in photos, else full.
        knows_shape: the network's shape coefficients are of the body that is posed; otherwise a
            fit leaves them at zero.
        lift: a fit starts from the network's answer and the bodies that landmarks are lifted to;
            otherwise from the network's answer alone.
    """

    def __init__(
        self,
        model: Network,
        person_detector: PersonDetector | None = None,
        landmark_detector: LandmarkDetector | None = None,
        mirror: bool = False,
        fit: bool = False,
        weights: str = "given model",
        weights_sha256: str = "",
        landmarks: str | None = None,
        knows_shape: bool = True,
        lift: bool = True,
    ):
        self.model, self.mirror, self.fit, self.lift = model, mirror, fit, lift
        self.lifter: Lifter | None = None
        self.knows_shape = knows_shape
        self.detectors = Detectors(self.device, person_detector, landmark_detector, landmarks)
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
        landmarks: str | None = None,
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
            landmarks: BlazePose's network, `full`, or `heavy`, which is slower and better; None:
                heavy for a fit in photos, else full.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is unusable, or choices do not go together.
        """
        if backend not in BACKENDS:
            raise ValueError(f"backend is {backend!r}; choose one of {', '.join(BACKENDS)}.")
        if landmarks is not None:
            checked_size(landmarks)
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        is_open = checkpoint is None
        model = load_model(None, checkpoint, body, device=device)
        weights = released_weights() if checkpoint is None else checkpoint
        assert weights is not None  # otherwise `load_model` has raised an error
        name, sha256 = describe_weights(weights)
        mirror, fit = (is_open if choice is None else choice for choice in (mirror, fit))
        network, posed = with_backend(model, backend), model.smpl.body
        knows_shape = not is_open or body is None or posed.sha256 == open_body().sha256
        if fit and not knows_shape:
            warnings.warn(
                f"The open weights know the open body's shapes alone: the shape of {posed.name!r} "
                "is left at zero.",
                stacklevel=2,
            )
        found = cls(network, None, None, mirror, fit, name, sha256, landmarks, knows_shape)
        found.detectors.backend = backend
        return found

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.model.mean.device

    def load_person_detector(self) -> PersonDetector:
        """Return what finds the people; it is loaded when it is first needed."""
        return self.detectors.people()

    def load_landmark_detector(self, is_clip: bool = False) -> LandmarkDetector:
        """Return what finds the landmarks; it is loaded when it is first needed.

        Clips are too long for the better network, and without a fit, landmarks only say how well
        people are seen.
        """
        return self.detectors.landmarks(quick=is_clip or not self.fit)

    def __call__(
        self,
        photo: str | Path | np.ndarray | Photo,
        boxes: Sequence[Sequence[float] | np.ndarray] | np.ndarray | None = None,
        max_people: int | None = None,
        focal_length: float | None = None,
        name: str | None = None,
    ) -> list[PersonResult]:
        """Estimate the people in a photo.

        Args:
            photo: a file, RGB as uint8 (height, width, 3), or what `read_photo` returns.
            boxes: (x, y, width, height) of each person in photo pixels, instead of the detector's.
            max_people: how many people are taken at most, the most prominent first; None: 20.
            focal_length: of the photo, pixels; None takes what the file's EXIF data say, else the
                photo's diagonal.
            name: what results and messages call the photo; None: the file's name.

        Returns:
            One result a person, the most prominent first, or in the order of `boxes`. When nobody
            is found the list is empty, and a warning says so.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: photo, box, number or focal length is unusable.
        """
        return self.results([self.find(photo, boxes, max_people, focal_length, name)])[0]

    def find(
        self,
        photo: str | Path | np.ndarray | Photo,
        boxes: Sequence[Sequence[float] | np.ndarray] | np.ndarray | None = None,
        max_people: int | None = None,
        focal_length: float | None = None,
        name: str | None = None,
    ) -> Found:
        """Find the people in a photo, who are not estimated yet; arguments and errors as of a call.

        Photos whose people are found one by one can be estimated together, by `results`.
        """
        photo = as_photo(photo, name)
        focal_length, source = focal_length_of(photo, focal_length)
        if boxes is None:
            everybody = self.find_people(photo.image, photo.name)
            max_people = MAX_PEOPLE if max_people is None else checked_count(max_people)
            people, rest = everybody[:max_people], everybody[max_people:]
        else:
            people = [PersonBox(box, "given", 1.0) for box in checked_boxes(boxes, photo)]
            rest = []
        own, others = ([person.box for person in some] for some in (people, rest))
        windows = [CropWindow.for_box(box) for box in own]
        group = Group(photo.image, windows, own, others, focal_length)
        return Found(photo.name, group, people, source)

    def results(self, found: Sequence[Found]) -> list[list[PersonResult]]:
        """Estimate the people of some photos together; return those of each photo."""
        groups = [x.group for x in found if len(x.group)]
        answer = self.look_at(groups) if groups else None
        results, first = [], 0
        for photo in found:
            if answer is None or not photo.people:
                results.append([])
                continue
            weights = Weights(self.weights, self.weights_sha256)
            results.append(results_of(answer, first, photo, self.model.smpl.body, weights))
            first += len(photo.group)
        return results

    def find_people(self, image: UInt8[np.ndarray, "h w 3"], name: str = "") -> list[PersonBox]:
        """Return everybody in a photo, the most prominent first.

        When nobody is found, a photo that plainly shows one person is taken whole; any other gives
        nobody, with a warning.

        Args:
            image: RGB.
            name: what a warning calls the photo.
        """
        height, width = image.shape[:2]
        found = self.load_person_detector().detect(image)
        if found:
            order = prominence(found, (width, height))
            return [
                PersonBox(found[number].box, "detector", found[number].score) for number in order
            ]
        score = shows_one_person(image, self.detectors.for_search())
        if score:
            return [PersonBox((0.0, 0.0, float(width), float(height)), "photo", score)]
        warnings.warn(
            f"{name or 'The photo'}: nobody was found; --bbox x,y,w,h (boxes=) says where a person "
            "is.",
            stacklevel=3,
        )
        return []

    def look(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        windows: Sequence[CropWindow],
        boxes: Sequence[Box] | None = None,
        others: Sequence[Box] = (),
        focal_length: float | None = None,
    ) -> Answer:
        """Estimate people of a photo: network, mirrored average, landmarks, fit.

        Args:
            image: RGB.
            windows: the people's crops, squares.
            boxes: of the same people, photo pixels; None: those that the crops are of.
            others: boxes of further people in the photo.
            focal_length: pixels; None takes the photo's diagonal.
        """
        own = [window.box() for window in windows] if boxes is None else list(boxes)
        size = (image.shape[1], image.shape[0])
        focal_length = focal_length or default_focal_length(size)
        return self.look_at([Group(image, list(windows), own, others, focal_length)])

    def look_at(self, groups: Sequence[Group]) -> Answer:
        """Estimate the people of several photos together, see `look`.

        Args:
            groups: the people of each photo, at least one in all.

        Returns:
            The answer for the people of all groups, one after the other.
        """
        pinhole = Pinhole.joined([group.pinhole() for group in groups])
        smpl, detector = self.model.smpl, self.load_landmark_detector()
        people = [(group, number) for group in groups for number in range(len(group))]
        with torch.inference_mode():
            estimate = self.network(people, [()] * len(people))
            seen = observe(estimate, groups, detector)
            if seen.hidden and self.fit:  # the network's answer was a mixture of two people
                rows = list(seen.hidden)
                owners = [people[owner] for owner in seen.hidden.values()]
                hidden = [[group.boxes[number]] for group, number in owners]
                again = self.network([people[row] for row in rows], hidden)
                estimate = with_some_replaced(smpl, estimate, again, rows)
            placed = place(smpl, estimate, pinhole, turn=self.fit)
            seen = with_the_estimates_sides(seen, placed)
        if not self.fit:
            return Answer(placed, seen, ["off"] * len(people), qualities(placed, seen))
        prior = self.prior(placed, seen)
        quality = qualities(placed, seen, prior.joints)
        fit = fit_to_landmarks(smpl, prior, seen.evidence)
        return Answer(fit.placement, seen, fit_states(fit, seen), quality, prior.joints)

    @torch.inference_mode()
    def network(
        self, people: Sequence[tuple[Group, int]], hidden: Sequence[Sequence[Box]]
    ) -> Estimate:
        """Return what the network says of people's crops.

        Args:
            people: the group of each, and the number in it.
            hidden: boxes that are black in each person's crop.
        """
        crops = [
            isolated_crop(
                group.image,
                group.windows[number],
                group.boxes[number],
                group.around(number) if self.fit else [],
                boxes,
            )
            for (group, number), boxes in zip(people, hidden, strict=True)
        ]
        images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).to(self.device)
        estimate = self.model(images)[-1]
        if self.mirror:
            mirrored = self.model(images.flip(-1))[-1]
            estimate = self.model.smpl.average_with_mirrored(estimate, mirrored)
        if self.fit and not self.knows_shape:
            no_shape = torch.zeros_like(estimate.betas)
            estimate = self.model.smpl.estimate(estimate.rotmat, no_shape, estimate.cam)
        return estimate

    @torch.inference_mode()
    def prior(self, people: Placement, seen: Observation) -> Prior:
        """Return what is known of people before the fit."""
        if not self.lift:
            return Prior.of_network(people)
        if self.lifter is None:
            self.lifter = Lifter.load(device=self.device)
        body = self.model.smpl.body
        lifted = self.lifter.lift(seen.landmarks, people.pinhole)
        whose = (seen.evidence.weights > 0).sum(dim=1) >= MIN_LANDMARKS
        keep_shape = body.sha256 != self.lifter.body_sha256
        return combined(self.model.smpl, people, lifted, seen.evidence, whose, keep_shape)
