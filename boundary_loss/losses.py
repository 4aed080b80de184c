"""Every loss of the papers, each called `loss(logits, target, spacing=None)` and returning a scalar.

    loss = Boundary()
    loss(logits, phi).backward()

`Loss` says what logits, target and spacing are, what `classes`, `activation`, `reduction` and `ignore_index` do, and
how to add a loss.

Reductions: maps and images are averaged over images, selected classes and pixels; cross-entropy and focal loss over
the pixels that carry a selected class, or, of classes that overlap, over pixels and selected classes; Dice losses are
computed per image, then averaged.
"""

from boundary_loss.base import Batch, Loss
from boundary_loss.contour import (
    ActiveContour,
    Boundary,
    Hausdorff,
    RegionWise,
    RegionWiseCrossEntropy,
    RegionWiseSquared,
)
from boundary_loss.cross_entropy import CrossEntropy, DistanceWeightedCrossEntropy, Focal, WeightedCrossEntropy
from boundary_loss.regional import (
    Dice,
    DiceCrossEntropy,
    DiceFocal,
    ExponentialLogarithmic,
    FocalTversky,
    GeneralizedDice,
    Tversky,
)

__all__ = [
    "ActiveContour",
    "Batch",
    "Boundary",
    "CrossEntropy",
    "Dice",
    "DiceCrossEntropy",
    "DiceFocal",
    "DistanceWeightedCrossEntropy",
    "ExponentialLogarithmic",
    "Focal",
    "FocalTversky",
    "GeneralizedDice",
    "Hausdorff",
    "Loss",
    "RegionWise",
    "RegionWiseCrossEntropy",
    "RegionWiseSquared",
    "Tversky",
    "WeightedCrossEntropy",
]
