"""The papers' tables, as data: what they print for a row of a data set, and what they trained it with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from utils import read_json, read_rows

FOLDER = Path(__file__).resolve().parent
# How a setting in which a run is not the paper's is printed; the others by their names.
WORDS = {"epochs": "{} epochs", "batch_size": "batch {}", "size": "size {0} x {0}"}

# Rows that another engine trains are named like those of the project behind it.
ENGINE_PREFIX = "nnunet-"


@dataclass(frozen=True)
class PublishedResult:
    """A row of a paper's table: (mean, sd) by metric, sd nan where there is none, both nan where the paper says NA."""

    source: str
    values: Mapping[str, tuple[float, float]]
    sd_over: str                        # "runs" or "cases"
    settings: Mapping[str, object]      # what the paper trained with, as far as it says so
    validation_cases: int
    remark: str                         # to print wherever the result is
    pooled: bool                        # whether its DSC is pooled over batches and what it stands beside is a mean

    def differs(self, settings: Mapping[str, object], validation_cases: int) -> tuple[str, ...]:
        """In what a run is not the paper's, in print; a setting that one of them does not tell is not compared."""
        found = ["a mean over images, not pooled"] if self.pooled else []
        for name, theirs in self.settings.items():
            if name == "alpha_step" and not has_steps(settings):
                continue
            ours = settings.get(name)
            ours = theirs if ours is None else ours
            if theirs is True and not settings.get(name):       # some value, whichever
                found.append(f"no {name}")
            elif theirs is not True and ours != theirs:
                found.append(WORDS.get(name, f"{name} {{}}").format(ours))
        if validation_cases != self.validation_cases:
            found.append(f"other data ({validation_cases} cases)")
        return tuple(text.replace("_", " ") for text in found)


def has_steps(settings: Mapping[str, object]) -> bool:
    """Whether a run has two losses whose weights change by a step per epoch."""
    weighs = "none" not in (settings.get("region"), settings.get("contour"))
    return weighs and settings.get("alpha") not in ("constant", "equal")


def published_result(dataset: str, row: str, class_name: str, level: str = "volume") -> PublishedResult | None:
    """What the first paper that has this row prints for it, means over volumes or over slices (``level``)."""
    row = row.removeprefix(ENGINE_PREFIX)
    for file, paper in read_json(FOLDER / "papers.json").items():
        if level not in paper["levels"] or dataset not in paper["data"]:
            continue
        for line in read_rows(FOLDER / file, ("row", "dataset", "source")):
            if (line["dataset"], line["row"], line.get("class", class_name)) == (dataset, row, class_name):
                return result_of(line, paper, paper["data"][dataset], level)
    return None


def result_of(line: Mapping[str, str], paper: Mapping, data: Mapping, level: str) -> PublishedResult:
    metrics = [name.removesuffix("_sd") for name in line if name.endswith("_sd")]
    metrics = metrics or [name for name in line if name not in ("row", "dataset", "class", "source")]
    return PublishedResult(
        source=line["source"],
        values={name: (parse_number(line[name]), parse_number(line.get(f"{name}_sd", ""))) for name in metrics},
        sd_over=paper["sd_over"],
        settings={**paper["settings"], **{name: value for name, value in data.items() if name != "validation_cases"}},
        validation_cases=data["validation_cases"],
        remark=paper.get("remark", ""),
        pooled=paper.get("level", level) != level,
    )


def parse_number(text: str) -> float:
    return float(text) if text not in ("", "NA") else float("nan")


def published_rows() -> frozenset[str]:
    """The names of all rows of the papers' tables."""
    return frozenset(
        line["row"] for file in read_json(FOLDER / "papers.json") for line in read_rows(FOLDER / file, ("row",))
    )


def published_empty_share(dataset: str) -> float | None:
    """The share of empty validation slices in MIDL 2019, where its Table 1 has the data set.

    Its boundary loss alone has collapsed, so that the DSC over slices is that share (docs/FIDELITY.md).
    """
    result = published_result(dataset, "boundary", "", level="slice")
    return None if result is None else result.values["dsc"][0]
