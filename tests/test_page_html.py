"""The HTML of the report page: what a cell shows, by what it sorts, and how values are written."""

import csv
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from result_folders import PAPER, case, change_settings, write_run, write_twenty

from reporting import page, page_html, runs, tables
from reporting.comparison import Protocol, compare_rows
from reporting.levels import VOLUME
from reporting.page_html import SortedCell, flatten, long_text, pairs, printed_setting, table_cell


def cells_of(html):
    """Of each line of a table: the attributes and the text of its cells."""
    return [
        [(tag, attributes.strip(), re.sub(r"<[^>]+>", "", inner)) for tag, attributes, inner in
         re.findall(r"<(t[dh])([^>]*)>(.*?)</t[dh]>", line)]
        for line in re.findall(r"<tr[^>]*>.*?</tr>", html, re.DOTALL)
    ]


def lines_of(html):
    """Text and sort value of the cells of each line, by the title of its column."""
    header, *lines = cells_of(html)
    titles = [text for *_, text in header]
    values = [
        {title: (text, re.search(r'data-value="([^"]*)"', attributes)) for title, (_, attributes, text) in
         zip(titles, line, strict=True)} for line in lines
    ]
    return [{title: (text, found and found[1]) for title, (text, found) in line.items()} for line in values]


@pytest.mark.parametrize(
    ("cell", "numeric", "heads_line", "expected"),
    [
        (SortedCell("a<b"), False, False, "<td>a&lt;b</td>"),
        (SortedCell("0.5", 0.512), True, False, '<td data-value="0.512">0.5</td>'),
        (SortedCell("0.5", 0.512), False, False, "<td>0.5</td>"),
        (SortedCell("0.5", 0.0), True, False, '<td data-value="0.0">0.5</td>'),
        (SortedCell("", None), True, False, "<td></td>"),
        (SortedCell("7", 7.0, is_best=True), True, False, '<td data-value="7.0"><strong>7</strong></td>'),
        (SortedCell("row"), False, True, '<th scope="row">row</th>'),
        (SortedCell("c", case=0), False, False,
         '<td><button type="button" class="link" data-case="0">c</button></td>'),
    ],
)
def test_a_cell(cell, numeric, heads_line, expected):
    assert table_cell(cell, numeric=numeric, heads_line=heads_line) == expected


def test_only_the_first_cell_of_a_line_heads_it_and_numbers_are_marked_in_the_header():
    html = page_html.sortable_table("t", 'a "caption"', [("row", False), ("n", True)], [
        ({"of-case": 3}, [SortedCell("a"), SortedCell("2", 2)]), ({}, [SortedCell("b"), SortedCell("1", 1)]),
    ])
    header, *lines = cells_of(html)
    assert [(tag, attributes) for tag, attributes, _ in header] == [
        ("th", 'scope="col"'), ("th", 'scope="col" data-type=number')
    ]
    assert [[tag for tag, *_ in line] for line in lines] == [["th", "td"]] * 2
    assert '<tr data-of-case="3"><th' in html and "<tr><th scope=\"row\">b" in html
    assert html.count("a &quot;caption&quot;") == 2


@pytest.fixture
def found(tmp_path):
    """Two rows on six cases, one of two seeds, all with a column that the catalogue does not have."""
    for row, seed, gain in (("gdl", 0, 0.0), ("gdl", 1, 0.2), ("a", 0, 0.3)):
        cases = [case(f"c{i}", 0.1 * i / 2 + gain, 10.0 - i, n_pred=9 if i else 0) for i in range(6)]
        folder = tmp_path / row / f"seed{seed}"
        write_run(folder, cases, {"seed": seed, "width": 8, "lr": 0.001 if row == "gdl" else 0.01})
        header, *lines = (folder / "metrics.csv").read_text().splitlines()
        lines = [f"{header},own_count,space,class_index", *(f"{line},{i},sliced,1" for i, line in enumerate(lines))]
        (folder / "metrics.csv").write_text("\n".join([*lines, ""]))
    return {row: runs.find_runs(tmp_path, row) for row in ("gdl", "a")}


def test_the_table_of_cases_sorts_by_the_numbers_of_the_files(found):
    html = page_html.case_table(found, [f"c{i}" for i in range(6)])
    lines = lines_of(html)
    assert len(lines) == 18 and "class index" not in lines[0]     # which is not shown
    expected = [
        (run, line) for of_row in found.values() for run in of_row
        for line in csv.DictReader((run.folder / "metrics.csv").open())
    ]
    for line, (run, row) in zip(lines, expected, strict=True):
        assert (line["row"], line["seed"]) == ((run.row, None), (str(run.seed), str(run.seed)))
        assert line["case"][0] == row["case_id"] and line["class"] == ("lesion", None)
        assert line["DSC"] == (f"{float(row['dsc']):.3f}", repr(float(row["dsc"])))
        assert line["HD95 (mm)"] == (f"{float(row['hd95_mm']):.2f}", repr(float(row["hd95_mm"])))
        assert line["reference (voxels)"] == ("9", "9.0")
        assert line["own count"] == (f"{float(row['own_count'])}", repr(float(row["own_count"])))
        assert line["space"] == ("sliced", None)
    assert [int(number) for number in re.findall(r'data-case="(\d)"', html)] == [*range(6)] * 3
    assert re.findall(r'<tr data-row="(\d)"', html) == ["0"] * 12 + ["1"] * 6


def test_the_table_of_tests_is_that_of_the_comparison(found):
    compared = compare_rows(found, VOLUME.metrics, Protocol("gdl"))
    lines = lines_of(page_html.tests_table(compared, "mm"))
    assert [line["metric"][0] for line in lines] == ["DSC", "HD95 (mm)"]
    for line, result in zip(lines, compared, strict=True):
        assert line["row"] == ("a", None) and line["difference"][1] == repr(result.difference)
        assert line["95 % interval"][1] == repr(result.interval[0])
        for title, p in (("p", result.p), ("p (Holm)", result.p_holm), ("p better", result.p_better),
                         ("p better (Holm)", result.p_better_holm)):
            assert line[title] == (f"{p:.3f}", repr(p))
    # Six cases of which all gain 0.2: 2 and 1 of 64.
    assert [lines[0][title][0] for title in ("p", "p better", "difference")] == ["0.031", "0.016", "+0.200"]
    html = page_html.tests_table(compared, "px")
    assert html.count("<strong>") == 2 and "HD95 (px)" in html


def test_the_summary_is_that_of_the_tables(found):
    summaries = tables.summarise_rows(found, VOLUME)
    html = page_html.summary_table(summaries, "mm")
    gdl, best = lines_of(html)
    assert gdl["DSC"] == ("0.225 (0.141)", repr(summaries[0].metrics["dsc"].mean))
    assert best["DSC"] == ("0.425", repr(summaries[1].metrics["dsc"].mean)) and "<strong>0.425</strong>" in html
    assert gdl["missed"] == ("2 of 12", "2") and best["missed"] == ("1 of 6", "1")
    assert (gdl["seeds"], best["seeds"]) == (("0, 1", "2"), ("0", "1")) and gdl["false alarms"] == ("0 of 12", "0")
    assert gdl["published DSC"] == ("0.511 (0.016)", "0.511") and best["published DSC"] == ("", None)


def test_the_difference_to_the_published_figure_is_beside_it(tmp_path):
    """Of a run as the paper's, ours minus the published 0.511 and 5.32; a row that the paper does not have has none."""
    for row in ("gdl", "mine"):
        write_twenty(tmp_path / row / "seed0", {**PAPER, "seed": 0})
    every = {row: runs.find_runs(tmp_path, row) for row in ("gdl", "mine")}
    summaries = tables.summarise_rows(every, VOLUME)
    gdl, mine = lines_of(page_html.summary_table(summaries, "mm"))
    titles = list(gdl)
    assert titles[titles.index("DSC") :][:3] == ["DSC", "published DSC", "difference DSC"]
    assert gdl["difference DSC"] == ("-0.011", repr(summaries[0].difference("dsc")))
    assert gdl["difference HD95 (mm)"][0] == "+0.68" and float(gdl["difference HD95 (mm)"][1]) == pytest.approx(0.68)
    assert mine["difference DSC"] == ("", None) and "difference HD (mm)" not in titles
    assert "differs from the paper in" not in titles


def test_below_a_picture_is_what_became_of_the_case(tmp_path):
    cases = [case("hit", 0.5, 4.0), case("miss", 0.0, 30.0, n_pred=0), case("alarm", 0.0, 30.0, n_ref=0),
             case("nothing", 1.0, 0.0, n_ref=0, n_pred=0), case("one voxel", 0.5, 1.0, n_ref=1, n_pred=1),
             case("one missed", 0.0, 9.0, n_ref=1, n_pred=0), case("one found", 0.0, 9.0, n_ref=0, n_pred=1)]
    write_run(tmp_path / "a" / "seed0", cases, {"seed": 0})
    (found,) = runs.find_runs(tmp_path, "a")
    assert [page.scores(found, SimpleNamespace(case_id=name)) for name, *_ in cases] == [
        ["DSC 0.500, HD95 4.0 mm"], ["DSC 0.000, HD95 30.0 mm (missed)"],
        ["DSC 0.000, HD95 30.0 mm (false alarm)"], ["DSC 1.000, HD95 0.0 mm (both empty)"], ["DSC 0.500, HD95 1.0 mm"],
        ["DSC 0.000, HD95 9.0 mm (missed)"], ["DSC 0.000, HD95 9.0 mm (false alarm)"],
    ]


def test_the_window_of_a_case_holds_every_mask_of_every_slice():
    image, used = np.zeros((3, 2, 40, 40), np.float32), np.zeros((3, 40, 40), bool)
    image[:, :, 15:25, 15:25] = 1
    used[1, 3, 30] = True
    rows, columns = page.case_window(image, used)
    assert rows.start <= 3 and rows.stop >= 25 and columns.start <= 15 and columns.stop > 30
    smaller = page.case_window(image, used & False)
    assert smaller[0].start > 3 and smaller[1].stop < 31


def test_the_channel_that_is_shown_first_is_that_of_the_largest_slice(tmp_path):
    """Where the lesion is large the second channel shows it, where it is small the first."""
    mask = np.zeros((3, 16, 16), np.uint8)
    mask[0, 2:4, 2:4], mask[1, 2:12, 2:9], mask[2, 5:8, 5:8] = 1, 1, 1
    image = np.random.default_rng(0).random((3, 2, 16, 16), dtype=np.float32)
    image[[0, 2], 0] += 5 * mask[[0, 2]]
    image[1, 1] += 5 * mask[1]
    written = page.write_case(tmp_path, 7, image, [mask, mask[::-1]], classes=2)
    assert written["channel"] == 1 and written["areas"] == [4, 70, 9]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "7-0-0.png", "7-0-1.png", "7-0-2.png", "7-1-0.png", "7-1-1.png", "7-1-2.png", "7.js"
    ]


@pytest.mark.parametrize(("low", "high"), [(0, 200), (-3, 1), (50, 51)])
def test_grey_spans_the_volume_but_for_its_brightest_and_darkest(low, high):
    values = np.linspace(low, high, 10001, dtype=np.float32)
    grey = page.to_grey(values.reshape(1, 1, -1)).ravel()
    assert (grey[0], grey[100], grey[101 + 50]) == (0, 0, 1) and grey[9950:].tolist() == [255] * 51
    assert grey[5025] in (127, 128) and (np.diff(grey.astype(int)) >= 0).all() and grey.dtype == np.uint8
    assert page.to_grey(np.full((2, 3, 4), 7.0)).max() == 0


def test_distances_of_a_collapsed_row_come_last(tmp_path):
    for row, n_pred in (("a", 0), ("b", 9)):
        write_run(tmp_path / row / "seed0", [case("1", 0.0, 30.0, n_pred=n_pred)], {"seed": 0})
    every = {row: runs.find_runs(tmp_path, row) for row in "ab"}
    collapsed, other = lines_of(page_html.summary_table(tables.summarise_rows(every, VOLUME), "mm"))
    assert collapsed["HD95 (mm)"] == ("collapsed (1 missed)", None) and other["HD95 (mm)"] == ("30.00", "30.0")
    assert collapsed["DSC"] == ("0.000", "0.0")


def test_settings_in_which_rows_differ(found):
    assert lines_of(page_html.settings_table(found)) == [
        {"row": ("gdl", None), "lr": ("0.001", None)}, {"row": ("a", None), "lr": ("0.01", None)}
    ]
    assert "data-type=number" not in page_html.settings_table(found)        # they sort as text
    one = {"gdl": found["gdl"]}
    assert page_html.settings_table(one) == "<p>One row: it has the same settings in all their runs.</p>"
    change_settings(found["a"][0].folder, lr=0.001)
    equal = {row: runs.find_runs(found["a"][0].folder.parents[1], row) for row in ("gdl", "a")}
    assert page_html.settings_table(equal) == "<p>All rows have the same settings in all their runs.</p>"


def test_names_and_values_nested_and_marked():
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": {}}) == [("a.b", 1), ("a.c.d", [2]), ("e", {})]
    values = (None, "x", 0.5, True, ["ä", 1])
    assert [printed_setting(value) for value in values] == ["–", "x", "0.5", "true", '["ä", 1]']
    html = pairs("T", {"lr": 0.1, "width": 8}, ["width"])
    assert "<td>0.1</td>" in html and "<td><mark>8</mark></td>" in html and "<caption>T</caption>" in html


def test_a_run_shows_settings_provenance_and_changes_each_once(found):
    environment = {"command": "train.py", "git_diff": "+ a\n- b"}
    html = page_html.run_details("gdl", found["gdl"][1], environment, ["lr"])
    assert "gdl, seed 1" in html and "<td><mark>0.001</mark></td>" in html and "<td>train.py</td>" in html
    assert html.count("git diff") == 1 and "git_diff" not in html and "<pre>+ a\n- b</pre>" in html
    names = re.findall(r'<th scope="row">(\w+)</th>', html)
    settings = names[: names.index("command")]
    assert settings == sorted(found["gdl"][1].settings) and len(settings) > 30


@pytest.mark.parametrize(("lines", "shown"), [(0, None), (1, 1), (199, 199), (200, 200), (201, 200), (250, 200)])
def test_long_text_is_cut_and_says_so(lines, shown):
    html = long_text("diff", "\n".join(f"line {n}" for n in range(lines)))
    if shown is None:
        assert html == "" and long_text("diff", None) == ""
        return
    assert f"diff: {lines} lines" in html and html.count("line ") == shown
    assert (f"... {lines - 200} more lines in env.json" in html) == (lines > 200)


def test_scripts_hold_the_values_that_were_given():
    value = {"a": ["</script><!--", "&", "\u2028", 0.1, None]}
    text = page_html.script_json(value)
    assert json.loads(text) == value and not set("<>&\u2028") & set(text)
    assert [page_html.finite(v) for v in (None, float("nan"), float("inf"), 2)] == [None, None, None, 2.0]
