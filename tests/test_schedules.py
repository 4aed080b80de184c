"""Schedules: the weights that the papers print, and what each guarantees over a whole run."""

import pytest

from boundary_loss import schedules

EPOCHS = range(100)


def run(name: str, **settings) -> list[tuple[float, float]]:
    schedule = schedules.build(name, **{"start": 0.01, "step": 0.01, "epochs": 100, **settings})
    return [schedule.weights(epoch) for epoch in EPOCHS]


@pytest.mark.parametrize(
    ("name", "first", "eleventh", "last"),
    [
        ("constant", (1.0, 0.01), (1.0, 0.01), (1.0, 0.01)),
        ("increase", (1.0, 0.01), (1.0, 0.11), (1.0, 1.0)),
        ("rebalance", (0.99, 0.01), (0.89, 0.11), (0.01, 0.99)),
        ("midl", (1.0, 0.0), (0.9, 0.1), (0.01, 0.99)),
        ("busi-linear", (1.0, 0.0), (1.0, 10 / 99), (1.0, 1.0)),
        ("busi-rebalance", (1.0, 0.0), (89 / 99, 10 / 99), (0.0, 1.0)),
        ("equal", (1.0, 1.0), (1.0, 1.0), (1.0, 1.0)),
        ("gradual", (1.0, 0.0), (0.9, 0.1), (0.01, 0.99)),
        ("authors", (1.0, 0.01), (0.9, 0.11), (0.1, 1.0)),
        ("busi-linear-authors", (1.0, 0.0), (1.0, 0.06), (1.0, 0.95)),
        ("busi-rebalance-authors", (1.0, 0.0), (0.94, 0.06), (0.05, 0.95)),
    ],
)
def test_weights_of_a_run_of_100_epochs(name, first, eleventh, last):
    weights = run(name)
    assert [weights[0], weights[10], weights[99]] == [pytest.approx(w) for w in (first, eleventh, last)]


def test_every_schedule_has_its_row_above():
    (mark,) = test_weights_of_a_run_of_100_epochs.pytestmark
    assert {row[0] for row in mark.args[1]} == set(schedules.SCHEDULES)


@pytest.mark.parametrize("name", ["rebalance", "midl", "gradual", "busi-rebalance"])
def test_weights_that_share_sum_to_one(name):
    assert [sum(w) for w in run(name)] == pytest.approx([1.0] * 100, abs=1e-12)


@pytest.mark.parametrize("name", ["constant", "increase", "busi-linear", "equal"])
def test_regional_weight_stays_one(name):
    assert {region for region, _ in run(name)} == {1.0}


@pytest.mark.parametrize(("name", "floor"), [("rebalance", 0.01), ("midl", 0.01), ("authors", 0.1)])
def test_regional_weight_never_reaches_zero_however_long_the_run(name, floor):
    schedule = schedules.build(name, start=0.03, step=0.07, epochs=5)
    regions = [schedule.weights(epoch)[0] for epoch in range(1000)]
    assert min(regions) == regions[-1] == floor


@pytest.mark.parametrize("name", ["increase", "rebalance", "midl", "busi-linear", "busi-rebalance"])
def test_contour_weight_grows_without_leaving_the_unit_interval(name):
    schedule = schedules.build(name, start=0.01, step=0.01, epochs=100)
    contours = [schedule.weights(epoch)[1] for epoch in range(300)]
    assert contours == sorted(contours)
    assert contours[0] < contours[50] < contours[98]
    assert contours[0] >= 0
    assert contours[-1] <= 1


def test_authors_weights_sum_to_101_percent_until_the_floor():
    weights = run("authors")
    assert [sum(w) for w in weights[:91]] == pytest.approx([1.01] * 91)
    assert weights[90] == pytest.approx((0.1, 0.91))
    assert weights[95] == pytest.approx((0.1, 0.96))


def test_weights_carry_no_rounding_digits():
    assert schedules.Rebalance().weights(5) == (0.94, 0.06)
    assert schedules.Increase().weights(6) == (1.0, 0.07)


def test_busi_run_of_20_epochs_and_of_one():
    assert schedules.BusiLinear(epochs=20).weights(19) == (1.0, 1.0)
    for schedule in (schedules.BusiLinear, schedules.BusiRebalance):
        assert schedule() == schedule(20)   # "trained on 20 epochs" (Odonnat and Pham, section 3.3)
    assert schedules.BusiRebalance(epochs=20).weights(19) == (0.0, 1.0)
    assert schedules.BusiRebalance(epochs=1).weights(0) == (1.0, 0.0)


@pytest.mark.parametrize("epochs", [1, 20, 30])
def test_the_busi_studys_code_stops_at_95_percent(epochs):
    linear, rebalance = (schedules.build(f"busi-{name}-authors", epochs=epochs) for name in ("linear", "rebalance"))
    for number in range(1, epochs + 1):     # its epochs are counted from 1
        alpha = max(0.0, number / epochs - 0.05)
        assert linear.weights(number - 1) == pytest.approx((1.0, alpha), abs=1e-12)
        assert rebalance.weights(number - 1) == pytest.approx((1.0 - alpha, alpha), abs=1e-12)
    assert linear.weights(epochs) == pytest.approx((1.0, 0.95))


def test_build_passes_each_schedule_what_it_knows():
    assert schedules.build("constant", start=1.5, step=0.5, epochs=7) == schedules.Constant(1.5)
    assert schedules.build("increase", start=0.2, step=0.5, epochs=7) == schedules.Increase(0.2, 0.5)
    assert schedules.build("midl", start=0.2, step=0.5, epochs=7) == schedules.Midl(0.5)
    assert schedules.build("busi-linear", start=0.2, step=0.5, epochs=7) == schedules.BusiLinear(7)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"constant, increase, rebalance, .*authors, found 'rebalanced'"):
        schedules.build("rebalanced")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("constant", {"start": -0.1}),
        ("constant", {"start": float("nan")}),
        ("constant", {"start": float("inf")}),
        ("increase", {"start": 0.0}),
        ("increase", {"step": 0.0}),
        ("rebalance", {"start": 1.1}),
        ("rebalance", {"step": float("nan")}),
        ("midl", {"step": -0.01}),
        ("authors", {"step": 2.0}),
        ("busi-linear", {"epochs": 0}),
    ],
)
def test_settings_out_of_range_raise(name, settings):
    (wrong,) = settings.values()
    with pytest.raises(ValueError, match=f"expected .*, found {wrong}"):
        schedules.build(name, **settings)


def test_a_schedule_of_ones_own_says_its_weights():
    with pytest.raises(NotImplementedError):
        schedules.Schedule().weights(0)
