"""Zipped phantoms against the real layouts: names, types, headers, patients, lesions; determinism and refusals."""
import gzip
import json
import re
import signal
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import phantom
import phantom_brain_layouts
import pytest
from phantoms import SMALL

from environment.locks import exclusive

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "phantom.py"
ISLES_ZIP = "ISLES2018_Training.zip"
WMH_ZIPS = {"Utrecht.zip": "Utrecht", "Singapore.zip": "Singapore", "Amsterdam_GE3T.zip": "GE3T"}
ISLES_DTYPES = {"CT": np.int32, "CT_CBF": np.uint16, "CT_CBV": np.uint16, "CT_MTT": np.float64,
                "CT_Tmax": np.float64, "OT": np.uint8}


def read_isles(path):
    """Case number -> modality -> image, of every member that is a real .nii."""
    cases = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            found = re.fullmatch(r"TRAINING/case_(\d+)/(SMIR\.Brain\.XX\.O\.(\w+)\.\d+)/\2\.nii", name)
            if found:
                cases.setdefault(int(found[1]), {})[found[3]] = nib.Nifti1Image.from_bytes(archive.read(name))
    return cases


def read_wmh(folder):
    """Zip name -> member name -> image."""
    images = {}
    for zip_name in WMH_ZIPS:
        with zipfile.ZipFile(folder / zip_name) as archive:
            images[zip_name] = {name: nib.Nifti1Image.from_bytes(gzip.decompress(archive.read(name)))
                                for name in archive.namelist() if name.endswith(".gz")}
    return images


@pytest.fixture(scope="module")
def isles_zip(tmp_path_factory):
    """Eight scans of mixed slice counts at a quarter of the resolution."""
    folder = tmp_path_factory.mktemp("isles")
    assert phantom.main(["isles", "--out", str(folder), "--cases", "8", "--in-plane", "64"]) == 0
    return folder / ISLES_ZIP


@pytest.fixture(scope="module")
def wmh_folder(tmp_path_factory):
    """Six scans, two a site, at the native in-plane resolution."""
    folder = tmp_path_factory.mktemp("wmh")
    assert phantom.main(["wmh", "--out", str(folder), "--cases", "6", "--slices", "4"]) == 0
    return folder


@pytest.mark.parametrize(("layout", "zips"), [("isles", [ISLES_ZIP]), ("wmh", list(WMH_ZIPS))])
def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path, layout, zips):
    for folder, seed in (("first", "3"), ("again", "3"), ("other", "4")):
        options = ["--cases", "3", "--slices", "2", "--in-plane", "64", "--seed", seed]
        assert phantom.main([layout, "--out", str(tmp_path / folder), *options]) == 0
    for name in zips:
        first, again, other = [(tmp_path / run / name).read_bytes() for run in ("first", "again", "other")]
        assert first == again
        assert first != other


def test_isles_members_are_those_of_the_real_zip(isles_zip):
    with zipfile.ZipFile(isles_zip) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    junk = [name for name in names if name.startswith("__MACOSX/")]
    assert any(Path(name).name.startswith("._") and name.endswith(".nii") for name in junk)
    pattern = re.compile(r"TRAINING/case_\d+/(SMIR\.Brain\.XX\.O\.(CT|CT_\w+|OT)\.\d+)/\1\.(nii|json)")
    assert all(pattern.fullmatch(name) for name in set(names) - set(junk))
    cases = read_isles(isles_zip)
    assert sorted(cases) == list(range(1, 9))
    assert all(set(images) == {*ISLES_DTYPES, "CT_4DPWI"} for images in cases.values())


def test_isles_types_shapes_and_slice_counts(isles_zip):
    cases = read_isles(isles_zip)
    for images in cases.values():
        shape = images["OT"].shape
        assert shape[:2] == (64, 64)
        assert {name: images[name].get_data_dtype() for name in ISLES_DTYPES} == ISLES_DTYPES
        assert all(images[name].shape == shape for name in ISLES_DTYPES)
        assert images["CT_4DPWI"].ndim == 4
    counts = {images["OT"].shape[2] for images in cases.values()}
    assert {2, 22} <= counts <= {2, 4, 8, 16, 22}


def test_isles_spacing_stands_in_pixdim_alone(isles_zip):
    for images in read_isles(isles_zip).values():
        for name in ISLES_DTYPES:
            header = images[name].header
            assert np.array_equal(images[name].affine, np.eye(4))
            assert (int(header["sform_code"]), int(header["qform_code"])) == (2, 0)
            assert header["pixdim"][0] == -1
            x_mm, y_mm, z_mm = header.get_zooms()
            assert x_mm == y_mm
            assert 0.82 <= x_mm * 64 / 256 <= 1.0  # the field of view of 256 voxels
            assert 4 <= z_mm <= 12


def test_isles_pixdim_is_so_in_the_file_itself(isles_zip):
    with zipfile.ZipFile(isles_zip) as archive:
        name = next(name for name in archive.namelist() if re.search(r"/SMIR[^/]*\.OT\.\d+\.nii$", name))
        content = archive.read(name)
    assert struct.unpack_from("<f", content, 76)[0] == -1  # pixdim[0]
    assert struct.unpack_from("<2h", content, 252) == (0, 2)  # qform_code, sform_code


def test_isles_sidecars_name_patients_of_one_or_two_slabs(isles_zip):
    slabs = {}
    with zipfile.ZipFile(isles_zip) as archive:
        for name in archive.namelist():
            if re.search(r"TRAINING/.*\.CT\.\d+\.json$", name):
                text = json.loads(archive.read(name))["description"]
                patient, slab = re.fullmatch(r"ISLES 2018 - TRAIN - (Train_\d\d)_([AB]) - CT", text).groups()
                slabs.setdefault(patient, []).append(slab)
    assert {tuple(letters) for letters in slabs.values()} == {("A",), ("A", "B")}


def test_isles_lesions_have_realistic_sizes_and_one_scan_has_none(isles_zip):
    labels = [np.asarray(images["OT"].dataobj) for images in read_isles(isles_zip).values()]
    assert all(set(np.unique(label)) <= {0, 1} for label in labels)
    shares = sorted(label.mean() for label in labels)
    assert shares[0] == 0
    assert all(0.0005 <= share <= 0.03 for share in shares[1:])


def test_isles_core_lacks_blood_volume_that_its_surroundings_have(isles_zip):
    for images in read_isles(isles_zip).values():
        core = np.asarray(images["OT"].dataobj) == 1
        volume, delay = [np.asarray(images[name].dataobj, dtype=float) for name in ("CT_CBV", "CT_Tmax")]
        brain = volume > 50
        if core.sum() > 30:
            assert volume[core].mean() < 0.8 * volume[brain & ~core].mean()
            assert delay[core].mean() > 1.5 * delay[brain & ~core].mean()


def test_wmh_members_are_those_of_the_real_zips(wmh_folder):
    for zip_name, images in read_wmh(wmh_folder).items():
        case_ids = {name.split("/")[1] for name in images}
        assert len(case_ids) == 2
        expected = {f"{WMH_ZIPS[zip_name]}/{case_id}/{file}.nii.gz" for case_id in case_ids
                    for file in ("wmh", *(f"{stage}/{image}" for stage in ("orig", "pre")
                                          for image in ("FLAIR", "T1", "3DT1")))}
        assert set(images) == expected


def test_wmh_types_shapes_and_spacings_of_the_three_sites(wmh_folder):
    sites = {"Utrecht.zip": ((240, 240, 4), (0.958, 0.958, 3)), "Singapore.zip": ((256, 232, 4), (1, 1, 3)),
             "Amsterdam_GE3T.zip": ((132, 256, 4), (1.20, 0.98, 3))}
    for zip_name, images in read_wmh(wmh_folder).items():
        shape, spacing = sites[zip_name]
        for name, image in images.items():
            dtype = np.float32 if re.search("FLAIR|wmh", name) else np.uint16
            assert image.get_data_dtype() == dtype
            if "3DT1" in name:
                assert image.shape != shape
            else:
                assert image.shape == shape
                assert np.allclose(image.header.get_zooms(), spacing, atol=2e-5)
                assert np.allclose(nib.affines.voxel_sizes(image.affine), spacing, atol=2e-5)


def test_wmh_transposed_only_for_cases_50_and_51(tmp_path):
    options = ["--cases", "9", "--slices", "2", "--in-plane", "64"]
    assert phantom.main(["wmh", "--out", str(tmp_path), *options]) == 0
    images = read_wmh(tmp_path)["Singapore.zip"]
    shapes = {case_id: images[f"Singapore/{case_id}/wmh.nii.gz"].shape for case_id in (50, 51, 52)}
    assert shapes == {50: (64, 58, 2), 51: (64, 58, 2), 52: (58, 64, 2)}


def test_wmh_headers_of_one_scan_differ_by_less_than_2e_5(wmh_folder):
    differences = []
    for images in read_wmh(wmh_folder).values():
        for name in images:
            if name.endswith("pre/FLAIR.nii.gz"):
                flair, t1 = images[name], images[name.replace("FLAIR", "T1")]
                differences.append(np.abs(np.subtract(flair.header.get_zooms(), t1.header.get_zooms())).max())
    assert 0 < max(differences) < 2e-5


def test_wmh_labels(wmh_folder):
    values = set()
    for images in read_wmh(wmh_folder).values():
        for name, image in images.items():
            if name.endswith("wmh.nii.gz"):
                label = np.asarray(image.dataobj)
                values |= set(np.unique(label))
                assert 0.0005 <= (label == 1).mean() <= 0.03
    assert values == {0, 1, 2}


def run(*arguments):
    """The script as a user runs it."""
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


def test_an_existing_zip_is_refused_and_left_alone(tmp_path):
    for layout, name in (("isles", ISLES_ZIP), ("wmh", "Singapore.zip")):
        folder = tmp_path / layout
        folder.mkdir()
        (folder / name).write_bytes(b"precious")
        result = run(layout, "--out", folder)
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1 and name in result.stderr
        assert [path.name for path in folder.iterdir()] == [name]
        assert (folder / name).read_bytes() == b"precious"


@pytest.mark.parametrize("options", [["isles", "--cases", "0"], ["isles", "--slices", "1"],
                                     ["isles", "--seed", "-1"], ["wmh", "--cases", "2"],
                                     ["wmh", "--in-plane", "8"]])
def test_numbers_without_sense_are_refused(tmp_path, capsys, options):
    out = tmp_path / "raw"
    assert phantom.main([*options, "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and options[1] in message
    assert not out.exists()


def test_a_run_that_breaks_leaves_no_file(tmp_path, monkeypatch):
    def break_off(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom_brain_layouts, "nifti", break_off)
    with pytest.raises(KeyboardInterrupt):
        phantom.main(["wmh", "--out", str(tmp_path), "--cases", "3", "--slices", "2", "--in-plane", "64"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_is_one_line_and_leaves_no_file(tmp_path, stop):
    command = [sys.executable, str(SCRIPT), "isles", "--out", str(tmp_path), "--cases", "94"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.iterdir()) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(stop)
    assert process.communicate(timeout=60) == ("", "phantom.py: interrupted\n")
    assert process.returncode == 130 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout", ["isles", "busi"])
def test_what_a_killed_run_left_is_cleared_and_nothing_else(tmp_path, layout):
    left = tmp_path / ".unfinished-1.phantom" / "half"
    kept = [tmp_path / name / "notes" for name in (".phantom.part", f".{ISLES_ZIP}.part", ".unfinished-me.phantom")]
    for path in (left, *kept):
        path.parent.mkdir()
        path.write_bytes(b"kept")
    made = "Dataset_BUSI_with_GT" if layout == "busi" else ISLES_ZIP
    assert phantom.main([layout, "--out", str(tmp_path), *SMALL.get(layout, ["--cases", "1"])]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {made, *(path.parent.name for path in kept)}
    assert [path.read_bytes() for path in kept] == 3 * [b"kept"] and not list((tmp_path / made).rglob("half"))


def test_a_folder_in_which_another_phantom_is_made_is_left_alone(tmp_path):
    theirs = tmp_path / ".unfinished-1.phantom"
    theirs.mkdir()
    with exclusive(tmp_path):
        done = run("isles", "--out", tmp_path, "--cases", "1")
    assert done.returncode == 2 and done.stderr == (
        f"phantom.py: error: {tmp_path}: another process is at work in it; wait for it or stop it\n")
    assert list(tmp_path.iterdir()) == [theirs]
