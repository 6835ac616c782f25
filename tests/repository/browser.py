"""`make test-browser`: the notebooks as a person uses them. JupyterLab in a real browser, every cell run by the menu, no error,
figures where they belong; then the pages as pictures, light and dark, in tests/screenshots/.

Needed are pip's index, and Chromium: the one that is installed, or playwright's own, or (as root) Debian's package. Playwright is
installed into a folder that is thrown away. Copies of the notebooks are run, and they write into a copy of the results.
"""

import argparse
import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "tests" / "screenshots"
# parameters, figures at least, and seconds; a notebook that is not there is left out
NOTEBOOKS = {
    "00_overview": ({}, 2, 120),
    "01_data": ({}, 0, 120),
    "02_base_model": ({}, 1, 120),
    "03_grpo": ({"profile": "smoke", "seed": 0, "max_steps": 80}, 2, 300),  # seen while it trains, too
    "04_mgrpo": ({"profile": "smoke", "seed": 0, "max_steps": 60}, 2, 300),
    "06_figures": ({}, 8, 300),
    "07_explore": ({}, 1, 600),
    "08_your_own": ({}, 1, 1500),
}
QUIET = {  # of JupyterLab: no question about news, and pages that hold all of their cells
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}
WIDTH, HEIGHT = 1280, 1500  # of a screen, in pixels
STATE = """() => {
    const panel = window.jupyterapp.shell.currentWidget;
    const notebook = panel.content.model.toJSON();
    const code = notebook.cells.filter(cell => cell.cell_type === 'code');
    return {
        status: panel.sessionContext.session?.kernel?.status,
        done: code.filter(cell => cell.execution_count !== null).length,
        cells: code.length,
        notebook: notebook,
    };
}"""


# ---------------------------------------------------------------------------------------------- what it needs
def install_playwright(folder: Path) -> None:
    """Playwright for this process alone."""
    call = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "playwright>=1.49"]
    if subprocess.run([*call, "--target", str(folder)]).returncode:
        raise SystemExit("playwright cannot be installed; pip's message is above (network? proxy?)")
    sys.path.insert(0, str(folder))


def browser(folder: Path) -> str | None:
    """Chromium's path; None: playwright's own, which it finds by itself."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    if found := next(filter(None, map(shutil.which, names)), None):
        return found
    os.environ["PLAYWRIGHT_BROWSERS_PATH"] = str(folder / "browsers")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    call = [sys.executable, "-m", "playwright", "install", "chromium"]
    if subprocess.run(call, env=environment, capture_output=True).returncode == 0:
        return None
    if os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], env=quiet, stdout=subprocess.DEVNULL)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"],
            env=quiet,
            stdout=subprocess.DEVNULL,
        )
    if found := shutil.which("chromium"):
        return found
    raise SystemExit("there is no browser; install Chromium (Debian: apt-get install chromium) and try again")


def prepare(folder: Path, names: list[str]) -> None:
    """Copies of the results and of the notebooks, these with parameters set in their parameters cell."""
    for kind in ("results", "figures"):
        shutil.copytree(ROOT / kind, folder / kind)
    (folder / "notebooks").mkdir()
    for name in names:
        notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        cell = next(cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", []))
        lines = "".join(cell["source"]).split("\n")
        for parameter, value in {"output_root": str(folder), **NOTEBOOKS[name][0]}.items():
            line = next(i for i, text in enumerate(lines) if re.match(rf"{parameter}\b", text))
            lines[line] = f"{parameter} = {value!r}"
        cell["source"] = "\n".join(lines)
        (folder / "notebooks" / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


@contextlib.contextmanager
def lab(folder: Path):
    """JupyterLab on a free port, with a token and settings of its own; gives its address."""
    for name, settings in QUIET.items():
        file = folder / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython"}
    own |= {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    environment = {**os.environ, **{name: str(folder / place) for name, place in own.items()}}
    environment.pop("MPLBACKEND", None)
    call = [sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser", "--allow-root"]
    call += [f"--ServerApp.root_dir={folder / 'notebooks'}", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    with open(folder / "lab.log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(
            [*call, f"--IdentityProvider.token={token}"], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", server, folder / "lab.log")
            yield f"http://127.0.0.1:{port}/lab/workspaces/{{0}}/tree/{{0}}.ipynb?token={token}"
        finally:
            server.terminate()
            server.wait(30)


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    """Until the server answers."""
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.3)
    raise SystemExit(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8')[-3000:]}")


# ---------------------------------------------------------------------------------------------- what is done with it
def run_all(page, name: str, seconds: float, trains: bool) -> dict:
    """Clicks Run > Run All Cells, waits until the kernel has nothing left to do, and returns the notebook; of one that trains it
    takes a picture of the curves meanwhile.
    """
    from playwright.sync_api import TimeoutError

    page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel", timeout=120_000)
    page.wait_for_function(f"({STATE})().status === 'idle'", timeout=120_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    end, seen = time.monotonic() + seconds, not trains
    while time.monotonic() < end:
        time.sleep(0.5)
        state = page.evaluate(STATE)
        failed = errors(state["notebook"])
        curves = page.locator(".jp-CodeCell").filter(has_text="[*]:").locator("img")
        if not seen and curves.count():  # of a training that is under way
            with contextlib.suppress(TimeoutError):  # they are redrawn, or the training has just ended
                curves.first.screenshot(path=SCREENSHOTS / f"{name}-while-training.png", timeout=2000)
                seen = True
        if state["status"] == "idle" and (failed or state["done"] == state["cells"]):
            assert not failed, f"{name}: {failed[0]}"
            return state["notebook"]
    page.screenshot(path=SCREENSHOTS / f"{name}-stuck.png")
    raise AssertionError(f"{name}: {state['done']} of {state['cells']} cells are done after {seconds} s")


def outputs(notebook: dict) -> list[dict]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def errors(notebook: dict) -> list[str]:
    return [f"{one['ename']}: {one['evalue']}" for one in outputs(notebook) if one["output_type"] == "error"]


def red(notebook: dict) -> list[str]:
    """What is written to stderr: JupyterLab shows warnings and bars in red boxes."""
    return ["".join(output["text"]) for output in outputs(notebook) if output.get("name") == "stderr"]


def pictures(notebook: dict) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def photograph(page, name: str) -> None:
    """The whole notebook, a screen at a time, in both themes."""
    page.evaluate("window.jupyterapp.shell.collapseLeft()")
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    scrolled = "document.querySelector('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer')"
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        page.wait_for_timeout(1500)
        step = page.evaluate(f"{scrolled}.clientHeight")
        height = page.evaluate(f"{scrolled}.querySelector('.jp-Cell:last-child').offsetTop") + 200
        for i in range(-(-height // step)):
            page.evaluate(f"{scrolled}.scrollTop = {i * step}")
            page.wait_for_timeout(300)
            page.screenshot(path=SCREENSHOTS / f"{name}-{theme.split()[1].lower()}-{i + 1}.png")
    broken = "[...document.querySelectorAll('.jp-OutputArea img')].filter(image => image.naturalWidth === 0).length"
    assert page.evaluate(broken) == 0, f"{name}: a picture is not shown"


def as_page(context, folder: Path, name: str, figures: int) -> None:
    """The saved notebook through nbconvert, as a page of its own."""
    saved = folder / "notebooks" / f"{name}.ipynb"
    subprocess.run([sys.executable, "-m", "nbconvert", "--log-level=ERROR", "--to", "html", str(saved)], check=True)
    page = context.new_page()
    page.route(re.compile("^https?:"), lambda route: route.abort())  # MathJax would come from outside
    page.goto(saved.with_suffix(".html").as_uri())
    shown = page.evaluate("[...document.images].filter(image => image.naturalWidth > 0).length")
    assert shown >= figures, f"{name}: {shown} of {figures} figures are in its HTML page"
    page.screenshot(path=SCREENSHOTS / f"{name}-html.png", full_page=True)
    page.close()


def check(context, address: str, folder: Path, name: str) -> None:
    parameters, figures, seconds = NOTEBOOKS[name]
    start = time.monotonic()
    page = context.new_page()
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    page.goto(address.format(name))
    notebook = run_all(page, name, seconds, trains="max_steps" in parameters)
    found = pictures(notebook)
    assert found >= figures, f"{name} shows {found} figures; {figures} are expected"
    assert not red(notebook) or name == "08_your_own", f"{name} has red boxes: {red(notebook)[0]}"
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    photograph(page, name)
    if "max_steps" in parameters:
        assert (SCREENSHOTS / f"{name}-while-training.png").exists(), f"{name} showed no curves while it trained"
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    page.close()
    as_page(context, folder, name, found)
    print(f"{name}: no error, {found} figures, {time.monotonic() - start:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(".")[0])
    parser.add_argument("notebooks", nargs="*", help=f"by default those of {', '.join(NOTEBOOKS)} that are there")
    there = [name for name in NOTEBOOKS if (ROOT / "notebooks" / f"{name}.ipynb").exists()]
    names = parser.parse_args().notebooks or there
    shutil.rmtree(SCREENSHOTS, ignore_errors=True)
    SCREENSHOTS.mkdir()
    with tempfile.TemporaryDirectory(prefix="lab-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        install_playwright(folder / "playwright")
        executable = browser(folder / "playwright")
        from playwright.sync_api import sync_playwright

        prepare(folder, names)
        with lab(folder) as address, sync_playwright() as playwright:
            sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
            chromium = playwright.chromium.launch(executable_path=executable, args=sandbox)
            context = chromium.new_context()
            for name in names:
                check(context, address, folder, name)
            chromium.close()
    print(f"passed; pictures are in {SCREENSHOTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
