"""Data sets whose layout one regular expression describes: a folder per case, a file per modality and one label."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from raw_data.dataset import Case, RawDataset
from raw_data.files import RawFile
from utils import InputError


@dataclass(frozen=True, kw_only=True)
class PatternDataset(RawDataset):
    """``pattern`` has the groups case, label (where the file is one) and modality, the key of ``modality_names``."""

    pattern: re.Pattern
    modality_names: Mapping[str, str]   # as file names spell a modality -> the modality
    ignored_folders: frozenset[str]
    patient_of: Callable[[Mapping[str, RawFile], str], str | None]

    def cases_in(self, files: Mapping[str, RawFile]) -> list[Case]:
        found, folders = self.match_files(files, self.ignored_folders)
        return [self.build_case(case_id, folders[case_id], found[case_id], files) for case_id in sorted(found)]

    def scans_in(self, files: Mapping[str, RawFile], folder: str) -> list[Case]:
        found, _ = self.match_files(files)
        if not found:
            parts = self.loose_parts(files, folder)
            found = {folder: parts} if parts else {}
        return [self.build_scan(case_id, found[case_id], files) for case_id in sorted(found)]

    def match_files(
        self, files: Iterable[str], ignored_folders: frozenset[str] = frozenset()
    ) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
        """case id -> {modality or "label": path}, and case id -> folder, of the paths that the pattern knows."""
        found: dict[str, dict[str, str]] = {}
        folders: dict[str, str] = {}
        for path in sorted(files):
            match = self.pattern.search(path)
            if not match or ignored_folders & {part.lower() for part in path.split("/")[:-1]}:
                continue
            case_id, folder = match["case"], path[: match.end("case")]
            if folders.setdefault(case_id, folder) != folder:
                raise InputError(f"{case_id}: expected one folder of this case, found {folders[case_id]} and {folder}")
            kind = "label" if match["label"] else self.modality_names[match["modality"]]
            case = found.setdefault(case_id, {})
            if kind in case:
                raise InputError(f"{case_id}: expected one file of {kind}, found {case[kind]} and {path}")
            case[kind] = path
        return found, folders

    def loose_parts(self, files: Iterable[str], folder: str) -> dict[str, str]:
        """Modality -> file, of a folder of one scan whose files the pattern does not know, by their names."""
        parts: dict[str, str] = {}
        for path in sorted(files):
            names = self.modalities_in(path.rsplit("/", 1)[-1])
            if path.count("/") != 2 or not path.endswith(self.endings) or len(names) != 1:
                continue
            if parts.setdefault(names[0], path) != path:
                raise InputError(f"{folder}: expected one file of {names[0]}, found {parts[names[0]]} and {path}")
        return parts

    def build_case(
        self, case_id: str, folder: str, paths: Mapping[str, str], files: Mapping[str, RawFile]
    ) -> Case:
        for kind in (*self.modalities, "label"):
            if kind not in paths:
                found = ", ".join(sorted(paths.values()))
                raise InputError(f"{case_id}: expected a file of {kind} ({self.layout}), found only {found}")
        return Case(
            case_id=case_id,
            patient_id=self.patient_of(files, paths["label"]),
            images=tuple(files[paths[modality]] for modality in self.modalities),
            labels=(files[paths["label"]],),
            source=folder,
        )

    def build_scan(self, case_id: str, parts: Mapping[str, str], files: Mapping[str, RawFile]) -> Case:
        for modality in self.modalities:
            if modality not in parts:
                found = ", ".join(sorted(kind for kind in parts if kind != "label")) or "none"
                raise InputError(f"{case_id}: expected a file of each of {', '.join(self.modalities)}, found {found}")
        return Case(case_id, None, tuple(files[parts[modality]] for modality in self.modalities), (), case_id)


def folder_of_label(_files: Mapping[str, RawFile], label_path: str) -> str:
    """The patient where each was scanned once: the folder of the scan."""
    return PurePosixPath(label_path).parent.name
