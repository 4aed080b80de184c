"""The phantom of BUSI against the real layout, read with Pillow: names, masks, the odd images."""
import re
from itertools import combinations

import numpy as np
import pytest
from phantoms import make
from PIL import Image
from scipy.ndimage import binary_dilation


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """class -> paths of its images, by number; nothing else is there but their masks."""
    root = make("busi", tmp_path_factory.mktemp("busi")) / "Dataset_BUSI_with_GT"
    assert {path.name for path in root.iterdir()} == {"benign", "malignant", "normal"}
    found = {}
    for kind in ("benign", "malignant", "normal"):
        count = len(list((root / kind).glob("*).png")))
        found[kind] = [root / kind / f"{kind} ({number}).png" for number in range(1, count + 1)]
        expected = {path for image in found[kind] for path in (image, *masks_of(image))}
        assert expected == set((root / kind).iterdir())
    return found


def masks_of(path):
    """The files of one image's masks, the first one first."""
    first = path.with_name(f"{path.stem}_mask.png")
    return [first, *sorted(path.parent.glob(f"{path.stem}_mask_*.png"))]


def test_busi_has_the_classes_in_the_shares_of_the_release(images):
    assert {kind: len(paths) for kind, paths in images.items()} == {"benign": 12, "malignant": 5, "normal": 3}


def test_masks_of_have_the_size_of_their_image_and_sizes_differ(images):
    sizes = set()
    for path in (path for paths in images.values() for path in paths):
        assert {Image.open(mask).size for mask in masks_of(path)} == {Image.open(path).size}
        sizes.add(Image.open(path).size)
    assert len(sizes) > 15


def test_masks_of_are_of_one_bit_but_for_the_odd_ones(images):
    assert {Image.open(mask).mode for path in images["normal"] for mask in masks_of(path)} == {"RGB"}
    assert all(not np.asarray(Image.open(mask)).any() for path in images["normal"] for mask in masks_of(path))
    modes = {mask.name: Image.open(mask).mode for kind in ("benign", "malignant") for path in images[kind]
             for mask in masks_of(path)}
    assert {name: mode for name, mode in modes.items() if mode != "1"} == {"benign (2)_mask_1.png": "RGBA"}
    assert {name for name in modes if re.search(r"_mask_\d", name)} == {
        "benign (2)_mask_1.png", "benign (4)_mask_1.png", "benign (4)_mask_2.png"
    }


def test_busi_tumours_are_apart_dark_and_of_all_sizes(images):
    shares, contrasts = [], []
    for path in images["benign"] + images["malignant"]:
        grey = np.asarray(Image.open(path).convert("L"), dtype=float)
        masks = [np.asarray(Image.open(mask).convert("L")) > 0 for mask in masks_of(path)]
        assert not any((one & other).any() for one, other in combinations(masks, 2))
        tumour = np.any(masks, axis=0)
        around = binary_dilation(tumour, iterations=6) & ~binary_dilation(tumour, iterations=2)
        contrasts.append(grey[tumour].mean() / grey[around].mean())
        shares.append(tumour.mean())
    assert max(contrasts) < 1 and np.median(contrasts) < 0.7
    assert 0.005 < min(shares) < 0.05 < max(shares) < 0.35


def test_busi_has_one_coloured_image_and_greys_of_three_channels(images):
    coloured = []
    for path in (path for paths in images.values() for path in paths):
        image = Image.open(path)
        assert image.mode == "RGB"
        channels = np.asarray(image)
        if not (channels == channels[..., :1]).all():
            coloured.append(path.name)
    assert coloured == ["benign (3).png"]


def test_busi_has_one_pair_of_equal_images_whose_masks_differ(images):
    paths = [path for paths in images.values() for path in paths]
    pairs = [(one, other) for one, other in combinations(paths, 2)
             if Image.open(one).size == Image.open(other).size
             and np.array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(other)))]
    assert [(one.name, other.name) for one, other in pairs] == [("benign (12).png", "malignant (5).png")]
    masks = [np.asarray(Image.open(masks_of(path)[0])) for path in pairs[0]]
    assert 0.5 < (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum() < 1
