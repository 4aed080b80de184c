"""Hold a sliced data set against the options that it would be made with now."""

from pathlib import Path

from sliced_data.meta import Meta, read_meta
from slicing.options import FIXED_RULES, Options
from slicing.splits import split_by_file
from utils import InputError

FLAGS = {
    "dataset": "the data set", "layout": "--layout", "size": "--size", "normalise": "--normalise", "fit": "--fit",
    "spacing": "--spacing", "max_share": "--max-share", "classes": "--classes", "all_slices": "--all-slices",
    "distance_map": "--distance-map", "resize_labels": "--resize-labels",
}


def check_sliced(dest: Path, options: Options) -> None:
    """``InputError`` names the first option that ``dest`` was made with another value of; nothing is written."""
    meta = read_meta(dest)
    for key, wanted in options.facts().items():
        if meta.facts.get(key) != wanted:
            refuse(dest, FLAGS[key], found=meta.facts.get(key), wanted=wanted)
    check_split(meta, options)
    if meta.source is not None and Path(meta.source).resolve() != options.source.resolve():
        refuse(dest, "--source", found=meta.source, wanted=options.source)


def check_split(meta: Meta, options: Options) -> None:
    rule, wanted = meta.facts.get("split"), options.split
    if not isinstance(rule, dict):
        raise InputError(f"{meta.root / 'meta.json'}: expected the rule of the split, found {rule}")
    if wanted.file is not None:
        known = {case.case_id: case.split for case in meta.cases}
        # A file that names cases which were not sliced made another data set.
        if split_by_file_or_none(set(known), wanted.file) != known:
            refuse(meta.root, "--split", found=describe(rule), wanted=wanted.file)
        return
    if rule.get("rule") != wanted.rule:
        flag = "--split" if rule.get("rule") == "file" else "--group"
        refuse(meta.root, flag, found=describe(rule), wanted=wanted.rule)
    if wanted.rule in FIXED_RULES:
        return
    if rule.get("seed") != wanted.seed:
        refuse(meta.root, "--split-seed", found=rule.get("seed"), wanted=wanted.seed)
    if wanted.val is None and "val_share" not in rule:
        refuse(meta.root, "--val", found=rule.get("val"), wanted="a fifth of the cases")
    if wanted.val is not None and rule.get("val") != wanted.val:
        refuse(meta.root, "--val", found=rule.get("val"), wanted=wanted.val)


def split_by_file_or_none(known: set[str], path: Path) -> dict[str, str] | None:
    try:
        return split_by_file(known, path)
    except InputError:
        if not path.is_file():
            raise
        return None


def describe(rule: dict) -> str | None:
    return rule.get("file") if rule.get("rule") == "file" else rule.get("rule")


def refuse(dest: Path, flag: str, *, found: object, wanted: object) -> None:
    def text(value: object) -> str:
        return "none" if value is None else " ".join(value) if isinstance(value, list) else str(value)

    raise InputError(
        f"{dest}: expected {flag} {text(wanted)}, found it made with {text(found)}; DATA=<folder> keeps both, or "
        "remove it"
    )
