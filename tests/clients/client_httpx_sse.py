"""A client with the packages `httpx` and `httpx-sse`, controlled as described in README.md: client_httpx_sse.py URL"""
import json
import os
import sys
import threading

import httpx
from httpx_sse import connect_sse


def tell(**event):
    print(json.dumps(event), flush=True)


def obey():
    for line in sys.stdin:
        if json.loads(line)["do"] == "close":
            tell(event="closed")
            os._exit(0)         # the main thread waits for the next event


threading.Thread(target=obey, daemon=True).start()
with httpx.Client(timeout=httpx.Timeout(10, read=None)) as client, connect_sse(client, "GET", sys.argv[1]) as source:
    if source.response.status_code != 200:
        tell(event="refused", status=source.response.status_code)
        sys.exit()
    tell(event="open")
    for event in source.iter_sse():
        if event.data:          # unlike a browser, it also reports a block without data, such as `retry`
            tell(event="text", text=event.data)
tell(event="lost")
