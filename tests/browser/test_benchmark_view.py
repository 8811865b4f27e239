"""The live view of a benchmark that runs in another process."""

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from browser.lab import LabPage

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

RUN = '''
import subprocess, sys
code = """
import sys
import caap_lab as cl
from caap_lab.bench.run_folder import RunFolder

append = RunFolder.append
def append_after_a_line(run, rows):  # each trial waits for a line from the test, which has then seen the one before
    sys.stdin.readline()
    append(run, rows)
RunFolder.append = append_after_a_line
sys.stdin.readline()
methods = ["caap", "rollout", "grad_cam:version=none"]
cl.benchmark(["demo", "demo-clip"], methods, "demo:single", images=2, out="watched", progress=False, protocol="rise-28")
"""
process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdin=subprocess.PIPE, text=True)
def go_on(lines):
    print("\\n" * lines, end="", file=process.stdin, flush=True)
'''
VIEW = """
import caap_lab as cl
view = cl.widgets.benchmark("watched", every=0.5)
view
"""


@pytest.mark.slow  # half a minute; tests/widgets/test_benchmark_view.py has the view's own steps
def test_watching_a_run(lab: "LabPage") -> None:
    lab.server.folder.mkdir(exist_ok=True)
    lab.open(VIEW, RUN)
    panel = lab.output.locator(".caap-panel").first
    panel.get_by_text("There is no folder watched yet").wait_for()
    lab.run("go_on(1)")
    panel.get_by_text("0 of 12 trials are computed").wait_for()
    panel.get_by_role("progressbar").wait_for()
    lab.run("go_on(2)")
    panel.get_by_text("2 of 12 trials are computed").wait_for()
    panel.get_by_text("trials per minute").wait_for()
    lab.run("go_on(10)")
    table = panel.locator(".caap-wide").filter(has_text="mean ± standard error")
    table.wait_for()
    lab.wait_for("view.result.totals", (12, 8, 4))
    panel.get_by_text("8 of 12 trials are computed, 4 failed.").wait_for()
    lab.wait_for("view.refreshing", False)

    failures = panel.get_by_text("Failed trials: 4")
    failures.wait_for()  # and whatever else changes with the last trial

    # A metric by keyboard, and the error of the failed trials.
    metric = panel.get_by_label("metric")
    metric.focus()
    metric.press("ArrowUp")
    lab.wait_for("view.choice.metric", "insertion")
    panel.get_by_text("Ins in percent, higher is better").wait_for()
    value = lab.value(
        "(lambda s: f\"{s['mean']:.2f} ± {s['se']:.2f}\")(view.result.summary()"
        ".query(\"metric == 'insertion' and method == 'rollout' and model == 'demo'\").iloc[0])"
    )
    lab.expect(table).to_contain_text(value)
    failures.click()
    panel.get_by_text("version='none' is not known").first.wait_for()
    failures.click()
    picture = panel.locator(".caap-static-image img")
    lab.until(
        "(image => image.complete && image.naturalWidth > 1000)(document.querySelector('.caap-static-image img'))"
    )
    lab.expect(picture).to_have_attribute("alt", re.compile("Mean insertion and deletion curves"))
    panel.get_by_role("button", name="refresh now").click()

    lab.width(1024)
    for theme in ("light", "dark"):
        lab.theme(theme)
        for place, part in (("top", panel.get_by_role("button", name="refresh now")), ("bottom", picture)):
            part.scroll_into_view_if_needed()
            lab.page.wait_for_timeout(300)
            lab.screenshot(f"benchmark_{theme}_{place}")
    lab.until("(panel => panel.scrollWidth <= panel.clientWidth + 1)(document.querySelector('.caap-panel'))")

    lab.value("view.close()")
    lab.wait_for("(view.refreshing, view.worker.pending)", (False, 0))  # a look that had begun comes to its end
    lab.reopen()
    lab.expect(lab.output.locator("img")).to_have_count(1)
