"""A client with the packages `httpx` and `httpx-sse`, controlled as described in README.md: client_httpx_sse.py URL"""
import sys

import httpx
from httpx_sse import connect_sse

from stream import begin, obey, tell

obey()
with httpx.Client(timeout=httpx.Timeout(10, read=None)) as client, connect_sse(client, "GET", sys.argv[1]) as source:
    begin(source.response.status_code)
    for event in source.iter_sse():
        if event.data:          # unlike a browser, it also reports a block without data, such as `retry`
            tell(event="text", text=event.data)
tell(event="lost")
