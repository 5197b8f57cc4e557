"""A client with the packages `httpx` and `httpx-sse`, controlled as described in README.md: client_httpx_sse.py URL [LAST_EVENT_ID]"""
import sys

import httpx
from httpx_sse import connect_sse

from stream import begin, obey, tell

obey()
headers = {"Last-Event-ID": sys.argv[2]} if len(sys.argv) > 2 else {}
with httpx.Client(timeout=httpx.Timeout(10, read=None)) as client, connect_sse(client, "GET", sys.argv[1], headers=headers) as source:
    begin(source.response.status_code)
    for event in source.iter_sse():
        if event.data:          # unlike a browser, it also reports a block without data, such as `retry`
            tell(event="text", text=event.data, id=event.id)
tell(event="lost")
