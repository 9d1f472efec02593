"""Clients over TLS, the standard library's by HTTP/1.1 and httpx by HTTP/2, that ask several hosts
at one address until standard input ends:

    python3 tls_clients.py ADDRESS CA_FILE HOST...

Prints how many answers each client had of which release of a host, and what failed: one JSON object
a line."""

import asyncio
import http.client
import itertools
import json
import socket
import ssl
import sys
import threading
import time

import httpx

ADDRESS, AUTHORITY, *HOSTS = sys.argv[1:]
IP, PORT = ADDRESS.split(":")
PAUSE = 0.04

# Every host is at the one address.
of_system = socket.getaddrinfo
socket.getaddrinfo = lambda host, *more, **named: of_system(IP, *more, **named)

answered, failed, lock = {}, [], threading.Lock()
over = threading.Event()


def terms():
    return ssl.create_default_context(cafile=AUTHORITY)


def rounds():
    """What is asked for in turn: method, path, body."""
    bodies = [str(length).encode() * length for length in (64, 5000, 100_000)]
    return itertools.cycle([("GET", "/", None), ("GET", "/slow", None)] + [("POST", "/", body) for body in bodies])


def check(client, host, asked, status, release, text):
    method, path, body = asked
    line = (release or "").encode() + b"\n"
    if status == 200 and text == (body or (line * 3 if path == "/slow" else line)):
        row = "%s %s %s" % (client, host, release)
        with lock:
            answered[row] = answered.get(row, 0) + 1
    else:
        fail(client, host, asked, "%s of %s: %s" % (status, release, text[:300]))


def fail(client, host, asked, why):
    with lock:
        failed.append("%s %s: %s %s: %s" % (client, host, *asked[:2], why))


def standard(host):
    kept, context = None, terms()
    for number, asked in enumerate(rounds()):
        if over.is_set():
            return
        try:
            kept = kept or http.client.HTTPSConnection(host, int(PORT), context=context, timeout=30)
            kept.request(*asked)
            answer = kept.getresponse()
            check("python-http.client", host, asked, answer.status, answer.getheader("x-version"), answer.read())
        except Exception as error:
            fail("python-http.client", host, asked, repr(error))
            kept = None
        # Now and then another connection.
        if kept and number % 7 == 0:
            kept.close()
            kept = None
        time.sleep(PAUSE)


async def by_httpx(client, host):
    for asked in rounds():
        if over.is_set():
            return
        method, path, body = asked
        try:
            answer = await client.request(method, "https://%s:%s%s" % (host, PORT, path), content=body)
            assert answer.http_version == "HTTP/2", answer.http_version
            check("python-httpx", host, asked, answer.status_code, answer.headers.get("x-version"), answer.content)
        except Exception as error:
            fail("python-httpx", host, asked, repr(error))
        await asyncio.sleep(PAUSE)


async def all_by_httpx():
    async with httpx.AsyncClient(http2=True, verify=terms(), timeout=30, trust_env=False) as client:
        await asyncio.gather(*(by_httpx(client, host) for host in HOSTS for _ in range(2)))


def tell(**more):
    with lock:
        print(json.dumps({"answered": answered, "failed": failed, **more}), flush=True)


def telling():
    while not over.wait(0.05):
        tell()


threads = [threading.Thread(target=standard, args=(host,)) for host in HOSTS]
threads.append(threading.Thread(target=lambda: asyncio.run(all_by_httpx())))
for thread in threads + [threading.Thread(target=telling)]:
    thread.start()
sys.stdin.read()
over.set()
for thread in threads:
    thread.join()
tell(ended=True)
