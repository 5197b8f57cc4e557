"""What the Python clients of event streams share: they print events, and accept the order to close. README.md describes both."""
import json
import os
import sys
import threading


def tell(**event):
    print(json.dumps(event), flush=True)


def close_process():
    tell(event="closed")
    os._exit(0)             # the main thread waits for the next event


def obey(close=close_process):
    """Calls `close`, in another thread, when that is ordered."""
    def read():
        for line in sys.stdin:
            if json.loads(line)["do"] == "close":
                return close()
    threading.Thread(target=read, daemon=True).start()


def begin(status):
    """Reports the status of the response. If it is not 200, the client ends."""
    if status != 200:
        tell(event="refused", status=status)
        sys.exit()
    tell(event="open")
