"""What a table's figures are means over: volumes (MedIA 2021), slices (MIDL 2019) or batches of images (BUSI)."""

from dataclasses import dataclass

from evaluation.metric_catalogue import CATALOGUE, LENGTH
from training.settings import POOLED_CASES

EMPTY_RULE = (
    "Where the prediction is empty (missed) or the reference alone is (false alarm), DSC is 0 and a distance the "
    "grid's diagonal; both empty: DSC 1, distance 0. Missed and false alarms count volumes of all seeds. A row is "
    "collapsed where every prediction of every seed is empty."
)


@dataclass(frozen=True)
class Level:
    """Where metrics are computed, and what of them a table prints."""

    name: str
    file: str                   # of a run
    metrics: tuple[str, ...]    # that a table prints
    footnote: str
    over: str = ""              # in the titles
    digits: int | None = None   # of all metrics, where the paper prints them so

    def heading(self, metric: str, length_unit: str = LENGTH) -> str:
        return CATALOGUE[metric].heading(length_unit, over=self.over)

    def digits_of(self, metric: str) -> int:
        return self.digits or CATALOGUE[metric].digits or 0


VOLUME = Level(
    name="volume",
    file="metrics.csv",
    metrics=("dsc", "hd95_mm"),
    footnote="Mean over the validation cases (volumes in 3D, images in 2D), then mean (sample sd) over seeds; HD95 "
    "pools the surface distances of both directions. " + EMPTY_RULE,
)
SLICE = Level(
    name="slice",
    file="metrics_2d.csv",
    metrics=("dsc", "hd_mm", "hd_midl"),
    footnote="Mean over the validation slices (2D), then mean (sample sd) over seeds. " + EMPTY_RULE,
    over="slices",
    digits=3,
)
# The breast-ultrasound study's notebook validates in batches of images, in their order.
POOLED = Level(
    name="pooled",
    file="metrics.csv",
    metrics=("dsc",),
    footnote=f"DSC over all pixels of {POOLED_CASES} consecutive cases at once, mean over these batches as the "
    "breast-ultrasound study computes it, then mean (sample sd) over seeds; it is higher than the mean over "
    "images where large targets are found best.",
    over=f"pooled over {POOLED_CASES} cases",
)
LEVELS = {level.name: level for level in (VOLUME, SLICE, POOLED)}
