"""Time from a slider's move to the picture on the screen, in a real JupyterLab in a real Chromium.

    python -m benchmarks.widgets [--models vit_tiny_patch16_224 vit_base_patch16_224] [--repeats 7] [--out FILE]

Weights are random: time does not depend on them. "known" is a cutoff whose map was computed before; "new" is a blank
never used before, from the choice in the menu to its first map; all other maps wait in the queue meanwhile. "Hover" is
the time in which a board of nine maps of 24 x 24 patches follows the pointer, in a window of 1920 pixels.
"""

import argparse
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # JupyterLab and browser of the tests

CELL = """
import caap_lab as cl
import numpy as np, timm, torch
from PIL import Image
torch.manual_seed(0)
model = cl.HookedViT(timm.create_model({name!r}, pretrained=False))
image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8))
w = cl.widgets.layer_sweep(model, image)
w
"""
BOARD = """
import io
import numpy as np
from PIL import Image
from caap_lab.widgets.board import Board, map_tile
rng = np.random.default_rng(0)
file = io.BytesIO()
Image.fromarray(rng.integers(0, 255, (384, 384, 3), dtype=np.uint8)).save(file, format="png")
board = Board(top=20, photos={"photo": file.getvalue()}, tiles=[
    map_tile(str(i), "photo", f"map {i}", rng.normal(size=(24, 24)), (24, 24), "logit", tips=["tabby 43 %"] * 576)
    for i in range(9)
])
board.neighbours = [[down, right] for down in (-1, 0, 1) for right in (-1, 0, 1)]
board
"""
HOVER = """async () => {
    const canvas = document.querySelector('.caap-board canvas');
    const area = canvas.getBoundingClientRect();
    const times = [];
    for (let move = 0; move < 50; move += 1) {
        await new Promise(requestAnimationFrame);
        const clientX = area.left + (area.width * ((7 * move) % 24 + 0.5)) / 24;
        const clientY = area.top + (area.height * ((5 * move) % 24 + 0.5)) / 24;
        const began = performance.now();
        canvas.dispatchEvent(new PointerEvent('pointermove', {clientX, clientY, bubbles: true}));
        times.push(performance.now() - began);
    }
    return times;
}"""
WATCH = """async ([act, blank]) => {
    const board = document.querySelector('.caap-panel .caap-board');
    const before = Number(board.dataset.shown);
    const seen = new Promise(resolve => new MutationObserver((_, observer) => {
        if (Number(board.dataset.shown) > before && board.querySelector('.caap-tile').dataset.state === 'map') {
            observer.disconnect();
            requestAnimationFrame(() => resolve(performance.now()));
        }
    }).observe(board, {attributes: true}));
    const began = performance.now();
    if (act === 'slider') {
        const handle = document.querySelector('.caap-panel .noUi-handle');
        handle.dispatchEvent(new KeyboardEvent('keydown', {key: blank, bubbles: true, cancelable: true}));
    } else {
        const menus = [...document.querySelectorAll('.caap-panel select')];
        const menu = menus.find(s => [...s.options].some(option => option.value === 'white'));
        menu.selectedIndex = blank;
        menu.dispatchEvent(new Event('change', {bubbles: true}));
    }
    return (await seen) - began;
}"""


def main() -> None:
    """Print and save a table of milliseconds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["vit_tiny_patch16_224", "vit_base_patch16_224"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    chosen = parser.parse_args()

    from benchmarks.machine import describe

    lines = [
        "| Model | known, median ms | known, worst ms | new, median ms | computing the map, ms |",
        "|---|---|---|---|---|",
    ]
    for name in chosen.models:
        known, new, alone = measure(name, chosen.repeats)
        figures = [statistics.median(known), max(known), statistics.median(new), alone]
        lines.append(f"| {name} | {' | '.join(f'{figure:.0f}' for figure in figures)} |")
        print(lines[-1], flush=True)
    about = (
        f"Milliseconds; {chosen.repeats} moves of the slider and 5 blanks, headless Chromium on the same machine; "
        "kernel: "
        f"{describe()}, {platform.system()}."
    )
    hover = measure_hover()
    typical, worst = statistics.median(hover), max(hover)
    moves = f"Hover over nine maps: median of {len(hover)} moves {typical:.1f} ms, worst {worst:.1f} ms."
    text = "\n".join([*lines, "", about, "", moves, ""])
    print(text)
    if chosen.out:
        chosen.out.write_text(text)


@contextmanager
def opened(cell: str) -> Iterator[Any]:
    """A page of JupyterLab in which a cell has run."""
    from playwright.sync_api import sync_playwright

    from browser.lab import LabPage, LabServer, find_browser

    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_browser(), chromium_sandbox=False)
        server = LabServer(Path(home))
        try:
            lab = LabPage(server, chromium, Path(home))
            lab.width(1920)
            lab.open(cell)
            yield lab
            lab.close()
        finally:
            server.stop()
            chromium.close()


def measure(name: str, repeats: int) -> tuple[list[float], list[float], float]:
    """Milliseconds to known maps and to new ones, and for the computation only."""
    with opened(CELL.format(name=name)) as lab:
        lab.wait_for("len(w._here.maps) > w.model.n_layers", True)
        lab.value("w.worker.replace_jobs([])")
        lab.page.wait_for_selector(".caap-panel .caap-tile[data-state=map]")
        lab.page.wait_for_timeout(2000)
        known = []
        for place in range(repeats):
            known.append(lab.page.evaluate(WATCH, ["slider", "ArrowLeft" if place % 2 else "ArrowRight"]))
            lab.value("w.worker.replace_jobs([])")  # otherwise curves are computed meanwhile
            lab.page.wait_for_timeout(1500)  # the picture in the notebook is drawn again
        new = []
        for blank in range(1, 6):
            new.append(lab.page.evaluate(WATCH, ["blank", blank]))
            lab.value("w.worker.replace_jobs([])")
            lab.page.wait_for_timeout(1500)
        clock = "(lambda t: [t(), cl.caap(model, image), t()])(__import__('time').perf_counter)"
        ends = [lab.value(f"(lambda r: 1000 * (r[2] - r[0]))({clock})") for _ in range(3)]
    return known, new, statistics.median(ends)


def measure_hover() -> list[float]:
    """Milliseconds of each move of the pointer."""
    with opened(BOARD) as lab:
        lab.page.wait_for_selector(".caap-tile[data-state=map]")
        lab.page.wait_for_timeout(2000)
        times: list[float] = lab.page.evaluate(HOVER)
    return times


if __name__ == "__main__":
    main()
