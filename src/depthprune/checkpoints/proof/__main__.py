"""The program of the child process: `python -m depthprune.checkpoints.proof PARENT`, which `client.py` starts."""

import os
import sys
import threading
import time

ALONE = 0.5  # seconds after which a child knows that its parent is gone


def _end_with_parent(parent: int) -> None:
    """End this process when `parent` has ended, whatever it is doing; it would end when it next reads its input.

    A thread looks, rather than Linux's PR_SET_PDEATHSIG, which kills when the thread that made the child has ended, and
    needs code to run between fork and exec, which is not safe in a program with threads.
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
