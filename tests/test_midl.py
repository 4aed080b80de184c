"""The number that MIDL prints as HD, by hand and by its laws; beside the Hausdorff distance that it is not."""

import numpy as np
import pytest

from boundary_loss.metrics import hd
from boundary_loss.midl import hd_midl


def mask(*rows: str) -> np.ndarray:
    return np.array([list(row) for row in rows]) == "1"


REF = mask("110000", "110000", "000000", "000000", "000000", "000000")
FAR = mask("110000", "110000", "000000", "000000", "000000", "000001")


def test_hd_of_midl_is_1_where_the_hausdorff_distance_is_14_mm():
    # Row 000001 is most like 000000, from which it differs in one pixel; the pixel is 4 x 2 mm and 4 x 3 mm away.
    assert hd_midl(FAR, REF) == 1
    assert hd(FAR, REF, (2.0, 3.0)) == pytest.approx(208**0.5)


@pytest.mark.parametrize(
    ("pred", "ref", "expected"),
    [
        (mask("1110", "0000"), mask("1000", "0000"), 2**0.5),   # 1110 against 1000
        (mask("1110", "1111"), mask("1000", "0000"), 3**0.5),   # 1111 against 1000; 0000 against 1110 alike
        (mask("1100", "0000"), mask("0000", "1100"), 0),        # the rows are the same, in another order
        (mask("0000", "0111"), mask("0000", "0000"), 3**0.5),   # an empty reference: the longest row
        (mask("0000", "0000"), mask("0000", "0000"), 0),
    ],
)
def test_hd_of_midl_by_hand(pred, ref, expected):
    assert hd_midl(pred, ref) == pytest.approx(expected)
    assert hd_midl(ref, pred) == pytest.approx(expected)
    assert hd_midl(~pred, ~ref) == pytest.approx(expected)      # the background, which they measured


def test_hd_of_midl_compares_rows_wherever_they_are():
    rng = np.random.default_rng(0)
    pred, ref = rng.random((2, 12, 7)) < 0.3
    differing = (pred[:, None] ^ ref[None]).sum(axis=2)         # pixels, of each pair of rows
    expected = max(differing.min(axis=1).max(), differing.min(axis=0).max()) ** 0.5
    assert expected > 0
    assert hd_midl(pred, ref) == pytest.approx(expected)
    assert hd_midl(rng.permutation(pred), rng.permutation(ref)) == pytest.approx(expected)
    assert hd_midl(pred.T, ref.T) != pytest.approx(expected)


def test_hd_of_midl_of_a_volume_is_the_mean_over_its_slices():
    pred, ref = np.stack([FAR, REF, ~REF & REF], axis=-1), np.stack([REF, REF, REF], axis=-1)
    assert hd_midl(pred, ref) == pytest.approx((1 + 0 + 2**0.5) / 3)
    assert hd_midl(pred.astype(np.uint8), ref.astype(float)) == hd_midl(pred, ref)


@pytest.mark.parametrize(("pred", "ref"), [(REF, REF[:3]), (REF[0], REF[0]), (REF[None, None], REF[None, None])])
def test_hd_of_midl_refuses_other_shapes(pred, ref):
    with pytest.raises(ValueError, match="expected two masks of one 2-D or 3-D shape, found"):
        hd_midl(pred, ref)
