"""One app for servers of ASGI and of WSGI: answers a GET with its release, `/slow` with the same
three times and a pause between, and a POST with its body."""

import asyncio
import os
import time

RELEASE = os.environ["PORTOK_RELEASE"].encode()
LINE = RELEASE + b"\n"


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            asked = (await receive())["type"]
            await send({"type": asked + ".complete"})
            if asked == "lifespan.shutdown":
                return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-version", RELEASE)]})
    if scope["path"] == "/slow":
        for _ in range(2):
            await send({"type": "http.response.body", "body": LINE, "more_body": True})
            await asyncio.sleep(0.1)
    await send({"type": "http.response.body", "body": body if scope["method"] == "POST" else LINE})


def wsgi(environ, start_response):
    start_response("200 OK", [("X-Version", RELEASE.decode())])
    if environ["REQUEST_METHOD"] == "POST":
        # A body over HTTP/2 need not say its length before.
        return [environ["wsgi.input"].read()]
    return slowly() if environ["PATH_INFO"] == "/slow" else [LINE]


def slowly():
    for number in range(3):
        if number:
            time.sleep(0.1)
        yield LINE
