"""Tables of a benchmark as Markdown, LaTeX, CSV and HTML, with the paper's numbers next to them."""
