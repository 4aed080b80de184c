"""Input that misleads: parts that are skipped, sizes that are not, names that climb out, links in circles, pipes."""

import gzip
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import tracemalloc
import zipfile

import nibabel as nib
import numpy as np
import pytest
from commands import evaluate
from raw_files import SLICED_X, call, isles_path, make_isles, make_nnunet, make_wmh, unseal
from training_runs import SMALL

import preprocess
import train
from environment import provenance
from raw_data import limits, walking
from raw_data.files import RawFile, list_files
from raw_data.isles import ISLES
from raw_data.orientation import stated_affine
from raw_data.wmh import WMH
from sliced_data.meta import part_files, read_meta
from sliced_data.slices import read_slice
from utils import InputError, check_file_name


@pytest.fixture
def in_time():
    """Fail where something waits for ever."""

    def late(*_):
        raise TimeoutError

    former = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, former)


def slice_wmh(raw, dest, monkeypatch) -> int:
    arguments = ("--source", raw, "--dest", dest, "--size", "16", "--val", "1", "--jobs", "1")
    return call(preprocess, "wmh", *arguments, monkeypatch=monkeypatch)


# What is skipped ------------------------------------------------------------------------------------------------------


def test_misspelt_parts_are_said(tmp_path, monkeypatch, capsys):
    raw = make_wmh(tmp_path / "raw", cases=("Utrecht/0", "Utrecht/2", "Utrecht/4", "Utrecht/6"))
    for case in ("4", "6"):
        (raw / "Utrecht" / case / "pre").rename(raw / "Utrecht" / case / "Pre")
        (raw / "Utrecht" / case / "wmh.nii.gz").rename(raw / "Utrecht" / case / "WMH.nii.gz")
    assert slice_wmh(raw, tmp_path / "data", monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "skipped 2 folders" in printed and "Utrecht/4/Pre/FLAIR.nii.gz" in printed and "Utrecht/6/" in printed


def test_other_images_beside_a_case_are_not_said(tmp_path, monkeypatch, capsys):
    raw = make_wmh(tmp_path / "raw")
    shutil.copytree(raw / "Utrecht" / "0" / "pre", raw / "Utrecht" / "0" / "orig")
    assert slice_wmh(raw, tmp_path / "data", monkeypatch) == 0 and "skipped" not in capsys.readouterr().out


def test_a_folder_of_images_counts_once_where_cases_are_files(tmp_path, monkeypatch, capsys):
    raw = make_nnunet(tmp_path / "raw")
    for folder in ("imagesTs", "labelsTs", "previews"):
        (raw / folder).mkdir()
        for case in ("x_1", "y_2"):
            shutil.copy(raw / "labelsTr" / "a_1.nii.gz", raw / folder / f"{case}_0000.nii.gz")
    shutil.copy(raw / "labelsTr" / "a_1.nii.gz", raw / "imagesTr" / "preview.nii.gz")
    arguments = ("mydata", "--layout", "nnunet", "--source", raw, "--dest", tmp_path / "data", "--size", "16")
    assert call(preprocess, *arguments, "--jobs", "1", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "skipped 3 folders with images and 1 image but no case" in printed
    named = ("imagesTr/preview.nii.gz", "imagesTs/x_1_0000.nii.gz", "labelsTs/x_1_0000.nii.gz")
    assert all(name in printed for name in named)


@pytest.mark.parametrize("place", ["Utrecht/8", "Utrecht/0/pre/extra.nii.gz"])
def test_a_link_to_nothing_is_an_error(tmp_path, place):
    raw = make_wmh(tmp_path / "raw")
    (raw / place).symlink_to(tmp_path / "another disk")
    with pytest.raises(InputError, match=f"{place}: expected a file or a folder, found a link"):
        WMH.find_cases(raw)


def test_an_unreadable_folder_is_an_error(tmp_path, monkeypatch):
    raw = make_wmh(tmp_path / "raw")
    scandir = os.scandir

    def locked(path):
        if str(path).endswith("Singapore"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(InputError, match="Singapore: expected a readable folder, found Permission denied"):
        WMH.find_cases(raw)


# Links, pipes ---------------------------------------------------------------------------------------------------------


def test_links_in_circles_end(tmp_path, in_time):
    raw = make_wmh(tmp_path / "raw")
    before = {case.case_id for case in WMH.find_cases(raw)}
    for name in ("a", "b", "Utrecht/up"):
        (raw / name).symlink_to(raw if "/" not in name else "..")
    for source in (raw, raw / "Utrecht"):
        assert {case.case_id for case in WMH.find_cases(source)} == before and len(before) == 3
    for name in ("a", "b", "c", "d"):
        (tmp_path / "loops" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "loops" / name).symlink_to(".")
    (tmp_path / "loops" / "file.txt").touch()
    assert set(list_files(tmp_path / "loops")) == {"file.txt"}


def test_more_folders_than_anybody_has_are_refused(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).mkdir()
    monkeypatch.setattr(walking, "MAX_FOLDERS", 4)
    assert list(walking.walk_files(tmp_path)) == []
    (tmp_path / "c" / "d").mkdir()
    said = "expected at most 4 folders, found more; do links lead in circles?"
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}: {said}")):
        list(walking.walk_files(tmp_path))


def test_a_linked_folder_is_read(tmp_path):
    raw = make_wmh(tmp_path / "disk")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "Utrecht").symlink_to(raw / "Utrecht")
    assert [case.case_id for case in WMH.find_cases(tmp_path / "raw")] == ["0"]


def test_a_pipe_is_no_file(tmp_path, sliced, monkeypatch, capsys, in_time):
    raw = make_isles(tmp_path / "raw")
    label = isles_path(raw, "case_2", "OT")
    label.unlink()
    os.mkfifo(label)
    arguments = ("--source", raw, "--dest", tmp_path / "d", "--size", "16", "--val", "1", "--jobs", "1")
    assert call(preprocess, "isles", *arguments, monkeypatch=monkeypatch) == 2
    assert "is no regular file" in capsys.readouterr().err
    data = shutil.copytree(sliced, tmp_path / "data")
    for kind in ("image", "label"):
        path = next(iter(sorted((data / "train" / kind).iterdir())))
        former = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        assert call(train, "--data", data, "--out", tmp_path / "run", *SMALL, monkeypatch=monkeypatch) == 2
        assert f"{path.name}: expected a readable slice" in capsys.readouterr().err
        path.unlink()
        path.write_bytes(former)


@pytest.mark.parametrize("name", ["meta.json", "cases.csv"])
def test_a_pipe_is_no_description(tmp_path, sliced, monkeypatch, capsys, in_time, name):
    data = shutil.copytree(sliced, tmp_path / "data")
    (data / name).unlink()
    os.mkfifo(data / name)
    assert call(train, "--data", data, "--out", tmp_path / "run", *SMALL, monkeypatch=monkeypatch) == 2
    assert f"{name}: expected a readable" in capsys.readouterr().err


# Sizes ----------------------------------------------------------------------------------------------------------------


def nifti_bytes(shape, *, dtype=np.uint8, voxels=b"") -> bytes:
    """A NIfTI file whose header says ``shape``, with the voxels that are given."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(dtype)
    header["magic"], header["vox_offset"] = b"n+1", 352
    return header.binaryblock + bytes(4) + voxels


def peak() -> int:
    """Bytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def write_label(path, content: bytes, packed: bool):
    path.unlink()
    if packed:
        path = path.with_name(f"{path.name}.gz")
        content = gzip.compress(content, compresslevel=1)
    path.write_bytes(content)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("content", "named"),
    [
        (nifti_bytes((1024, 1024, 500), voxels=bytes(20_000)), "case_2: expected a whole NIfTI file of"),
        (nifti_bytes((30_000, 30_000, 30_000)), "expected at most 536870912 voxels"),
        (nifti_bytes((16, 20, 3), voxels=bytes(300 * 2**20)), "expected at most the 1312 bytes of its header"),
        (bytes(300 * 2**20), "expected at most 268435456 bytes, found more"),
    ],
)
def test_a_size_is_held_against_its_limit_before_memory_is_taken(tmp_path, content, named, packed):
    raw = make_isles(tmp_path / "raw")
    write_label(isles_path(raw, "case_2", "OT"), content, packed)
    case = {case.case_id: case for case in ISLES.find_cases(raw)}["case_2"]
    before, room = peak(), 400 * 2**20
    with pytest.raises(InputError, match=named):
        ISLES.read_case(case)
    assert peak() - before < room


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("beginning", "named"), [
    (b"", "1048576 bytes"), (nifti_bytes((16, 20, 3), voxels=bytes(960)), "the 1312 bytes of its header"),
])
def test_a_member_of_a_zip_unpacks_to_no_more_than_its_limit(tmp_path, monkeypatch, beginning, named, packed):
    monkeypatch.setattr(limits, "MAX_OTHER_BYTES", 2**20)
    content = beginning + bytes(2**25)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("b.nii", gzip.compress(content, compresslevel=1) if packed else content)
    member = list_files(tmp_path)["b.nii"]
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=rf"a.zip!b.nii: expected at most {named}, found more"):
            member.read()
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_a_file_within_the_limit_is_read(tmp_path):
    content = nifti_bytes((16, 20, 3), voxels=bytes(960)) + bytes(100)
    for name, stored in (("a.nii", content), ("b.nii.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(stored)
        assert RawFile(tmp_path / name).read() == content
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("b.nii.gz", gzip.compress(content))
    member = RawFile(tmp_path / "c.zip", "b.nii.gz")
    assert member.read() == content and member.beginning(348) == content[:348]
    assert limits.nifti_length(content, "a") == 352 + 960


def test_a_header_cannot_make_a_billion_slices(sliced, tmp_path, monkeypatch, capsys, in_time):
    data = shutil.copytree(sliced, tmp_path / "data")
    text = (data / "cases.csv").read_text()
    (data / "cases.csv").write_text(text.replace(",3,2,", ",1000000000,2,", 1))
    assert call(train, "--data", data, "--out", tmp_path / "run", *SMALL, monkeypatch=monkeypatch) == 2
    assert "expected at most 10000 slices, found 1000000000" in capsys.readouterr().err


def test_fewer_slices_than_were_sliced_are_noticed(sliced, tmp_path, monkeypatch, capsys):
    data = unseal(shutil.copytree(sliced, tmp_path / "data"))
    text = (data / "cases.csv").read_text()
    (data / "cases.csv").write_text(text.replace(",3,2,", ",2,2,", 1))
    assert call(train, "--data", data, "--out", tmp_path / "run", *SMALL, monkeypatch=monkeypatch) == 2
    assert "expected the 6 slices for train that meta.json has, found 5" in capsys.readouterr().err


# Space ----------------------------------------------------------------------------------------------------------------


def change_affine(path, change):
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.array(image.dataobj), change(image.affine), image.header), path)


def mirrored(affine):
    return np.diag([-1.0, 1, 1, 1]) @ affine


def shifted(affine):
    return affine + np.array([[0, 0, 0, 5.0], *[[0] * 4] * 3])


def rounded(affine):
    return affine * (1 + 1e-5) + 1e-3 * np.array([[0, 0, 0, 1.0], *[[0] * 4] * 3])


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [("pre/T1", mirrored, "RAS, found LAS"), ("pre/T1", shifted, "found one 5 mm away"),
     ("wmh", mirrored, "RAS, found LAS"), ("wmh", shifted, "found one 5 mm away"),
     ("pre/T1", rounded, None), ("wmh", rounded, None)],
)
def test_images_of_a_case_lie_in_the_same_way(tmp_path, name, change, found):
    raw = make_wmh(tmp_path / "raw")
    change_affine(raw / "Utrecht" / "0" / f"{name}.nii.gz", change)
    case = WMH.find_cases(raw)[0]
    if found is None:
        WMH.read_case(case)
        return
    with pytest.raises(InputError, match=f"0: expected the .*{found}.*{name}.nii.gz"):
        WMH.read_case(case)


def test_an_identity_beside_another_spacing_says_nothing(tmp_path):
    raw = make_isles(tmp_path / "raw")
    path = isles_path(raw, "case_1", "CT_CBF")
    image = nib.load(path)
    image.header.set_sform(np.diag([-0.9, 0.8, 5.0, 1]), code=1)
    nib.save(nib.Nifti1Image(np.array(image.dataobj), None, image.header), path)
    ISLES.read_case(ISLES.find_cases(raw)[0])


def test_an_affine_without_one_of_its_axes_says_nothing(tmp_path):
    path = tmp_path / "a.nii"
    image = nib.Nifti1Image(np.zeros((2, 3, 4), np.float32), np.diag([0.9, 0.8, 5.0, 1.0]))
    nib.save(image, path)
    assert stated_affine(RawFile(path)) is not None
    image.header["srow_y"] = 0
    path.write_bytes(image.header.binaryblock + path.read_bytes()[len(image.header.binaryblock) :])
    assert stated_affine(RawFile(path)) is None


# Zips -----------------------------------------------------------------------------------------------------------------


def test_a_member_that_comes_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.writestr("a.nii", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.nii", b"2")
    with pytest.raises(InputError, match="one.zip: expected each member once, found a.nii twice"):
        list_files(tmp_path)


def test_two_zips_agree_in_the_members_that_they_share(tmp_path):
    for name, content in (("one", b"1"), ("two", b"1")):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("a.nii", content)
    assert "a.nii" in list_files(tmp_path)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.nii", b"2")
    with pytest.raises(InputError, match="two.zip!a.nii: expected the content that .*one.zip has"):
        list_files(tmp_path)


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../x", "/x", "..", ".", "", "a/b", "a\\b", "a\nb", "a\0", "ä" * 101])
def test_names_that_are_no_file_names(name):
    with pytest.raises(InputError, match="id: expected a plain file name"):
        check_file_name(name, "id")


@pytest.mark.parametrize("name", ["case_1", "benign (1)", "Jürgen", ".hidden", "a.b"])
def test_names_that_are_file_names(name):
    check_file_name(name, "id")


def test_ids_that_climb_out_are_refused_wherever_they_are_read(sliced, results, tmp_path, monkeypatch, capsys):
    data, folder = shutil.copytree(sliced, tmp_path / "data"), shutil.copytree(results, tmp_path / "results")
    for path, line in ((data / "cases.csv", 1), (folder / "gdl" / "seed0" / "metrics.csv", 1)):
        lines = path.read_text().splitlines(keepends=True)
        lines[line] = f"../{lines[line]}"
        path.write_text("".join(lines))
    assert call(train, "--data", data, "--out", tmp_path / "run", *SMALL, monkeypatch=monkeypatch) == 2
    assert "cases.csv: case_id: expected a plain file name" in capsys.readouterr().err
    table = ("table", folder, "--rows", "gdl", "--name", "t")
    assert call(evaluate, *table, monkeypatch=monkeypatch) == 2
    assert "metrics.csv: case_id: expected a plain file name" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["diff.external", "diff.words.command", "diff.words.textconv"])
def test_the_diff_of_a_run_starts_no_program_of_the_users(tmp_path, monkeypatch, key):
    marker = tmp_path / "started"
    program = tmp_path / "diff"
    program.write_text(f"#!/bin/sh\ntouch {marker}\n")
    program.chmod(0o755)
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / ".gitattributes").write_text("*.txt diff=words\n")
    (repository / "file.txt").write_text("one\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"],
                    ["config", key, str(program)], ["config", "color.ui", "always"]):
        subprocess.run(["git", *identity, *command], cwd=repository, check=True)
    (repository / "file.txt").write_text("two\n")
    monkeypatch.setattr(provenance, "__file__", str(repository / "provenance.py"))
    found = provenance.provenance()["git_diff"]
    assert "+two" in found.splitlines() and not marker.exists()
    subprocess.run(["git", "diff"], cwd=repository, check=True, capture_output=True)
    assert marker.exists()      # which git by itself does start


# Slices changed after slicing -----------------------------------------------------------------------------------------


def edit_slice(folder):
    """Keep a slice's values in another order; returns its path and the values as they were."""
    path = sorted(folder.iterdir())[1]
    values = np.load(path)
    np.save(path, values[..., ::-1])
    return path, values


@pytest.mark.parametrize("resident", ["host", "stream"])
@pytest.mark.parametrize(("edited", "maps"), [
    ("train/image", "2d"), ("train/label", "2d"), ("train/phi2d", "2d"), ("train/phi3d", "3d"), ("val/image", "2d"),
    ("val/label", "2d"),
])
def test_slices_edited_after_slicing_are_refused(sliced, tmp_path, monkeypatch, capsys, edited, maps, resident):
    data = shutil.copytree(sliced, tmp_path / "data")
    path, values = edit_slice(data / edited)
    flags = ("--contour", "boundary", "--maps", maps, "--resident", resident, "--epochs", "1", "--precision", "fp32")
    assert call(train, "--data", data, "--out", tmp_path / "run", *SMALL, *flags, monkeypatch=monkeypatch) == 2
    assert f"{path}: expected the values that were sliced, found others" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    np.save(path, values)
    assert call(train, "--data", data, "--out", tmp_path / "run", *SMALL, *flags, monkeypatch=monkeypatch) == 0


@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_run_is_not_measured_on_edited_slices(sliced, results, tmp_path, monkeypatch, capsys, kind):
    data = shutil.copytree(sliced, tmp_path / "data")
    run = shutil.copytree(results / "gdl" / "seed0", tmp_path / "isles" / "gdl" / "seed0")
    former = (run / "metrics.csv").read_bytes()
    path, values = edit_slice(data / "val" / kind)
    asked = ("run", run, "--data", data, "--device", "cpu")
    assert call(evaluate, *asked, monkeypatch=monkeypatch) == 2
    assert f"{path}: expected the values that were sliced, found others" in capsys.readouterr().err
    assert (run / "metrics.csv").read_bytes() == former
    np.save(path, values)
    assert call(evaluate, *asked, monkeypatch=monkeypatch) == 0


def test_two_slices_that_changed_places_are_refused(sliced, tmp_path, monkeypatch, capsys):
    data = shutil.copytree(sliced, tmp_path / "data")
    one, other = sorted((data / "train" / "image").iterdir())[:2]
    one.rename(tmp_path / "held")
    other.rename(one)
    (tmp_path / "held").rename(other)
    assert call(train, "--data", data, "--out", tmp_path / "run", *SMALL, monkeypatch=monkeypatch) == 2
    assert "expected the values that were sliced" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "named"),
    [(lambda path: path.unlink(), "expected the checksums of the slices"),
     (lambda path: path.write_text("00000000  train/image/x.npy\n"), "expected the checksums that meta.json knows")],
)
def test_checksums_are_those_that_the_data_set_was_made_with(sliced, tmp_path, monkeypatch, capsys, damage, named):
    data = shutil.copytree(sliced, tmp_path / "data")
    damage(data / "checksums.txt")
    assert call(train, "--data", data, "--out", tmp_path / "run", *SMALL, monkeypatch=monkeypatch) == 2
    assert named in capsys.readouterr().err


def test_a_data_set_without_checksums_is_the_same_data(sliced, tmp_path):
    data = shutil.copytree(sliced, tmp_path / "data")
    (data / "checksums.txt").unlink()
    meta = json.loads((data / "meta.json").read_text())
    del meta["checksums"], meta["seal"]
    (data / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
    assert read_meta(data).fingerprint == read_meta(sliced).fingerprint
    assert part_files(read_meta(data), "train").sums is None


def change_meta(path, change):
    meta = json.loads((path / "meta.json").read_text())
    change(meta)
    (path / "meta.json").write_text(json.dumps(meta))


def change_spacing(data):
    text = (data / "cases.csv").read_text()
    (data / "cases.csv").write_text(text.replace(f",{SLICED_X},", ",999.0,", 1))


@pytest.mark.parametrize("change", [
    change_spacing,
    lambda data: change_meta(data, lambda meta: meta["class_names"].insert(1, "other")),
    lambda data: change_meta(data, lambda meta: meta.update(normalise="zscore")),
    lambda data: change_meta(data, lambda meta: meta.update(modalities=meta["modalities"][::-1])),
    lambda data: change_meta(data, lambda meta: meta.pop("checksums")),
])
def test_what_a_data_set_says_of_itself_is_as_it_was_written(sliced, tmp_path, change):
    data = shutil.copytree(sliced, tmp_path / "data")
    change_meta(data, lambda meta: meta.update(source="moved", versions={}))    # which do not change what it is
    assert read_meta(data).fingerprint == read_meta(sliced).fingerprint
    change(data)
    with pytest.raises(InputError, match="data: expected meta.json and cases.csv as they were written, found others"):
        read_meta(data)


# Slices with damaged headers ------------------------------------------------------------------------------------------


def test_damaged_slices_are_one_line(sliced, tmp_path):
    data = shutil.copytree(sliced, tmp_path / "data")
    files = part_files(read_meta(data), "train")
    path, generator = files.path("image", 0), np.random.default_rng(0)
    whole, out = path.read_bytes(), np.empty(*files.stored["image"])
    refused = 0
    for _ in range(500):
        content = bytearray(whole)
        for place in generator.integers(0, 128, 4):
            content[place] = generator.integers(0, 256)
        path.write_bytes(content)
        try:
            read_slice(files, "image", 0, out)
        except InputError as error:
            assert "\n" not in str(error).strip() and str(path) in str(error)
            refused += 1
    assert refused > 400
