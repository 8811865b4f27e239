"""Jupyter kernels that start at once: forked from a process that has imported the large libraries already.

Each is a process of its own, as a kernel always is; only the seconds of imports are shared. This file, run as a script,
is that process; run with a connection file as well, it is what Jupyter starts as a kernel, and asks for the fork.
"""

import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

NAME = "warm"


@contextmanager
def warm_kernels(folder: Path) -> Iterator[Path]:
    """Kernels of the name "warm" while it is entered, for whoever has the folder that it gives in JUPYTER_PATH."""
    from helpers.tied_process import start_tied

    with tempfile.TemporaryDirectory(prefix="warm") as short:  # paths of sockets are bounded
        address = Path(short) / "s"
        spec = {"argv": [sys.executable, __file__, str(address), "{connection_file}"], "display_name": NAME}
        (folder / "kernels" / NAME).mkdir(parents=True)
        (folder / "kernels" / NAME / "kernel.json").write_text(json.dumps({**spec, "language": "python"}))
        guard = start_tied([sys.executable, __file__, address])
        try:
            yield folder
        finally:
            guard.terminate()
            guard.wait()


def serve(address: str) -> NoReturn:
    """Import, then fork a kernel for everyone who asks; its end of the connection closes when it ends."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()  # before the imports, which are waited for
    import tqdm.notebook

    sys.modules["tqdm.autonotebook"] = tqdm.notebook  # what tqdm takes in a kernel, and not in a script

    import caap_lab  # noqa: F401  # isort: skip  # before timm, for a CPU-only torch
    import IPython.core.interactiveshell  # noqa: F401
    import pandas  # noqa: F401
    import timm  # noqa: F401
    import transformer_lens  # noqa: F401
    from ipykernel.kernelapp import IPKernelApp

    assert "matplotlib" not in sys.modules, "a kernel chooses where it draws before matplotlib is imported"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    while True:
        connection, _ = server.accept()
        with connection, connection.makefile() as lines:
            asked = json.loads(lines.readline())
            if os.fork() == 0:
                server.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.environ.clear()
                os.environ.update(asked["environment"])
                os.chdir(asked["folder"])
                tempfile.tempdir = None  # it was looked up in the other environment
                IPKernelApp.launch_instance(["-f", asked["connection_file"]])
                os._exit(0)


def ask(address: str, connection_file: str) -> None:
    """Have a kernel forked, and stay as long as it lives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the kernel is asked to end by a message
    environment = {name: value for name, value in os.environ.items() if name != "JPY_PARENT_PID"}  # it has another
    with socket.socket(socket.AF_UNIX) as connection:
        while connection.connect_ex(address):
            time.sleep(0.05)
        asked = {"connection_file": connection_file, "folder": str(Path.cwd()), "environment": environment}
        connection.sendall(json.dumps(asked).encode() + b"\n")
        connection.recv(1)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    ask(*sys.argv[1:])
