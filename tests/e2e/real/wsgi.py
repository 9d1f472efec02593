"""A WSGI app for gunicorn: says which worker answers, and sends a body back."""

import os
import time


def app(environ, start_response):
    if environ["REQUEST_METHOD"] == "POST":
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    else:
        while environ["PATH_INFO"] == "/slow" and not os.path.exists(os.environ["GO_ON"]):
            time.sleep(0.02)
        body = b"%d\n" % os.getpid()
    fields = [("Content-Length", str(len(body))), ("X-Version", os.environ["PORTOK_RELEASE"])]
    start_response("200 OK", fields)
    return [body]
