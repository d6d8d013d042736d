"""Runs a module as ``python -m`` does, and asks itself to stop when its parent is gone.

    python -m stages._child MODULE ARGUMENTS...

A parent that was killed can hand no signal on, and a training without one would hold its folder.
"""

import os
import runpy
import signal
import sys
import threading
import time

EVERY = 0.5
"""Seconds between looks at the parent."""


def main() -> None:
    """Run the module that the first argument names."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(EVERY)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
