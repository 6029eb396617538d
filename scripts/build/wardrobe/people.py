"""Adults with all of MakeHuman's helper vertices, which hold its clothes, and their betas."""

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
from jaxtyping import Float

from scripts.build.open_body import makehuman, rig
from scripts.build.open_body.makehuman import People, Rig
from scripts.build.open_body.shape import ShapeSpace
from smpler.models.body import Body

NUM_PEOPLE = 400
SEED = 1


@dataclass(frozen=True, eq=False)
class FittedPeople:
    """N adults in MakeHuman's A-pose, on its full mesh of 19,158 vertices, and their betas."""

    bones: Rig
    people: People
    betas: Float[np.ndarray, "n 10"]
    """Betas of the open body that come nearest to each of them in T-pose."""

    def fit_layer(
        self, vertices: Float[np.ndarray, "n k 3"], weights: scipy.sparse.csr_array
    ) -> tuple[Float[np.ndarray, "k 3"], Float[np.ndarray, "k 3 10"], float]:
        """Bring the layer that everyone wears to the T-pose, and fit it to their betas.

        Args:
            vertices: in A-pose, metres.
            weights: (k, bones) skinning weights.

        Returns:
            v_template and shapedirs of the layer, and the mean error of the fit [mm].
        """
        worn = replace(self.people, vertices=vertices)
        tpose, _ = rig.to_tpose(replace(self.bones, weights=weights), worn)
        design = np.column_stack([np.ones(len(self.betas)), self.betas])
        fit = np.linalg.lstsq(design, tpose.reshape(len(tpose), -1), rcond=None)[0]
        error = 1e3 * np.linalg.norm(tpose - (design @ fit).reshape(tpose.shape), axis=-1).mean()
        fit = fit.reshape(-1, *tpose.shape[1:])
        return fit[0], np.moveaxis(fit[1:], 0, -1), float(error)


def draw_people(body: Body) -> FittedPeople:
    """Draw adults as `scripts.build.open_body` does, and encode them by the body's betas."""
    model, bones = makehuman.load_model("anny-full")
    traits = makehuman.draw_traits(NUM_PEOPLE, np.random.default_rng(SEED))
    vertices, heads = [], []
    for rest in makehuman.at_rest(model, traits):
        vertices.append(makehuman.y_up(rest["rest_vertices"].numpy()))
        heads.append(makehuman.y_up(rest["rest_bone_heads"].double().numpy()))
    people = People(np.concatenate(vertices), np.concatenate(heads), traits)
    of_body = body_vertices()
    undressed = replace(people, vertices=people.vertices[:, of_body])
    tpose, _ = rig.to_tpose(replace(bones, weights=bones.weights[of_body]), undressed)
    betas = ShapeSpace(body.v_template, body.shapedirs).encode(tpose)
    return FittedPeople(bones, people, betas)


def body_vertices() -> np.ndarray:
    """Return MakeHuman's number of each vertex of the open body."""
    return makehuman.load_model()[0].base_mesh_vertex_indices.numpy()


def body_texture_coordinates() -> Float[np.ndarray, "f 3 2"]:
    """Return where the open body's faces are on MakeHuman's skins: (0, 0) top-left, v down."""
    model = makehuman.load_model()[0]
    places = model.texture_coordinates.numpy()[model.face_texture_coordinate_indices.numpy()]
    return places * (1, -1) + (0, 1)
