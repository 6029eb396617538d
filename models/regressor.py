"""Initial estimate by iterative error feedback (Kanazawa et al., HMR, CVPR 2018)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smpler.utils.joints import NUM_BETAS, NUM_JOINTS

NUM_ROT6D = 6 * NUM_JOINTS
NUM_CAM = 3


class IterativeRegressor(nn.Module):
    """From the pooled coarsest features to pose, shape and camera in a few refinements.

    Args:
        num_features: channels of the pooled feature.
        mean_rot6d: (144,) where the pose starts: 24 6D rotations, see `rot6d_to_rotmat`.
        mean_betas: (10,) where the shape starts.
        hidden: width of the two hidden layers.
        num_iterations: how often the estimate is refined, each time with the same weights.
        dropout: probability after each hidden layer, in training.
    """

    mean_rot6d: Float[Tensor, "1 144"]
    mean_betas: Float[Tensor, "1 10"]
    mean_cam: Float[Tensor, "1 3"]

    def __init__(
        self,
        num_features: int,
        mean_rot6d: Float[Tensor, "144"],
        mean_betas: Float[Tensor, "10"],
        hidden: int = 1024,
        num_iterations: int = 3,
        dropout: float = 0.5,
    ):
        super().__init__()
        self.num_iterations = num_iterations
        num_state = NUM_ROT6D + NUM_BETAS + NUM_CAM
        self.fc1 = nn.Linear(num_features + num_state, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.activation = nn.ReLU()
        self.rot6d_head = nn.Linear(hidden, NUM_ROT6D)
        self.betas_head = nn.Linear(hidden, NUM_BETAS)
        self.cam_head = nn.Linear(hidden, NUM_CAM)
        for head in (self.rot6d_head, self.betas_head, self.cam_head):
            nn.init.xavier_uniform_(head.weight, gain=0.01)
        self.register_buffer("mean_rot6d", mean_rot6d[None].clone())
        self.register_buffer("mean_betas", mean_betas[None].clone())
        self.register_buffer("mean_cam", torch.tensor([[1.0, 0.0, 0.0]]))

    def forward(
        self, feature: Float[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b 24 6"], Float[Tensor, "b 10"], Float[Tensor, "b 3"]]:
        """Return 6D rotations, betas and weak-perspective camera."""
        batch = feature.shape[0]  # not len: torch.export would fix the batch
        rot6d = self.mean_rot6d.expand(batch, -1)
        betas = self.mean_betas.expand(batch, -1)
        cam = self.mean_cam.expand(batch, -1)
        for _ in range(self.num_iterations):
            state = torch.cat([feature, rot6d, betas, cam], dim=1)
            hidden = self.dropout(self.activation(self.fc1(state)))
            hidden = self.dropout(self.activation(self.fc2(hidden)))
            rot6d = rot6d + self.rot6d_head(hidden)
            betas = betas + self.betas_head(hidden)
            cam = cam + self.cam_head(hidden)
        return rot6d.unflatten(1, (24, 6)), betas, cam
