"""The live view of a benchmark that runs in another process."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from browser.lab import LabPage

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

RUN = '''
import subprocess, sys
code = """
import caap_lab as cl
methods = ["caap", "rollout", "grad_cam:version=none"]
cl.benchmark(["demo", "demo-clip"], methods, "demo:single", images=2, out="watched", progress=False, protocol="rise-28")
"""
process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code])
'''
VIEW = """
import caap_lab as cl
view = cl.widgets.benchmark("watched", every=0.5)
view
"""


def test_watching_a_run(lab: "LabPage") -> None:
    lab.server.folder.mkdir(exist_ok=True)
    lab.open(VIEW, RUN)
    panel = lab.output.locator(".caap-panel").first
    panel.get_by_text("There is no folder watched yet").wait_for()
    bar = panel.get_by_role("progressbar")
    bar.wait_for()
    panel.get_by_text("cells a minute").wait_for()
    table = panel.locator("table").filter(has_text="mean ± standard error")
    table.wait_for()
    lab.wait_for("view.result.totals", (12, 8, 4))
    panel.get_by_text("8 of 12 cells are computed, 4 failed.").wait_for()
    lab.wait_for("view.refreshing", False)

    # A metric by keyboard, and the error of the failed cells.
    metric = panel.get_by_label("metric")
    metric.focus()
    metric.press("ArrowUp")
    lab.wait_for("view.choice.metric", "insertion")
    panel.get_by_text("Ins in percent, higher is better").wait_for()
    value = lab.value(
        "(lambda s: f\"{s['mean']:.2f} ± {s['se']:.2f}\")(view.result.summary()"
        ".query(\"metric == 'insertion' and method == 'rollout' and model == 'demo'\").iloc[0])"
    )
    assert value in table.inner_text()
    failures = panel.get_by_text("Failed cells: 4")
    failures.click()
    panel.get_by_text("version='none' is not known").first.wait_for()
    failures.click()
    picture = panel.locator(".caap-still img")
    assert picture.evaluate("image => image.complete && image.naturalWidth") > 1000
    assert "Mean insertion and deletion curves" in (picture.get_attribute("alt") or "")
    panel.get_by_role("button", name="refresh now").click()

    lab.width(1024)
    for theme in ("light", "dark"):
        lab.theme(theme)
        for place, part in (("top", panel.get_by_role("button", name="refresh now")), ("bottom", picture)):
            part.scroll_into_view_if_needed()
            lab.page.wait_for_timeout(300)
            lab.screenshot(f"benchmark_{theme}_{place}")
    assert panel.evaluate("panel => panel.scrollWidth <= panel.clientWidth + 1")

    lab.value("view.close()")
    assert lab.value("(view.refreshing, view.worker.left)") == (False, 0)
    lab.reopen()
    assert lab.output.locator("img").count() == 1
