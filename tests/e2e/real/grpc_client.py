"""A client of gRPC:

    python3 grpc_client.py ADDRESS WHAT [CA_FILE]

`ways` makes each kind of call once, `load` calls until its input ends, `refused` expects a refusal.
With an authority's certificate it speaks TLS, and means the host a.test.
"""

import json
import sys
import threading

import grpc

LONG = 60


class Echo:
    def __init__(self, addr, *authority):
        if authority:
            with open(*authority, "rb") as file:
                trusted = grpc.ssl_channel_credentials(file.read())
            named = [("grpc.ssl_target_name_override", "a.test")]
            self.channel = grpc.secure_channel(addr, trusted, named)
        else:
            self.channel = grpc.insecure_channel(addr)
        self.unary = self.channel.unary_unary("/test.Echo/Unary")
        self.fail = self.channel.unary_unary("/test.Echo/Fail")
        self.left = self.channel.unary_unary("/test.Echo/Left")
        self.wait = self.channel.unary_stream("/test.Echo/Wait")
        self.total = self.channel.stream_unary("/test.Echo/Total")
        self.many = self.channel.unary_stream("/test.Echo/Many")
        self.both = self.channel.stream_stream("/test.Echo/Both")


def talk(echo, words):
    """Each word is sent when the one before has come back."""
    back = threading.Semaphore(1)
    calls = []

    def say():
        for word in words:
            back.acquire()
            yield word

    for answer in echo.both(say(), timeout=LONG):
        calls.append(answer)
        back.release()
    return calls


def ways(echo):
    answer, call = echo.unary.with_call(b"hello", timeout=LONG)
    release = answer.split(b":")[0]
    assert answer == release + b":hello", answer
    assert dict(call.trailing_metadata())["x-end"] == release.decode()
    large = b"x" * 3_000_000
    assert echo.unary(large, timeout=LONG) == release + b":" + large
    try:
        echo.fail(b"", timeout=LONG)
        raise AssertionError("it does not fail")
    except grpc.RpcError as error:
        assert (error.code(), error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "no more"), error
    # What it says is rounded up.
    assert 30 < float(echo.left(b"", timeout=LONG)) < LONG + 1
    assert echo.total(iter(b"%d" % number for number in range(100)), timeout=LONG) == b"4950"
    assert [int(number) for number in echo.many(b"500", timeout=LONG)] == list(range(500))
    words = [b"%d" % number for number in range(50)]
    assert talk(echo, words) == [release + b":" + word for word in words]
    call = echo.wait(b"cancelled", timeout=LONG)
    # With that the server has it.
    call.initial_metadata()
    call.cancel()
    try:
        next(echo.wait(b"late", timeout=0.3))
        raise AssertionError("it answers")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error


def load(echo):
    over = threading.Event()
    seen, failed, lock = {}, [], threading.Lock()

    def call(number):
        while not over.is_set():
            try:
                if number % 4:
                    answers = [echo.unary(b"x" * 1000, timeout=LONG)]
                else:
                    answers = talk(echo, [b"a", b"b", b"c"])
                releases = {answer.split(b":")[0].decode() for answer in answers}
                with lock:
                    for release in releases:
                        seen[release] = seen.get(release, 0) + 1
                    if len(releases) != 1:
                        failed.append("a call has several releases: %s" % releases)
            except grpc.RpcError as error:
                with lock:
                    failed.append("%s: %s" % (error.code(), error.details()))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    print(json.dumps({"seen": seen, "failed": failed}))


def refused(echo):
    try:
        echo.unary(b"", timeout=LONG)
        raise AssertionError("it answers")
    except grpc.RpcError as error:
        print(error.code().name, error.details())


{"ways": ways, "load": load, "refused": refused}[sys.argv[2]](Echo(sys.argv[1], *sys.argv[3:]))
