"""Escaping of user-defined names for output formats: a class may be called "a|b" or "50 % <c>"."""

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
    "[": "{[}",  # at the start of a row it would begin an option
    "*": "{*}",  # likewise
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}
"""Characters with a special meaning in LaTeX."""
_COMMANDS = (
    "± pm, \u00d7 times, ÷ div, · cdot, ≤ leq, ≥ geq, ≠ neq, ≈ approx, ∞ infty, → to, ← gets, "
    "Γ Gamma, Δ Delta, Θ Theta, Λ Lambda, Ξ Xi, Π Pi, Σ Sigma, Φ Phi, Ψ Psi, Ω Omega, "
    "\u03b1 alpha, β beta, \u03b3 gamma, δ delta, ε epsilon, ζ zeta, η eta, θ theta, \u03b9 iota, κ kappa, λ lambda, "
    "µ mu, μ mu, \u03bd nu, ξ xi, π pi, \u03c1 rho, \u03c3 sigma, τ tau, \u03c5 upsilon, φ phi, χ chi, ψ psi, ω omega"
)
_FORMULAS = {"\u2212": "-", "²": "^2", "³": "^3"} | {pair[0]: f"\\{pair[2:]}" for pair in _COMMANDS.split(", ")}
"""Characters that LaTeX has only in formulas."""
_KNOWN = "\u2013\u2014\u2018\u2019\u201c\u201d…øØłŁæÆœŒß"
_ACCENTS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"
_LATIN = 0x180
"""LaTeX's own fonts have, beyond ASCII, these characters, and letters with one of these accents up to this code
point."""


def for_plot(text: str) -> str:
    """Text for matplotlib, where dollar signs enclose formulas and labels starting with "_" are left out of legends."""
    return ("\u200b" if text.startswith("_") else "") + text.replace("$", r"\$")


def for_html(text: str) -> str:
    """Text for HTML elements, with separated dollar signs, because Jupyter would read two as a formula."""
    return html.escape(text).replace("$", "<span>$</span>")


def for_markdown(text: str) -> str:
    """Text for a line or a table cell in GitHub's and Jupyter's Markdown."""
    line = html.escape(_one_line(text), quote=False)
    line = re.sub(r"[\\`*|~#\[\]]", r"\\\g<0>", line)
    line = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", line)  # between letters it is literal
    return line.replace("$", r"<span>\$</span>")


def for_latex(text: str) -> str:
    """Text for LaTeX, also in table cells, without packages or additional fonts.

    Characters that need these, such as those of other scripts, are written as Unicode numbers: "(U+4E2D)".
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
