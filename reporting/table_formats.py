"""A table of text cells as Markdown and as LaTeX. A cell is its text and whether it is set in bold."""

from collections.abc import Sequence
from pathlib import Path

from utils import write_text

Cells = Sequence[tuple[str, bool]]

LATEX_CHARACTERS = str.maketrans({
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
})
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


def write_printed(folder: Path, name: str, header: Sequence[str], body: Sequence[Cells], notes: Sequence[str]) -> str:
    """Write a table and its notes to NAME.tex and NAME.md in ``folder``; returns the text of the .md."""
    write_text(folder / f"{name}.tex", latex(header, body, " ".join(notes).replace("**", ""), name=name))
    text = "\n\n".join([markdown(header, body), *notes]) + "\n"
    write_text(folder / f"{name}.md", text)
    return text


def markdown(header: Sequence[str], body: Sequence[Cells]) -> str:
    table = [list(header), *[[f"**{text}**" if bold else text for text, bold in cells] for cells in body]]
    table = [[text.replace("|", r"\|") for text in row] for row in table]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in table
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


def latex(header: Sequence[str], body: Sequence[Cells], footnote: str, *, name: str) -> str:
    r"""A tabular with booktabs rules and its footnote: a document of its own, or read into one by ``\input{name}``."""
    lines = [
        r"\begin{tabular}{l" + "c" * (len(header) - 1) + "}",
        r"\toprule",
        " & ".join(map(escape, header)) + r" \\",
        r"\midrule",
        *(" & ".join(rf"\textbf{{{escape(text)}}}" if bold else escape(text) for text, bold in cells) + r" \\"
          for cells in body),
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip\noindent{\footnotesize " + escape(footnote) + r"\par}",
        r"\finishtable",
    ]
    return LATEX_HEAD.replace("NAME", name) + "\n".join(lines) + "\n"


def escape(text: str) -> str:
    return text.translate(LATEX_CHARACTERS)


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """The value in print; NA where there is none."""
    return "NA" if value != value else f"{value:{'+' if signed else ''}.{digits}f}"
