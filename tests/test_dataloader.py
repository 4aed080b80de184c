import numpy as np
import pytest
import torch
from raw_files import SLICED_X, unseal

import dataloader
from boundary_loss.distance import region_wise_map
from sliced_data.meta import read_meta
from sliced_data.slices import load_other
from utils import InputError


def test_slices_are_the_files_in_order(sliced):
    meta = read_meta(sliced)
    train = dataloader.load_slices(meta, "train", maps="phi3d")
    assert len(train) == 6 and train.image.dtype == train.maps.dtype == torch.float16
    assert train.image.is_contiguous() and train.maps.is_contiguous()
    for index, name in enumerate(train.names):
        for kind, tensor in (("image", train.image), ("label", train.label), ("phi3d", train.maps)):
            assert np.array_equal(tensor[index].numpy(), np.load(sliced / "train" / kind / f"{name}.npy"))
    assert torch.allclose(train.spacing, torch.tensor([0.45, 0.5]))
    assert [(case.case_id, at.start, at.stop) for case, at in train.case_ranges()] == [
        (train.cases[0].case_id, 0, 3),
        (train.cases[1].case_id, 3, 6),
    ]


def test_only_what_a_loss_needs_is_loaded(sliced):
    meta = read_meta(sliced)
    assert dataloader.load_slices(meta, "val").maps is None
    with_map = dataloader.load_slices(meta, "val", maps="rrw")
    expected = np.stack([region_wise_map(label, 2, "rrw", spacing=(0.45, 0.5)) for label in with_map.label.numpy()])
    assert np.allclose(with_map.maps.numpy(), expected, atol=1e-3)


def test_an_epoch_shows_each_slice_once_in_an_order_of_seed_and_epoch():
    orders = {
        (seed, epoch): tuple(dataloader.epoch_order(50, seed=seed, epoch=epoch).tolist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert len(set(orders.values())) == 9
    assert orders[1, 2] == tuple(dataloader.epoch_order(50, seed=1, epoch=2).tolist())


def test_batches_are_float32_and_complete(sliced):
    train = dataloader.load_slices(read_meta(sliced), "train", maps="phi2d")
    order = dataloader.epoch_order(6, seed=0, epoch=0)
    found = list(dataloader.batches(train, order, 4, torch.device("cpu")))
    assert [len(batch.label) for batch in found] == [4, 2]
    assert {found[0].image.dtype, found[0].maps.dtype, found[0].spacing.dtype} == {torch.float32}
    assert found[0].label.dtype == torch.int64
    assert torch.equal(torch.cat([batch.label for batch in found]), train.label[order].long())


@pytest.fixture
def damaged(sliced, tmp_path):
    """A copy that a test may damage."""
    import shutil

    return unseal(shutil.copytree(sliced, tmp_path / "copy"))


def damage_objects(path):
    """The header of an array of objects, which only a pickle could hold, and nothing behind it."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (1,)})


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:100])


def damage_nan(path):
    array = np.load(path)
    array[0, 0, 0] = np.nan
    np.save(path, array)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda path: path.unlink(), "No such file"),
        (damage_truncate, "expected a readable slice"),
        (lambda path: np.save(path, np.zeros((5, 32, 32), np.float32)), "found float32"),
        (lambda path: np.save(path, np.zeros((5, 32, 16), np.float16)), r"found float16 \(5, 32, 16\)"),
        (damage_objects, "allow_pickle"),
        (damage_nan, "NaN or infinity"),
    ],
)
def test_a_damaged_slice_is_named(damaged, damage, found):
    path = sorted((damaged / "train" / "image").iterdir())[2]
    damage(path)
    with pytest.raises(InputError, match=rf"{path.name}.*{found}"):
        dataloader.load_slices(read_meta(damaged), "train")


def test_a_label_beyond_the_classes_is_named(damaged):
    path = sorted((damaged / "val" / "label").iterdir())[1]
    np.save(path, np.full((32, 32), 2, np.uint8))
    with pytest.raises(InputError, match=f"{path.stem}: expected classes 0 to 1, found 2"):
        dataloader.load_slices(read_meta(damaged), "val")


def replace_text(path, old, new):
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda root: (root / "meta.json").unlink(), "meta.json: expected a readable JSON file"),
        (lambda root: (root / "meta.json").write_text("{"), "meta.json: expected a readable JSON file"),
        (lambda root: (root / "meta.json").write_text("[]"), "expected a JSON object, found list"),
        (lambda root: replace_text(root / "meta.json", '"format": 1', '"format": 7'), "expected format 1, found 7"),
        (lambda root: replace_text(root / "meta.json", '"class_names"', '"names"'), "class_names"),
        (lambda root: replace_text(root / "cases.csv", "n_slices", "slices"), "expected a column n_slices"),
        (lambda root: replace_text(root / "cases.csv", f",{SLICED_X},", ",wide,"), "case_1: expected numbers"),
        (lambda root: (root / "cases.csv").write_text((root / "cases.csv").read_text()[:-20]), "line 4 is cut off"),
        (lambda root: replace_text(root / "cases.csv", ",val,", ",train,"), "expected cases for val, found none"),
    ],
)
def test_a_damaged_description_is_named(damaged, change, found):
    change(damaged)
    with pytest.raises(InputError, match=found):
        dataloader.load_slices(read_meta(damaged), "val")


@pytest.mark.parametrize("shape", [(3, 4), (2, 300, 300)])
def test_a_slice_of_another_order_of_bytes_is_read_whole(tmp_path, shape):
    """Fewer bytes than a header may have, and more."""
    values = np.random.default_rng(0).random(shape).astype(np.float16)
    np.save(tmp_path / "a.npy", np.asfortranarray(values))
    found = np.empty(shape, np.float16)
    load_other(tmp_path / "a.npy", found)
    assert np.array_equal(found, values)
