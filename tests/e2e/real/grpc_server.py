"""A server of gRPC whose messages are plain bytes. It says which release answers."""

import os
import signal
import threading
from concurrent import futures

import grpc

RELEASE = os.environ["PORTOK_RELEASE"].encode()


def unary(request, context):
    context.set_trailing_metadata((("x-end", RELEASE.decode()),))
    return RELEASE + b":" + request


def fail(request, context):
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no more")


def left(request, context):
    """How much time the caller leaves, as the server has it."""
    return b"%.3f" % context.time_remaining()


def wait(request, context):
    """Answers never; says when the caller has gone."""
    gone = threading.Event()
    context.add_callback(gone.set)
    context.send_initial_metadata(())
    gone.wait()
    print("has gone:", request.decode(), flush=True)
    yield from ()


def total(requests, context):
    return b"%d" % sum(int(request) for request in requests)


def many(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def both(requests, context):
    for request in requests:
        yield RELEASE + b":" + request


METHODS = {
    "/test.Echo/Unary": grpc.unary_unary_rpc_method_handler(unary),
    "/test.Echo/Fail": grpc.unary_unary_rpc_method_handler(fail),
    "/test.Echo/Left": grpc.unary_unary_rpc_method_handler(left),
    "/test.Echo/Wait": grpc.unary_stream_rpc_method_handler(wait),
    "/test.Echo/Total": grpc.stream_unary_rpc_method_handler(total),
    "/test.Echo/Many": grpc.unary_stream_rpc_method_handler(many),
    "/test.Echo/Both": grpc.stream_stream_rpc_method_handler(both),
    # A HealthCheckResponse whose status is SERVING.
    "/grpc.health.v1.Health/Check": grpc.unary_unary_rpc_method_handler(lambda request, context: b"\x08\x01"),
}


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        return METHODS.get(details.method)


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32), handlers=[Handler()])
    server.add_insecure_port("127.0.0.1:" + os.environ["PORT"])
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    server.start()
    ending.wait()
    server.stop(grace=5).wait()


main()
