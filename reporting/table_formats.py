"""Tables of text and their notes as Markdown and as LaTeX."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from environment.atomic_outputs import check_own, written_together
from utils import InputError, write_rows, write_text


@dataclass(frozen=True)
class Text:
    """A cell of a printed table, or a part of a note, and whether it is set in bold."""

    text: str
    bold: bool = False


Note = Sequence[Text]

LATEX_CHARACTERS = str.maketrans({
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
})
# How the files of a table begin.
SIGNS = {".csv": b"row,", ".md": b"| row", ".tex": b"% Compiles alone, and goes"}
# Before \documentclass the file makes a document of itself; after it, in a paper, it is read as it is.
LATEX_HEAD = r"""% Compiles alone, and goes into a paper that uses booktabs with \input{NAME}
\makeatletter
\ifx\documentclass\@twoclasseserror
  \def\finishtable{}
\else
  \documentclass{article}
  \usepackage[landscape,margin=15mm]{geometry}
  \usepackage{booktabs}
  \def\finishtable{\end{document}}
  \begin{document}\thispagestyle{empty}\noindent
\fi
\makeatother
"""


@dataclass(frozen=True)
class PrintedTable:
    """A table as it is printed: header, lines of cells, and the notes below it."""

    header: Sequence[str]
    body: Sequence[Sequence[Text]]
    notes: Sequence[Note]

    def write(self, folder: Path, name: str, lines: Sequence[Mapping], columns: Sequence[str]) -> str:
        """Write NAME.tex and NAME.md into ``folder``, and ``lines`` as NAME.csv; returns the text of the .md."""
        text = self.markdown()
        for end, sign in SIGNS.items():
            path = folder / f"{name}{end}"
            check_own(path, sign)
            # Anyone's table may begin like ours; the .tex, which is always made with it, does not.
            if path.exists() and not (folder / f"{name}.tex").exists():
                raise InputError(
                    f"{path}: expected nothing or a table that was made here before, found one without {name}.tex; "
                    "choose another name or remove it"
                )
        with written_together() as place:
            write_rows(place(folder / f"{name}.csv"), lines, columns)
            write_text(place(folder / f"{name}.tex"), self.latex(name))
            write_text(place(folder / f"{name}.md"), text)
        return text

    def markdown(self) -> str:
        table = [list(self.header), *[[markdown_text(cell) for cell in cells] for cells in self.body]]
        table = [[text.replace("|", r"\|") for text in row] for row in table]
        widths = [max(len(row[i]) for row in table) for i in range(len(self.header))]
        lines = [
            "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
            for row in table
        ]
        lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
        return "\n\n".join(["\n".join(lines), *("".join(map(markdown_text, note)) for note in self.notes)]) + "\n"

    def latex(self, name: str) -> str:
        r"""A tabular with booktabs rules: a document of its own, or read into one by ``\input{name}``."""
        lines = [
            r"\begin{tabular}{l" + "c" * (len(self.header) - 1) + "}",
            r"\toprule",
            " & ".join(map(escape_latex, self.header)) + r" \\",
            r"\midrule",
            *(" & ".join(map(latex_text, cells)) + r" \\" for cells in self.body),
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\smallskip\noindent{\footnotesize "
            + " ".join("".join(map(latex_text, note)) for note in self.notes) + r"\par}",
            r"\finishtable",
        ]
        return LATEX_HEAD.replace("NAME", name) + "\n".join(lines) + "\n"


def markdown_text(text: Text) -> str:
    return f"**{text.text}**" if text.bold else text.text


def latex_text(text: Text) -> str:
    return rf"\textbf{{{escape_latex(text.text)}}}" if text.bold else escape_latex(text.text)


def escape_latex(text: str) -> str:
    return text.translate(LATEX_CHARACTERS)


def format_number(value: float, digits: int, *, signed: bool = False) -> str:
    """The value in print; NA where there is none."""
    return "NA" if value != value else f"{value:{'+' if signed else ''}.{digits}f}"
