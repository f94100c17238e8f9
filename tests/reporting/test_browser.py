"""The pages in a real browser, on a phone and on a desk, in light and in dark."""

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench.reporting.page import write_report as write_bench_report
from cifarfast.reporting.comparison import write_comparison
from cifarfast.reporting.page import write_report
from cifarfast.reporting.study import write_study
from cifarfast.reporting.style import PALETTE
from tests.bench.made import everything, write_bench
from tests.reporting.conftest import MakeRun
from tests.reporting.test_page import NAMES
from tests.reporting.test_study import write_two_recipes

webdriver = pytest.importorskip("selenium.webdriver")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # it cannot be had as root, and the pages are our own
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
# Everything that the page shows and a person has to read, with the size at which it is seen.
SMALLEST_TEXT = """
return Math.min(...[...document.querySelectorAll('svg text')].map(text => {
  const svg = text.ownerSVGElement;
  return parseFloat(getComputedStyle(text).fontSize) * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
}))
"""


class Visit(NamedTuple):
    """What happened while a page was looked at."""

    console: list[dict[str, Any]]
    requests: list[str]
    failures: list[dict[str, Any]]


class Browser:
    """Chromium, without a window."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def look(self, page: Path, width: int, scheme: str) -> Visit:
        """Open a page as it is on a screen of this width and colour scheme."""
        self._command(
            "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 500
        )
        self._command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.driver.get("about:blank")
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # what came before
        self.driver.get(page.as_uri())
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return Visit(
            console=self.driver.get_log("browser"),
            requests=[e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"],
            failures=[e["params"] for e in events if e["method"] == "Network.loadingFailed"],
        )

    def ask(self, script: str) -> Any:
        """What a script returns on the page."""
        return self.driver.execute_script(script)

    def keep(self, path: Path) -> None:
        """A screenshot of the whole page."""
        width, height = self.ask("return [innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self._command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _command(self, name: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, parameters)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no Chromium with its driver (on Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield Browser(running)
    running.quit()


@pytest.fixture(scope="module")
def pages(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report, one with names that could do harm, a comparison, a report of benchmarks, and a study."""
    folder = tmp_path_factory.mktemp("pages")
    plain, hostile = make_run(folder / "plain", kind="cifar10"), make_run(folder / "hostile <b> #?%", class_names=NAMES)
    bench = write_bench(folder / "bench.json", everything(), skipped=[{"group": NAMES[0], "name": "a", "reason": "b"}])
    write_two_recipes(folder / "study <b> #?%")
    benchmarks, _, _ = write_bench_report([bench], [plain, hostile], folder / "benchmarks")
    return {
        "benchmarks": benchmarks,
        "report": write_report(plain),
        "hostile": write_report(hostile),
        "comparison": write_comparison([plain, hostile, plain], folder / "comparison" / "report.html"),
        "study": write_study(folder / "study <b> #?%", margin=0.25)[1],
    }


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("CIFARFAST_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("name", ["report", "hostile", "comparison", "benchmarks", "study"])
def test_a_page(
    browser: Browser, pages: dict[str, Path], screenshots: Path, name: str, width: int, scheme: str
) -> None:
    seen = browser.look(pages[name], width, scheme)
    browser.keep(screenshots / f"{name}-{width}-{scheme}.png")
    assert seen.console == []
    assert seen.failures == []
    assert pages[name].as_uri() in seen.requests
    assert {url.partition(":")[0] for url in seen.requests} <= {"file", "data"}
    assert browser.ask("return innerWidth") == width
    assert browser.ask("return document.documentElement.scrollWidth") <= width
    assert browser.ask("return [...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert browser.ask(SMALLEST_TEXT) >= 7
    paper = PALETTE["paper"][scheme == "dark"]
    red, green, blue = (int(paper[place : place + 2], 16) for place in (1, 3, 5))
    assert browser.ask("return getComputedStyle(document.body).backgroundColor") == f"rgb({red}, {green}, {blue})"


@pytest.mark.parametrize(("width", "columns"), [(390, 1), (1200, 2)])
def test_a_benchmark_s_plot_is_beside_its_table_where_there_is_room(
    browser: Browser, pages: dict[str, Path], width: int, columns: int
) -> None:
    browser.look(pages["benchmarks"], width, "light")
    shown = browser.ask("return getComputedStyle(document.querySelector('.drawn')).gridTemplateColumns")
    assert len(shown.split()) == columns
