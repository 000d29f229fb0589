"""Proofs of streamed cuts without the seconds of imports before each: forks of one process that has imported them.

`depthprune drop` starts a child process that imports torch and transformers, about four seconds of a core. Where a
hundred tests cut a checkpoint, one process imports them, and each proof is a fork of it, as fresh as a child of its
own: it runs the same program on the same pipes, in the environment and folder of whoever started it. `cold_proofs` is
the fixture of tests that want the program of the package itself, and commands in processes of their own always run it.

    python warm_proofs.py serve FD        the process that is forked; FD: its listening socket
    python warm_proofs.py relay ADDRESS   what stands for the child: hands its pipes to a fork, ends when that ends
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

PIPES = (0, 1, 2)
POLL = 1.0  # seconds between two looks whether the tests still run


class WarmProofs:
    """The process that is forked; it starts with the first proof."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="depthprune-proofs-")
        self._server: subprocess.Popen[bytes] | None = None

    def program(self, parent: int) -> list[str]:
        """Return what to start in the place of `python -m depthprune.checkpoints.proof PARENT`."""
        address = str(Path(self._folder.name) / "socket")
        if self._server is None:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(address)
                listener.listen()  # who connects before the imports are done waits
                self._server = subprocess.Popen(
                    [sys.executable, __file__, "serve", str(listener.fileno())],
                    pass_fds=[listener.fileno()],
                    env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
                    start_new_session=True,
                )
        return [sys.executable, "-S", "-E", __file__, "relay", address]

    def close(self) -> None:
        """End the process."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
        self._folder.cleanup()


def serve(listener: socket.socket) -> None:
    """Fork a proof for each connection, until the tests end."""
    from depthprune.checkpoints.proof.child import main

    parent = os.getppid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    listener.settimeout(POLL)
    while os.getppid() == parent:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        with connection:
            said, pipes, _, _ = socket.recv_fds(connection, 1 << 20, len(PIPES))
            if os.fork() == 0:
                _prove(main, connection, json.loads(said), pipes)
            for pipe in pipes:
                os.close(pipe)


def _prove(main, connection: socket.socket, whose, pipes: list[int]) -> None:
    """Be the child process of a proof."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for pipe, number in zip(pipes, PIPES, strict=True):
        os.dup2(pipe, number)
        os.close(pipe)
    os.environ.clear()
    os.environ.update(whose["environment"])
    os.chdir(whose["folder"])
    connection.settimeout(None)

    def end_with_the_relay() -> None:
        connection.recv(1)
        os._exit(1)

    threading.Thread(target=end_with_the_relay, daemon=True).start()
    status = 1
    try:
        main()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(bytes([status]))
        os._exit(status)


def relay(address: str) -> int:
    """Hand this process's pipes to a fork and return its status."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        whose = json.dumps({"environment": dict(os.environ), "folder": os.getcwd()}).encode()
        socket.send_fds(connection, [whose], PIPES)
        for pipe in PIPES:  # the fork alone holds them, so that who reads them sees it end
            os.close(pipe)
        status = connection.recv(1)
        return status[0] if status else 1


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(socket.socket(fileno=int(sys.argv[2])))
    else:
        sys.exit(relay(sys.argv[2]))
