"""pushd on a Debian with systemd as it boots, installed and run as an operator does it.

    run.py INIT ROOT DEB

INIT is the first process of the machine, ROOT its files, DEB the package. `.ci/machine` boots the machine and calls this in
its network. Each scene is a function in one of the files that `SCENES` is made of: it is told as one line, and starts from the
service as installed, so another is added by writing it and putting it into its file's list. Every wait is for a condition,
until a deadline. The last line counts; a failure shows the end of the journal and exits 1.
"""
import sys
import time
import traceback

import crowd
import lifecycle
import package
import upgrades
import variants
import watching
from machine import Machine

SCENES = [*package.ARRIVAL, *lifecycle.SCENES, *variants.SCENES, *watching.SCENES, *crowd.SCENES, *package.UPGRADE, *upgrades.SCENES,
          *package.DEPARTURE]


def place(error):
    """Where a scene went wrong: the deepest line of it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    return ", ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in frames[:2])


def main():
    init, root, deb = sys.argv[1:]
    machine = Machine(init, root)
    package.receive(machine, deb)
    held = failed = 0
    for title, scene in SCENES:
        began, cursor = time.monotonic(), machine.cursor()
        try:
            scene(machine)
        # Whatever it is: the other scenes are worth seeing too.
        except Exception as error:
            failed += 1
            print(f"FAIL  {title}: {error} ({type(error).__name__}, {place(error)})\n---- the journal", flush=True)
            print(f"{machine.tail(cursor)}----", flush=True)
        else:
            held += 1
            print(f"ok    {title} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{held} scenes hold, {failed} do not")
    sys.exit(1 if failed or not held else 0)


if __name__ == "__main__":
    main()
