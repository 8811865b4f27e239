"""Names that people chose, in the formats that have signs of their own: a class may be called "a|b" or "50 % <c>"."""

import html
import re
import unicodedata

_LATEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after the end of a row it would begin an option
    "*": "{*}",  # likewise
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}
"""Signs that mean something else to LaTeX."""
_COMMANDS = (
    "± pm, \u00d7 times, ÷ div, · cdot, ≤ leq, ≥ geq, ≠ neq, ≈ approx, ∞ infty, → to, ← gets, "
    "Γ Gamma, Δ Delta, Θ Theta, Λ Lambda, Ξ Xi, Π Pi, Σ Sigma, Φ Phi, Ψ Psi, Ω Omega, "
    "\u03b1 alpha, β beta, \u03b3 gamma, δ delta, ε epsilon, ζ zeta, η eta, θ theta, \u03b9 iota, κ kappa, λ lambda, "
    "µ mu, μ mu, \u03bd nu, ξ xi, π pi, \u03c1 rho, \u03c3 sigma, τ tau, \u03c5 upsilon, φ phi, χ chi, ψ psi, ω omega"
)
_FORMULAS = {"\u2212": "-", "²": "^2", "³": "^3"} | {pair[0]: f"\\{pair[2:]}" for pair in _COMMANDS.split(", ")}
"""Signs that LaTeX has in formulas only."""
_KNOWN = "\u2013\u2014\u2018\u2019\u201c\u201d…øØłŁæÆœŒß"
_ACCENTS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"
_LATIN = 0x180
"""What its own fonts have beyond ASCII: these signs, and letters with one accent of these up to here."""


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
    """For LaTeX, in text and in a table's cells; no package and no font beside LaTeX's own is needed.

    Signs that LaTeX cannot print without such, as of other scripts, stand as their numbers in Unicode: "(U+4E2D)".
    """
    apart = re.sub("-(?=-)", "-\0", _one_line(text).replace("\0", ""))
    return "".join(_latex_sign(sign) for sign in apart)


def _latex_sign(sign: str) -> str:
    if sign == "\0":  # between two hyphens, which would become a dash
        return "{}"
    if sign in _LATEX:
        return _LATEX[sign]
    if sign in _FORMULAS:
        return f"${_FORMULAS[sign]}$"
    parts = unicodedata.normalize("NFD", sign)
    plain = parts[0].isascii() and parts[0].isprintable() and parts[1:] in ("", *_ACCENTS)
    if sign in _KNOWN or (plain and ord(sign) < _LATIN):
        return sign
    return f"(U+{ord(sign):04X})"


def _one_line(text: str) -> str:
    return " ".join(text.split())
