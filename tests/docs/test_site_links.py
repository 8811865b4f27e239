"""The check of the built site finds what leads nowhere, and nothing else."""

from pathlib import Path

from docs.site_links import broken_links


def test_only_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "guide").mkdir()
    (tmp_path / "map.png").write_bytes(b"")
    (tmp_path / "index.html").write_text(
        '<h1 id="top">A</h1><a href="#top">1</a><a href="guide/#step-1">2</a><img src="map.png">'
        '<a href="https://example.org/x">3</a><a href="guide/#step-2">4</a><a href="#bottom">5</a>'
    )
    (tmp_path / "guide" / "index.html").write_text(
        '<h2 id="step-1">B</h2><a href="../">1</a><a href="..#top">2</a><img src="../map.png?x=1"><img src="map.png">'
        '<a href="../missing/">3</a>'
    )
    assert broken_links(tmp_path) == [
        "guide/index.html: map.png",
        "guide/index.html: ../missing/",
        "index.html: guide/#step-2",
        "index.html: #bottom",
    ]
