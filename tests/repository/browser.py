"""`make test-browser`: run every cell of the notebooks in JupyterLab, in a real browser, and keep pictures of them.

Needs Chromium and pip's index; playwright goes to a temporary folder. Copies of the notebooks are run on a copy of the
results; pictures, light and dark, go to tests/screenshots/.
"""

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
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "tests" / "screenshots"
TRAINING = {"profile": "smoke", "seed": 0, "max_steps": 60}
NOTEBOOKS = {  # parameters, figures at least, and seconds
    "00_overview": ({}, 2, 120),
    "01_data": ({}, 1, 120),
    "02_base_model": ({}, 1, 120),
    "03_grpo": (TRAINING, 2, 300),
    "04_mgrpo": (TRAINING, 2, 300),
    "06_figures": ({}, 8, 300),
    "07_explore": ({}, 1, 600),
    "08_your_own": ({}, 2, 1500),
}
WIDGET = "application/vnd.jupyter.widget-view+json"
STATE = """() => {
    const panel = window.jupyterapp?.shell.currentWidget;
    const notebook = panel?.content?.model?.toJSON();
    return {status: panel?.sessionContext?.session?.kernel?.status, cells: notebook?.cells ?? []};
}"""


def browser(folder: Path) -> str:
    """Install playwright for this process, and return Chromium's path."""
    if not (found := shutil.which("chromium") or shutil.which("google-chrome")):
        raise SystemExit("there is no browser; install Chromium (Debian: apt-get install chromium) and try again")
    quiet = ["--quiet", "--disable-pip-version-check", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *quiet, "playwright>=1.49"], check=True)
    sys.path.insert(0, str(folder))
    return found


def prepare(folder: Path, names) -> None:
    """Copy results and notebooks, these with the parameters in their parameters cell."""
    for kind in ("results", "figures"):
        shutil.copytree(ROOT / kind, folder / kind)
    (folder / "notebooks").mkdir()
    for name in names:
        notebook = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        cell = next(cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", []))
        text = "".join(cell["source"])
        for parameter, value in {"output_root": str(folder), **NOTEBOOKS[name][0]}.items():
            text, found = re.subn(rf"(?m)^{parameter}\b.*$", f"{parameter} = {value!r}", text)
            assert found == 1, f"{name} has no parameter {parameter}"
        cell["source"] = text
        (folder / "notebooks" / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


@contextlib.contextmanager
def lab(folder: Path):
    """Start JupyterLab on a free port with a token and settings of its own, and give the form of its addresses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, names = secrets.token_hex(16), ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    names += ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    environment = {**os.environ, **{name: str(folder / name.lower()) for name in names}}
    environment.pop("MPLBACKEND", None)
    call = [sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser", "--allow-root"]
    call += ["--LabApp.news_url=None", "--ServerApp.port_retries=0", f"--ServerApp.port={port}"]
    call += [f"--ServerApp.root_dir={folder / 'notebooks'}", f"--IdentityProvider.token={token}"]
    with open(folder / "lab.log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(call, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        for _ in range(400):
            with contextlib.suppress(OSError):  # it has not started yet
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status?token={token}", timeout=5).close()
                break
            assert server.poll() is None, (folder / "lab.log").read_text(encoding="utf-8")[-3000:]
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/lab/workspaces/{{0}}/tree/{{0}}.ipynb?token={token}"
    finally:
        server.terminate()
        server.wait(30)


def check(page, folder: Path, name: str) -> None:
    """Run all cells by the menu, check errors and figures, and keep pictures of the saved notebook."""
    parameters, figures, seconds = NOTEBOOKS[name]
    page.wait_for_function(f"({STATE})().status === 'idle'", timeout=120_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    end, live = time.monotonic() + seconds, False
    while True:
        page.wait_for_timeout(500)
        state = page.evaluate(STATE)
        code = [cell for cell in state["cells"] if cell["cell_type"] == "code"]
        outputs = [output for cell in code for output in cell["outputs"]]
        failed = [f"{one['ename']}: {one['evalue']}" for one in outputs if one["output_type"] == "error"]
        assert not failed, f"{name}: {failed[0]}"
        live |= page.locator(".jp-CodeCell").filter(has_text="[*]:").locator("img").count() > 0
        if state["status"] == "idle" and all(cell["execution_count"] is not None for cell in code):
            break
        assert time.monotonic() < end, f"{name} is not done after {seconds} s"
    shown = [output.get("data", {}).keys() for output in outputs]
    found = sum(
        "image/png" in kinds and WIDGET not in kinds for kinds in shown
    )  # nbconvert shows no picture of a widget
    assert found >= figures, f"{name} shows {found} figures; {figures} are expected"
    assert live or parameters is not TRAINING, f"{name} showed no curves while it trained"
    red = ["".join(output["text"]) for output in outputs if output.get("name") == "stderr"]
    assert not red or name == "08_your_own", f"{name} has red boxes: {red[0]}"
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    page.route(re.compile("^https?:"), lambda route: route.abort())  # MathJax would come from outside
    for theme in ("light", "dark"):
        saved, picture = folder / "notebooks" / f"{name}.ipynb", folder / f"{name}-{theme}.html"
        call = [sys.executable, "-m", "nbconvert", "--log-level=ERROR", "--to", "html", "--theme", theme]
        subprocess.run([*call, "--output", str(picture), str(saved)], check=True)
        page.goto(picture.as_uri())
        assert page.evaluate("[...document.images].filter(image => image.naturalWidth > 0).length") >= found, picture
        page.screenshot(path=SCREENSHOTS / f"{name}-{theme}.png", full_page=True)


def main() -> None:
    names = sys.argv[1:] or NOTEBOOKS
    SCREENSHOTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lab-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        executable = browser(folder / "playwright")
        from playwright.sync_api import sync_playwright

        prepare(folder, names)
        with lab(folder) as address, sync_playwright() as playwright:
            sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
            context = playwright.chromium.launch(executable_path=executable, args=sandbox).new_context()
            for name in names:
                page, start = context.new_page(), time.monotonic()
                page.goto(address.format(name))
                check(page, folder, name)
                page.close()
                print(f"{name}: no error, {time.monotonic() - start:.0f} s", flush=True)
    print(f"passed; pictures are in {SCREENSHOTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
