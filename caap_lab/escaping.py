"""Names that people chose, in the formats that have signs of their own: a class may be called "a|b" or "50 % <c>"."""

import html
import re

_LATEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "[": "{[}",  # after the end of a row it would begin an option
    "*": "{*}",  # likewise
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}


def for_plot(text: str) -> str:
    """For matplotlib, where dollar signs enclose formulas and labels that begin with "_" stay out of legends."""
    return ("\u200b" if text.startswith("_") else "") + text.replace("$", r"\$")


def for_html(text: str) -> str:
    """For the text of HTML elements; a dollar sign stands alone, else Jupyter would take two for a formula's ends."""
    return html.escape(text).replace("$", "<span>$</span>")


def for_markdown(text: str) -> str:
    """For a line or a table's cell in GitHub's and Jupyter's Markdown."""
    line = html.escape(_one_line(text), quote=False)
    line = re.sub(r"[\\`*|~#\[\]]", r"\\\g<0>", line)
    line = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", line)  # between letters it means itself
    return line.replace("$", r"<span>\$</span>")


def for_latex(text: str) -> str:
    """For LaTeX, in text and in a table's cells."""
    return "".join(_LATEX.get(sign, sign) for sign in _one_line(text)).replace("--", "-{}-")


def _one_line(text: str) -> str:
    return " ".join(text.split())
