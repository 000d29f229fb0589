"""The program of the child process: `python -m depthprune.checkpoints.proof PARENT`, which `client.py` starts."""

import os
import sys
import threading
import time

ALONE = 0.5  # seconds between two checks that the parent still runs


def _end_with_parent(parent: int) -> None:
    """End this process when its parent has ended, even in the middle of a request.

    A thread polls. Linux's PR_SET_PDEATHSIG would fire when the thread that created the child ends, and needs code
    between fork and exec, which is not safe in a program with threads.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ALONE)
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":  # torch and transformers are imported once the parent is watched
    _end_with_parent(int(sys.argv[1]))
    from depthprune.checkpoints.proof.child import main

    main()
