import csv
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from browser import Browser, find_browser
from commands import evaluate
from PIL import Image
from raw_files import call, make_isles

import preprocess
from reporting import page as report_page
from reporting.page_html import script_json
from sliced_data.meta import read_meta
from utils import InputError

HOSTILE = "</script><img src=x onerror=alert(1)>"
HOSTILE_NAME = "\"'><img src=x onerror=alert(1)>"   # a file's name holds no slash
HEADER = ("case_id", "class", "dsc", "hd95_mm", "hd_mm", "n_ref", "n_pred", "lesion_f1", "outcome")
SHIFT = (2, 1)                                       # of the row "shifted", in pixels of x and y


def reference(data, case_id):
    paths = sorted((data / "val" / "label").glob(f"{glob_escape(case_id)}_????.npy"))
    return np.stack([np.load(path) for path in paths], axis=-1)                                         # (X, Y, Z)


def glob_escape(name):
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def write_run(folder, data, metrics, shift=(0, 0), **settings):
    """A finished run made by hand, whose predictions are the labels moved by ``shift`` pixels."""
    meta = read_meta(data)
    (folder / "predictions").mkdir(parents=True)
    settings = {"seed": int(folder.name[4:]), "dataset": "isles", "epochs": 3, "lr": 0.001, **settings}
    settings["data_fingerprint"] = meta.fingerprint
    config = {"settings": settings, "data": str(data), "meta": json.loads((data / "meta.json").read_text())}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "env.json").write_text(json.dumps({"command": HOSTILE, "git_diff": "+a\n-b", "packages": {"numpy": "2"}}))
    loss = 2 + settings["seed"]
    log = [f"0,0.1,0.2,30,{loss}", f"1,0.5,0.4,9,{loss}", f"2,0.6,0.5,8,{loss}", ""]
    (folder / "log.csv").write_text("\n".join(["epoch,train_dsc,val_dsc_3d,val_hd95_3d_mm,train_loss", *log]))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for case_id, *numbers in metrics:
            writer.writerow((case_id, "lesion", *numbers, "scored"))
            moved = np.roll(reference(data, case_id), shift, axis=(0, 1))
            nib.save(nib.Nifti1Image(moved, np.diag([0.9, 0.8, 5, 1])), folder / "predictions" / f"{case_id}.nii.gz")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A sliced data set of two validation cases, 32 x 32, three slices each; pixels are not square."""
    root = tmp_path_factory.mktemp("report")
    make_isles(root / "raw")
    folders = ("--source", str(root / "raw"), "--dest", str(root / "data"))
    preprocess.main(["isles", *folders, "--size", "32", "--val", "2", "--jobs", "1"])
    return root / "data"


def cases_of(data):
    return [case.case_id for case in read_meta(data).cases if case.split == "val"]


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """Two rows, of two seeds and of one."""
    root = tmp_path_factory.mktemp("finished") / "isles"
    one, two = cases_of(data)
    write_run(root / "gdl" / "seed0", data, [(one, 0.9, 9.5, 12.0, 36, 36, 0.5), (two, 0.25, 100.0, 120.0, 36, 36, "")])
    write_run(root / "gdl" / "seed1", data, [(one, 0.7, 10.25, 11.0, 36, 36, 1), (two, 0.25, 1e-3, 1.0, 36, 36, 0.25)])
    write_run(root / "shifted" / "seed1", data, [(one, 0.5, 2.0, 3.0, 36, 0, ""), (two, 0.125, 30.0, 31.0, 36, 36, 0)],
              shift=SHIFT, lr=0.01)
    return root


@pytest.fixture
def results(finished, page, tmp_path):
    """A copy to damage, with a report of an earlier time."""
    return shutil.copytree(finished, tmp_path / "isles")


@pytest.fixture(scope="module")
def page(finished):
    return report_page.write_report(finished, ["gdl", "shifted"])


class PageTables(HTMLParser):
    """The tables of a page: text and data-value of each cell, by the table's id."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.inside = {}, False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "table":
            self.lines = self.tables.setdefault(attributes.get("id"), [])
        elif tag == "tr":
            self.lines.append([])
        elif tag in ("td", "th"):
            self.lines[-1].append(["", attributes.get("data-value")])
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, text):
        if self.inside:
            self.lines[-1][-1][0] += text


def test_the_tables_have_the_numbers_of_the_files(page, finished):
    found = PageTables(page.read_text()).tables
    header, *lines = found["case-table"]
    values = {title: place for place, (title, _) in enumerate(header)}
    assert len(lines) == 6
    for line in lines:
        row, seed, case_id = (line[values[title]][0] for title in ("row", "seed", "case"))
        with (finished / row / f"seed{seed}" / "metrics.csv").open() as file:
            (expected,) = [entry for entry in csv.DictReader(file) if entry["case_id"] == case_id]
        for title, name in (("DSC", "dsc"), ("HD95 (mm)", "hd95_mm"), ("reference (voxels)", "n_ref")):
            assert float(line[values[title]][1]) == float(expected[name])
        f1, shown = expected["lesion_f1"], line[values["lesion F1"]]
        assert shown == ([f"{float(f1):.3f}", repr(float(f1))] if f1 else ["", None])
    # Seed means of gdl: 0.575 and 0.475, 54.75 and 5.1255 mm; shifted has missed one of its two cases.
    header, gdl, shifted = [[text for text, _ in line] for line in found["summary-table"]]
    assert dict(zip(header, gdl, strict=False)) == {
        "row": "gdl", "class": "lesion", "DSC": "0.525 (0.071)", "published DSC": "0.511 (0.016)",
        "differs from the paper in": "3 epochs, size 32 x 32, other data (2 cases)",
        "HD95 (mm)": "29.94 (35.09)", "published HD95 (mm)": "5.320 (1.742)", "HD (mm)": "36.00 (42.43)",
        "missed": "0 of 4", "false alarms": "0 of 4", "seeds": "0, 1",
    }
    assert dict(zip(header, shifted, strict=False))["missed"] == "1 of 2"
    # shifted less gdl, seeds averaged: both of two cases differ, so that p is 1/2 or 1.
    header, *lines = [[text for text, _ in line] for line in found["tests-table"]]
    assert [line[header.index("metric")] for line in lines] == ["DSC", "HD95 (mm)"]
    assert {line[header.index("p")] for line in lines} <= {"0.500", "1.000"} and "paired over 2" in page.read_text()
    # The one setting in which they differ.
    assert [[text for text, _ in line] for line in found["settings-table"]] == [
        ["row", "lr"], ["gdl", "0.001"], ["shifted", "0.01"],
    ]
    assert "epochs 3, " in page.read_text() and "<mark>lr differs</mark> (gdl 0.001, shifted 0.01)" in page.read_text()


def test_curves_are_means_and_sds_over_seeds(results):
    log = results / "gdl" / "seed1" / "log.csv"
    log.write_text(log.read_text().replace("0,0.1,0.2,30", "0,0.3,0.2,nan"))
    data_js = (report_page.write_report(results, ["gdl"]).parent / "data.js").read_text()
    train, _, hd95 = json.loads(data_js.removeprefix("window.report = ").removesuffix(";\n"))["curves"]
    (series,) = train["series"]
    assert series["mean"] == pytest.approx([0.2, 0.5, 0.6]) and series["sd"] == pytest.approx([0.02**0.5, 0, 0])
    assert hd95["series"][0]["mean"][0] == 30 and hd95["series"][0]["sd"][0] is None


def decode(classes, width, height):
    mask = np.zeros(width * height, dtype=bool)
    edges = np.cumsum(classes[0]) if classes else []
    for start, stop in zip(edges[::2], edges[1::2], strict=False):
        mask[start:stop] = True
    return mask.reshape(height, width)


def test_pictures_and_masks_show_x_to_the_right_and_y_up(page, data):
    listed = json.loads((page.parent / "data.js").read_text().removeprefix("window.report = ").removesuffix(";\n"))
    for index, case_id in enumerate(cases_of(data)):
        label, one = reference(data, case_id), listed["cases"][index]
        text = (page.parent / "slices" / f"{index}.js").read_text()
        masks = json.loads(text.removeprefix(f"window.report.receive({index}, ").removesuffix(");\n"))
        assert one["areas"] == [np.count_nonzero(label[..., z]) for z in range(3)]
        for z in range(3):
            mask = decode(masks[0][z], *one["size"])
            assert mask.sum() == label[..., z].sum()
            if not mask.any():
                continue
            grey = np.asarray(Image.open(page.parent / "slices" / f"{index}-1-{z}.png"))
            # The lesion of the fixture is brighter than all else by its own range, whole pixels of it by half.
            assert grey.shape == mask.shape and grey[mask].mean() > 1.5 * grey[~mask].mean()
            corner = np.argwhere(mask).min(axis=0), np.argwhere(decode(masks[2][z], *one["size"])).min(axis=0)
            assert tuple(corner[1] - corner[0]) == (-SHIFT[1], SHIFT[0])       # rows count downwards


def test_the_command_says_what_it_has_written(results, capsys):
    evaluate.main(["report", str(results)])
    files = [path for path in (results / "report").rglob("*") if path.is_file()]
    assert sum(path.parent.name == "slices" for path in files) >= 2 + 6     # two cases of three slices each
    size = sum(len(path.read_bytes()) for path in files) / 2**20
    assert capsys.readouterr().out == f"{results / 'report' / 'index.html'}: {len(files)} files, {size:.1f} MiB\n"


def test_a_report_replaces_the_older_one_whole(results, monkeypatch):
    folder = report_page.write_report(results, ["gdl", "shifted"]).parent
    (folder / "slices" / "99.js").touch()
    report_page.write_report(results, ["gdl"])
    assert not (folder / "slices" / "99.js").exists() and "shifted" not in (folder / "index.html").read_text()
    before = (folder / "index.html").read_text()
    monkeypatch.setattr(report_page, "write_case", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report_page.write_report(results, ["shifted"])
    assert (folder / "index.html").read_text() == before and not list(results.glob(".report.*"))


def test_a_report_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    folder = tmp_path / "report"
    for text in ("old", "older"):
        with report_page.replaced_folder(folder) as new:
            (new / "index.html").write_text(f"{text} of boundary-loss")
    rename = Path.rename

    def refused(path, target):
        if path.name == ".report.partial":
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError, match="^no$"), report_page.replaced_folder(folder) as new:
        (new / "index.html").write_text("new")
    assert (folder / "index.html").read_text() == "older of boundary-loss" and list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("name", [".report.partial", ".report.old"])
def test_folders_beside_the_report_that_are_nobodys_report_stay(tmp_path, name):
    beside = tmp_path / name
    (tmp_path / ".report.partial").mkdir()                            # an empty one is what a kill leaves
    with report_page.replaced_folder(tmp_path / "report") as new:
        (new / "index.html").write_text("new of boundary-loss")
    beside.mkdir()
    (beside / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=f"{name}: expected nothing or an older report"):
        with report_page.replaced_folder(tmp_path / "report"):
            pass
    assert (beside / "thesis.txt").read_text() == "mine"
    assert (tmp_path / "report" / "index.html").read_text() == "new of boundary-loss"


def test_the_only_copy_of_a_report_is_not_removed_before_the_new_one_is_whole(tmp_path):
    """As a kill leaves it between the two renames."""
    for name in (".report.old", ".report.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").write_text(f"{name} of boundary-loss")
    with pytest.raises(ZeroDivisionError), report_page.replaced_folder(tmp_path / "report") as new:
        (new / "index.html").write_text(f"{1 / 0}")
    assert (tmp_path / "report" / "index.html").read_text() == ".report.old of boundary-loss"
    assert list(tmp_path.iterdir()) == [tmp_path / "report"]


def config_of(results):
    """Of the run that is asked where the data are."""
    return results / "gdl" / "seed1" / "config.json"


def change(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def other_seed(run, name):
    """The run, as if it had had another seed."""
    change(run / "config.json", '"seed": 1', f'"seed": {name[4:]}')
    run.rename(run.with_name(name))


def predictions(results):
    return results.glob("shifted/seed1/predictions/*")


def save_prediction(results, volume):
    for path in predictions(results):
        nib.save(nib.Nifti1Image(volume, np.eye(4)), path)


@pytest.mark.parametrize(
    ("damage", "arguments", "named"),
    [
        (lambda r: [path.unlink() for path in predictions(r)], (), "expected a prediction, found nothing"),
        (lambda r: [path.write_bytes(b"no") for path in predictions(r)], (), "expected a prediction, found"),
        (lambda r: save_prediction(r, np.zeros((32, 32, 2), np.uint8)), (), r"\(32, 32, 3\), found \(32, 32, 2\)"),
        (lambda r: save_prediction(r, np.full((32, 32, 3), 7, np.uint8)), (), "expected classes 0 to 1, found 7"),
        (lambda r: (r / "gdl" / "seed1" / "log.csv").unlink(), (), "seed1/log.csv: expected a readable CSV"),
        (lambda r: change(r / "gdl" / "seed0" / "log.csv", "0.5", "high"), (), "seed0/log.csv: expected numbers"),
        (lambda r: (r / "gdl" / "seed0" / "env.json").unlink(), (), "seed0/env.json: expected a readable JSON"),
        (lambda r: change(config_of(r), '"data": "', '"data": "/no'), (), "expected a sliced data set, found nothing"),
        (lambda r: change(config_of(r), '"data": ', '"data": 1, "x": '), (), "of a data set in data, found 1"),
        (lambda r: None, ("--seed", "0"), "shifted: expected an evaluated run of seed 0, found none"),
        (lambda r: other_seed(r / "gdl" / "seed1", "seed7"), (), "a run, found gdl: 0, 7; shifted: 1"),
        (lambda r: (r / "report" / "index.html").unlink(), (), "report: expected nothing or an older report"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(results, damage, arguments, named, monkeypatch, capsys):
    damage(results)
    before = set(results.rglob("*"))
    code = call(evaluate, "report", results, "--rows", "gdl", "shifted", *arguments, monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1
    with pytest.raises(InputError, match=named):
        raise InputError(error)
    assert set(results.rglob("*")) == before


def test_other_validation_cases_than_the_datas_are_named(results, data):
    for path in results.glob("*/*/metrics.csv"):
        change(path, cases_of(data)[0], "case_77")
    with pytest.raises(InputError, match="expected the validation cases of .*, found case_"):
        report_page.write_report(results, ["gdl"])


def test_nothing_breaks_out_of_a_script():
    value = {HOSTILE: ["<!--", "\u2028", "\u2029", 'quote " and \\', "é", None, 0.5]}
    text = script_json(value)
    assert json.loads(text) == value and not set("<>&\u2028\u2029") & set(text)
    with pytest.raises(ValueError, match="JSON compliant"):
        script_json(float("nan"))


# In a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    if not find_browser():
        pytest.skip("no Chromium (chromium, chromium-browser or google-chrome) is installed")
    try:
        browser = Browser()
    except (OSError, TimeoutError) as error:
        pytest.skip(f"{find_browser()} does not start: {error}")    # a stub that stands for a snap, for instance
    yield browser
    browser.close()


READY = "document.getElementById('stage').ariaBusy === 'false'"
PLACE = "document.getElementById('place').textContent"
PICTURE = "document.querySelector('#stage image').getAttribute('href')"


@pytest.fixture
def opened(browser, page):
    browser.open(page)
    browser.until(READY)
    yield browser
    assert browser.problems == []


def column(browser, table, place):
    script = f"[...document.querySelectorAll('#{table} tbody tr')].map(line => line.cells[{place}].textContent)"
    return browser.run(script)


def test_a_click_on_a_header_sorts_by_number_empty_cells_last(opened):
    header = "document.querySelectorAll('#case-table thead th')[5]"
    assert opened.run(f"{header}.textContent") == "HD95 (mm)"
    opened.click(f"{header}.querySelector('button')")
    ascending = ["0.00", "2.00", "9.50", "10.25", "30.00", "100.00"]
    assert column(opened, "case-table", 5) == ascending and opened.run(f"{header}.ariaSort") == "ascending"
    opened.click(f"{header}.querySelector('button')")
    assert column(opened, "case-table", 5) == ascending[::-1] and opened.run(f"{header}.ariaSort") == "descending"
    # By the keyboard, on a column with empty cells: they are last both ways.
    opened.run("document.querySelectorAll('#case-table thead button')[9].focus()")
    for expected in (["0.000", "0.250", "0.500", "1.000", "", ""], ["1.000", "0.500", "0.250", "0.000", "", ""]):
        opened.press("Enter")
        assert column(opened, "case-table", 9) == expected
    assert opened.run("document.querySelectorAll('#case-table th[aria-sort]').length") == 1


def test_cases_are_filtered_by_row_and_case(opened):
    shown = "[...document.querySelectorAll('#case-table tbody tr')].filter(line => line.offsetHeight).length"
    assert opened.run(shown) == 6
    opened.set("filter-row", 0)
    assert opened.run(shown) == 4
    opened.set("filter-case", 1)
    assert opened.run(shown) == 2
    assert opened.run("document.getElementById('filter-count').textContent") == "2 of 6 lines"


def test_slider_and_arrow_keys_leaf_through_slices_and_cases(opened, data):
    one, two = cases_of(data)
    assert opened.run(PLACE).startswith(f"{one}: slice 1 (2 of 3), lesion of ") and "-1.png" in opened.run(PICTURE)
    opened.run("document.getElementById('slice').focus()")
    opened.press("ArrowRight")
    assert opened.run(PLACE).startswith(f"{one}: slice 2 ") and opened.run(PICTURE).endswith("-2.png")
    opened.press("ArrowRight")
    assert opened.run(PLACE).startswith(f"{one}: slice 2 ")
    opened.set("slice", 0)
    assert opened.run(PLACE) == f"{one}: slice 0 (1 of 3), no lesion" and opened.run(PICTURE).endswith("-0.png")
    opened.run("document.getElementById('stage').focus()")
    opened.press("ArrowDown")
    opened.until(f"{PLACE}.startsWith({json.dumps(two)}) && {READY}")
    assert opened.run(PICTURE).startswith("slices/1-")
    opened.press("ArrowUp")
    opened.until(f"{PLACE}.startsWith({json.dumps(one)}) && {READY}")
    # From the table of cases to the viewer.
    opened.click(f"[...document.querySelectorAll('button[data-case]')].find(e => e.textContent === {json.dumps(two)})")
    opened.until(f"{PLACE}.startsWith({json.dumps(two)}) && {READY}")
    assert opened.run("[...document.querySelectorAll('#stage image')].every(e => e.getBBox().width > 0)")


def test_contours_and_errors_are_shown_and_hidden(opened):
    panels = "[...document.querySelectorAll('#stage .panel')]"
    lines = f"{panels}.map(panel => panel.querySelectorAll('.reference, .prediction').length)"
    errors = lines.replace(".reference, .prediction", ".extra, .missing")
    # The reference alone, then reference and prediction a row.
    assert opened.run(lines) == [1, 2, 2] and opened.run(errors) == [0, 0, 0]
    opened.run("document.getElementById('stage').focus()")
    opened.press("c")
    assert opened.run(lines) == [0, 0, 0] and not opened.run("document.getElementById('contours').checked")
    opened.click("document.getElementById('contours')")
    assert opened.run(lines) == [1, 2, 2]
    opened.press("e")
    assert opened.run(errors) == [0, 0, 2]      # the row gdl is the reference itself
    box = "(e => { const b = e.getBBox(); return [b.x, b.y, b.width, b.height] })"
    first, moved = opened.run(f"[...{panels}[2].querySelectorAll('.reference, .prediction')].map({box})")
    assert moved == [first[0] + SHIFT[0], first[1] - SHIFT[1], *first[2:]]
    score = opened.run("[...document.querySelectorAll('#stage .panel p')].at(-1).textContent")
    assert score == "DSC 0.500, HD95 2.0 mm (missed)"


def test_zoom_keeps_the_shape_of_the_pixels(opened):
    scale = """(() => {
        const svg = document.querySelector('#stage svg'), box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
        return [box.width / view.width, box.height / view.height];
    })()"""
    wide = opened.run(scale)
    opened.click("document.getElementById('zoom')")
    near = opened.run(scale)
    # Slices of 32 x 32 from 16 x 20 voxels of 0.9 x 0.8 mm: pixels of 0.45 x 0.5 mm.
    for right, down in (wide, near):
        assert right / down == pytest.approx(0.45 / 0.5, rel=0.01)
    assert near[0] > 1.5 * wide[0]


def test_the_legend_shows_and_hides_a_row(opened):
    visible = "[...document.querySelectorAll('.chart .line')].filter(e => e.style.display !== 'none').length"
    assert opened.run(visible) == 6
    opened.click("document.querySelector('#legend button')")
    assert opened.run(visible) == 3
    assert opened.run("document.querySelector('#legend button').ariaPressed") == "false"


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_does_not_scroll_sideways(opened, width):
    opened.resize(width, 900)
    opened.run("document.querySelectorAll('details').forEach(e => { e.open = true })")
    assert opened.run("document.documentElement.scrollWidth") == width
    assert opened.run("document.querySelector('#case-table').offsetWidth > 400")


def test_several_classes_have_a_colour_and_a_line_of_numbers_each(browser, data, tmp_path):
    moved = shutil.copytree(data, tmp_path / "data")
    meta = json.loads((moved / "meta.json").read_text())
    del meta["checksums"], meta["seal"]
    (moved / "meta.json").write_text(json.dumps({**meta, "class_names": ["background", "core", "rim"]}))
    for path in (moved / "val" / "label").iterdir():
        label = np.load(path)
        label[np.flatnonzero(label.any(axis=1))[:2]] *= 2                    # the lesion's first two columns are rim
        np.save(path, label)
    metrics = [(name, 0.5, 1.0, 2.0, 36, 36, 1) for name in cases_of(moved)]
    run = tmp_path / "isles" / "gdl" / "seed0"
    write_run(run, moved, metrics, shift=(1, 0))
    header, *lines = (run / "metrics.csv").read_text().splitlines()
    lines = [line.replace(",lesion,", f",{name},") for line in lines for name in ("core", "rim")]
    (run / "metrics.csv").write_text("\n".join([header, *lines, ""]))
    browser.open(report_page.write_report(tmp_path / "isles", ["gdl"]))
    browser.until(READY)
    panel = "document.querySelectorAll('#stage .panel')[1]"
    for kind in ("reference", "prediction"):
        look = "e => [e.getAttribute('stroke'), e.getBBox().x]"
        core, rim = browser.run(f"[...{panel}.querySelectorAll('.{kind}')].map({look})")
        assert core[0] != rim[0] and core[1] == rim[1] + 2
    assert browser.run(f"{panel}.querySelector('p').innerText").splitlines() == [
        "core: DSC 0.500, HD95 1.0 mm", "rim: DSC 0.500, HD95 1.0 mm",
    ]
    assert browser.run("document.getElementById('key').textContent").startswith("corerimdashed: reference")
    assert len(column(browser, "summary-table", 1)) == 2 and browser.problems == []


def test_hostile_names_and_values_are_text(browser, data, tmp_path):
    moved = shutil.copytree(data, tmp_path / "data")
    case_id = cases_of(moved)[0]
    hostile_case = HOSTILE_NAME + "\u2028"
    for path in moved.rglob(f"{case_id}_*.npy"):
        path.rename(path.with_name(path.name.replace(case_id, hostile_case)))
    text = (moved / "cases.csv").read_text()
    quoted = '"' + hostile_case.replace('"', '""') + '"'
    (moved / "cases.csv").write_text(text.replace(f"\n{case_id},", f"\n{quoted},"))
    meta = json.loads((moved / "meta.json").read_text())
    del meta["checksums"], meta["seal"]
    meta |= {"modalities": [HOSTILE, *meta["modalities"][1:]], "class_names": ["background", HOSTILE]}
    (moved / "meta.json").write_text(json.dumps(meta))
    metrics = [(name, 0.5, 1.0, 2.0, 36, 36, 1) for name in cases_of(moved)]
    root = tmp_path / "isles"
    for row, value in ((HOSTILE_NAME, HOSTILE), ("gdl", "plain")):
        write_run(root / row / "seed0", moved, metrics, dataset=HOSTILE, lr_rule=value)
    browser.open(report_page.write_report(root, [HOSTILE_NAME, "gdl"]))
    browser.until(f"{PLACE}.startsWith('\"')")
    browser.until(READY)
    browser.run("document.querySelectorAll('details').forEach(e => { e.open = true })")
    assert browser.problems == [] and browser.run("document.querySelectorAll('img, [onerror]').length") == 0
    shown = browser.run("document.body.textContent")
    assert shown.count(HOSTILE) > 5 and shown.count(HOSTILE_NAME) > 5
    assert browser.run("document.title") == f"Report: {HOSTILE}"
    assert browser.run("document.querySelector('#stage .panel:nth-child(2) h3').textContent") == HOSTILE_NAME
