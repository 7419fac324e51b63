"""Whether two kinds of measurements differ, by what the same measurements tell of their own noise."""

import math
import random
import socket
import statistics
import time
from collections.abc import Mapping, Sequence

from gateway.embedded.server_process import HOST

WARM_UP = 50
# Standard deviations of what chance does to the ranks; it goes so far once in a million measurements.
FURTHEST_BY_CHANCE = 5.0

Measured = Mapping[str, Sequence[float]]  # the seconds of each kind


def measure(port: int, requests: Mapping[str, Sequence[bytes]], seed: int) -> Measured:
    """Send all requests one by one on one connection, kinds in random order, and time each reply. Blocks."""
    chance = random.Random(seed)
    order = [(kind, request) for kind, sent in requests.items() for request in sent]
    chance.shuffle(order)
    measured: dict[str, list[float]] = {kind: [] for kind in requests}
    with socket.create_connection((HOST, port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, (kind, request) in enumerate(order):
            began = time.perf_counter()
            connection.sendall(request)
            reply = connection.recv(65_536)
            seconds = time.perf_counter() - began
            assert reply.startswith(b"HTTP/1.1 401 "), reply
            if number >= WARM_UP:
                measured[kind].append(seconds)
    return measured


def differs(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether one kind is slower than chance makes it look.

    Compared are the ranks among all measurements (Wilcoxon). Since kinds were in random order, load on the machine puts
    either anywhere with the same probability, however it comes and goes, and no absolute time means anything.
    """
    count, whole = len(one), len(one) + len(other)
    by_time = sorted(range(whole), key=[*one, *other].__getitem__)
    ranks = sum(rank for rank, number in enumerate(by_time) if number < count)
    expected = count * (whole - 1) / 2
    deviation = math.sqrt(count * len(other) * (whole + 1) / 12)
    return abs(ranks - expected) > FURTHEST_BY_CHANCE * deviation


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """By which factor the slower kind is slower, in the middle."""
    medians = statistics.median(one), statistics.median(other)
    return max(medians) / min(medians)
