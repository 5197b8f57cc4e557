"""A client with the packages `requests` and `sseclient-py`, controlled as described in README.md: client_sseclient.py URL"""
import json
import os
import sys
import threading

import requests
import sseclient


def tell(**event):
    print(json.dumps(event), flush=True)


def obey():
    for line in sys.stdin:
        if json.loads(line)["do"] == "close":
            tell(event="closed")
            os._exit(0)         # the main thread waits for the next event


threading.Thread(target=obey, daemon=True).start()
response = requests.get(sys.argv[1], headers={"Accept": "text/event-stream"}, stream=True, timeout=(10, None))
if response.status_code != 200:
    tell(event="refused", status=response.status_code)
    sys.exit()
tell(event="open")
for event in sseclient.SSEClient(response).events():
    if event.data:
        tell(event="text", text=event.data)
tell(event="lost")
