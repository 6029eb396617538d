"""Protocols: the data, the keypoint regressor and the rule behind a result."""

from dataclasses import asdict, dataclass

if __name__ != "smpler.datasets":
    raise ImportError(f"Import this package as smpler.datasets, not as {__name__}.")


@dataclass(frozen=True)
class Protocol:
    """What a result's numbers mean; stored and printed with every result."""

    name: str
    train: str | None
    """Training set, relative to the datasets' root; None: rendered."""
    evaluate: str | None
    """Evaluation set, relative to the datasets' root; None: rendered."""
    regressor: str | None
    """File of the (17, V) keypoint regressor in meta_data/; None: the body's own."""
    rule: str
    """What is measured, and against what, in words."""

    def to_dict(self) -> dict:
        """Return plain values, as results and checkpoints store them."""
        return asdict(self)


_COMMON = (
    "14 keypoints (LSP order, Human3.6M's head); MPJPE centred on the middle of the hips; PA-MPJPE "
    "with rotation, translation and scale; each sample once, no padding; keypoints are the "
    "label's own."
)

PROTOCOLS = {
    "open": Protocol(
        name="open",
        train=None,
        evaluate=None,
        regressor=None,
        rule=(
            "The open data engine's fixed validation set: 2,000 rendered people in clothes, skins "
            f"and places that training never sees. {_COMMON} MPVE centred on the regressed pelvis, "
            "against the rendered body."
        ),
    ),
    "open2": Protocol(
        name="open2",
        train=None,
        evaluate=None,
        regressor=None,
        rule=(
            "The open data engine's second validation set, open/2: 2,000 rendered people in "
            "clothes, skins and places that training never sees, in the wider poses that motion "
            f"capture shows. {_COMMON} MPVE centred on the regressed pelvis, against the rendered "
            "body."
        ),
    ),
    "h36m": Protocol(
        name="h36m",
        train="Tax-H36m-coco40k-Muco-UP-Mpii/train.yaml",
        evaluate="human3.6m/valid.protocol2.yaml",
        regressor="J_regressor_h36m_correct.npy",
        rule=f"Human3.6M, protocol 2 (frontal camera). {_COMMON} No MPVE: labels hold no SMPL.",
    ),
    "3dpw": Protocol(
        name="3dpw",
        train="3dpw/train.yaml",
        evaluate="3dpw/test_has_gender.yaml",
        regressor="J_regressor_3dpw.npy",
        rule=(
            f"3DPW, test set. {_COMMON} MPVE centred on the regressed pelvis, against the neutral "
            "body at the labelled pose and betas, whatever the gender (METRO's rule)."
        ),
    ),
}

RENDERED = {"open": 1, "open2": 2}
"""Protocol whose people are rendered -> version of the poses that it is evaluated on. Both train on
the newest."""
