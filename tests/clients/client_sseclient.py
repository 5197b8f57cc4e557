"""A client with the packages `requests` and `sseclient-py`, controlled as described in README.md: client_sseclient.py URL"""
import sys

import requests
import sseclient

from stream import begin, obey, tell

obey()
response = requests.get(sys.argv[1], headers={"Accept": "text/event-stream"}, stream=True, timeout=(10, None))
begin(response.status_code)
for event in sseclient.SSEClient(response).events():
    if event.data:
        tell(event="text", text=event.data)
tell(event="lost")
