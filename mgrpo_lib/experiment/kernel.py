"""Execute one notebook by papermill, in a kernel of the interpreter that runs the pipeline: `python -m
mgrpo_lib.experiment.kernel NOTEBOOK EXECUTED FOLDER PARAMETERS`. The pipeline starts one such process per notebook.
"""

import json
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

NAME = "mgrpo"
LONGEST = 60  # characters of a temporary folder: a socket's whole path may have 107


@contextmanager
def own_kernel():
    """Offer a kernel of this interpreter, whatever other kernels are installed; yield the manager's settings.

    Kernels that start at the same time may be given the same port, which ends one of them. Each gets sockets in a folder of
    its own. Some clusters have a temporary folder that is too long for a socket.
    """
    place = None if len(tempfile.gettempdir()) <= LONGEST else "/tmp"  # noqa: S108  the folder in it is private
    with tempfile.TemporaryDirectory(prefix="mgrpo-", dir=place) as folder:
        spec = Path(folder) / "kernels" / NAME / "kernel.json"
        spec.parent.mkdir(parents=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec.write_text(json.dumps({"argv": argv, "display_name": NAME, "language": "python"}), encoding="utf-8")
        os.environ["JUPYTER_PATH"] = folder  # searched first
        yield {"transport": "ipc", "ip": f"{folder}/kernel"}


def main() -> None:
    sys.modules["rfc3987_syntax"] = None  # jsonschema loads it for a second, for a format that no schema here asks for
    from papermill import execute_notebook
    from traitlets.config import Config

    notebook, executed, folder, parameters = sys.argv[1:]
    with own_kernel() as manager:
        # a kernel that has loaded torch tidies up for two seconds when it is asked to end, though nothing is left to do
        how = {"kernel_name": NAME, "cwd": folder, "progress_bar": False, "shutdown_kernel": "immediate"}
        execute_notebook(notebook, executed, json.loads(parameters), **how, config=Config(KernelManager=manager))


if __name__ == "__main__":
    main()
