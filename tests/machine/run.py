"""Installs pushd in a booted Debian with systemd, and operates it as an administrator would.

    run.py INIT ROOT DEB

INIT is the first process of the machine, ROOT the directory of its files, DEB the package. `.ci/machine` boots the machine and runs
this program in its network. Each scene is a function; the lists of scenes are at the ends of the other files. A scene prints one
line, and starts from the service as installed, so scenes do not depend on each other. To add one, write a function and put it into
the list of its file. Every wait is for a condition, with a deadline. The last line gives the totals. When a scene fails, the end of
the journal is printed, and the exit status is 1.
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
    """The lines at which a scene failed."""
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
        # After any error the other scenes still run.
        except Exception as error:
            failed += 1
            print(f"FAIL  {title}: {error} ({type(error).__name__}, {place(error)})\n---- the journal", flush=True)
            print(f"{machine.tail(cursor)}----", flush=True)
        else:
            held += 1
            print(f"ok    {title} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{held} scenes passed, {failed} failed")
    sys.exit(1 if failed or not held else 0)


if __name__ == "__main__":
    main()
