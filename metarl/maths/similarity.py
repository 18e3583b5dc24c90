"""How alike two representations of the same examples are.

Linear centred kernel alignment (Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited",
§2.3 and eq. 4), of representations X [example, unit] and Y [example, unit] with centred columns:

    CKA(X, Y) = ‖Yᵀ X‖²_F / (‖Xᵀ X‖_F ‖Yᵀ Y‖_F)

1 where they are the same up to rotation and one scale, 0 where they have nothing in common.
"""

import numpy as np
from jaxtyping import Float


def linear_cka(x: Float[np.ndarray, "example unit"], y: Float[np.ndarray, "example other"]) -> float:
    """CKA(X, Y); NaN where one of them is the same for all examples.

    The products are of the smaller size: by the examples' Gram matrices, ‖Yᵀ X‖²_F = ⟨X Xᵀ, Y Yᵀ⟩.
    """
    grams = [(z - z.mean(0)) @ (z - z.mean(0)).T for z in (x.astype(np.float64), y.astype(np.float64))]
    norms = [float(np.linalg.norm(gram)) for gram in grams]
    return float((grams[0] * grams[1]).sum() / (norms[0] * norms[1])) if min(norms) > 0 else float("nan")


def principal_plane(
    x: Float[np.ndarray, "example unit"],
) -> tuple[Float[np.ndarray, "example 2"], float]:
    """The examples on the two axes of greatest variance, and the share of the variance that these hold (PCA).

    Signs are such that on each axis the unit of the largest weight has a positive one.
    """
    centred = x.astype(np.float64) - x.mean(0, dtype=np.float64)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[np.arange(len(axes[:2])), np.abs(axes[:2]).argmax(1)])[:, None]
    plane = centred @ axes.T
    total = float((sizes**2).sum())
    share = float((sizes[:2] ** 2).sum()) / total if total > 0 else 1.0
    return np.pad(plane, ((0, 0), (0, 2 - plane.shape[1]))), share
