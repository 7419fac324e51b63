"""Plays to begin with, and what can become of them: inputs of the target `engine`, in the language of `stage.py`."""

from collections.abc import Callable
from random import Random

from tests.fuzz import parts
from tests.fuzz.answers import answer
from tests.fuzz.stage import STEP

HEAD_END = b"\r\n\r\n"


def play(flags: int, *steps: bytes) -> bytes:
    """An input for this target."""
    return bytes([flags]) + b"".join(STEP + step for step in steps)


def ask(line: bytes, *lines: bytes, body: bytes = b"") -> bytes:
    """A request, as the step of the stranger."""
    return b"c" + HEAD_END.join((b"\r\n".join((line + b" HTTP/1.1", b"Host: a.test", *lines)), body))


KEY = b"X-Api-Key: " + parts.SECRET
WEBSOCKET = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", KEY)
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"3\r\nabc\r\n0\r\n\r\n"
SWITCHED = answer(b"s", b"GET /w HTTP/1.1\r\nHost: a\r\n" + b"\r\n".join(WEBSOCKET[1:3]) + HEAD_END)
SEEDS = [
    play(0, ask(b"GET /"), b"", b"ro"),
    play(1, ask(b"GET /k", KEY), b"", b"", b"ro", ask(b"GET /k", KEY), b"", b"rc"),
    play(2, ask(b"HEAD /k?a", b"Authorization: Bearer " + parts.SECRET), b"", b"ro"),
    play(0, ask(b"GET /k"), b"", ask(b"GET /k", b"X-Api-Key: x"), b""),
    play(0, ask(b"POST /", b"Content-Length: 5", body=b"hel"), b"", b"clo", b"ro"),
    play(0, ask(b"POST /o", CHUNKED, body=CHUNKS + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), b"", b"ro", b"", b"rn"),
    play(0, ask(b"PUT /s/a", CHUNKED, b"Expect: 100-continue"), b"", b"c" + CHUNKS, b"rqio"),
    play(0, *(ask(b"GET /%d" % n) for n in range(3)), b"", b"ro", b"", b"ro", b"", b"rk"),
    play(0, ask(b"GET /w", *WEBSOCKET), b"", b"rs", b"c\x81\x80abcd", b"u\x81\x02hi", b"k", b"t1", b"e", b"h"),
    play(0, ask(b"GET /w", b"Connection: upgrade", b"Upgrade: echo", KEY), b"", b"rs", b"cx", b"uy", b"d"),
    play(0, ask(b"GET /", b"Connection: Upgrade", b"Upgrade: h2c"), b"", b"rs"),
    play(0, ask(b"GET /w", *WEBSOCKET), b"", b"rS"),
    play(0, ask(b"GET /"), b"", b"rz", b"uabc", b"h"),
    play(0, ask(b"GET /"), b"", b"rf", b"H", ask(b"GET /")),
    play(0, ask(b"GET /"), b"", b"rf", b"", b"rg", b"t5", ask(b"GET /"), b"h", b"", b"ro"),
    play(0, b"fr", ask(b"GET /o"), b"", b"f", ask(b"GET /o"), b"", b"h", b"", b"h", b"", b"ro"),
    play(0, b"fs", ask(b"GET /"), b"t4", b"", b"t4", b"", b"f"),
    play(0, b"p", ask(b"GET /"), b"", b"rb", ask(b"GET /2"), b"P", b"", b"ro"),
    play(0, b"w", ask(b"POST /", b"Content-Length: 90", body=b"a" * 40), b"", b"w", b"c" + b"b" * 50, b"W", b"ro"),
    play(0, ask(b"POST /b", b"Content-Length: 9"), b"", ask(b"POST /b", CHUNKED, body=b"9\r\n123456789\r\n"), b""),
    play(0, ask(b"DELETE /m"), b"", ask(b"GET /k/none", KEY), b"", b"ro", ask(b"GET /%2e%2e/k")),
    play(0, ask(b"OPTIONS /p", b"Origin: https://a.test", b"Access-Control-Request-Method: PUT"), b""),
    play(0, ask(b"GET /p", b"Origin: https://a.test", KEY), b"", b"rc", ask(b"GET /p", b"Origin: https://b.test"), b""),
    play(0, ask(b"GET /"), b"C" + ask(b"GET /x", b"X-Forwarded-For: 1.1.1.1")[1:], b"", b"ro", b"o", b"ro"),
    play(
        0,
        b"cGET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"",
        b"rc",
        b"cGET / HTTP/1.0\r\n\r\n",
        b"",
        b"rz",
        b"h",
    ),
    play(0, ask(b"GET /"), b"e", b"", b"ro"),
    play(0, ask(b"GET /"), b"x", b"", b"ro"),
    play(0, ask(b"GET /k", KEY), b"", b"rf", b"k", b"t1", b"", b"rg"),
    play(0, ask(b"GET /"), b"", b"d", b"ro", ask(b"GET /")),
    play(0, b"c\r\nGE", b"t4", b"", b"cT / HTTP/1.1\r\n"),
    play(0, ask(b"GET /"), b"", b"uHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n\r\n"),
    play(0, ask(b"GET /"), b"", b"ro", b"", b"ro", ask(b"GET /"), b"", b"ro"),
    play(
        0,
        ask(b"GET /"),
        b"",
        b"uHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 ",
        ask(b"GET /"),
        b"",
    ),
    play(0, ask(b"POST /", b"Content-Length: 9"), b"", b"ro", b"", ask(b"GET /"), b"C" + ask(b"GET /")[1:], b"", b"ro"),
    play(0, ask(b"POST /", CHUNKED, body=CHUNKS), b"", b"ro", ask(b"GET /"), b"", b"ro"),
    play(0, ask(b"GET /k?a&api_key=" + parts.SECRET), b"", b"ro"),
    play(
        0, ask(b"GET /w", *WEBSOCKET[:3], b"Sec-WebSocket-Protocol: ostiary.key, " + parts.SECRET), b"", b"rs", b"uab"
    ),
    play(0, ask(b"POST /b", CHUNKED, body=b"9\r\n123456789\r\n"), b"", b"ro"),
    play(0, ask(b"GET /k", KEY, b"X-User-Id: root", b"x_plan: all"), b"", b"ro"),
    play(0, b"cGET / HTTP/1.1\r\nHost: b.test\r\n\r\n", b"cGET / HTTP/1.1\r\nHost: b.test\r\nX-Api-Key: x\r\n\r\n"),
    play(
        0,
        b"cGET /k HTTP/1.1\r\nHost: b.test\r\n" + KEY + b"\r\n\r\n",
        b"cGET /z HTTP/1.1\r\nHost: b.test\r\n" + KEY + b"\r\n\r\n",
    ),
    play(0, b"ae", ask(b"GET /k", KEY), b"", b"a", b"t1", ask(b"GET /k", KEY), b"", b"ro"),
    play(1, b"ag", ask(b"GET /k", KEY), b"", b"x", b"a", b"", ask(b"GET /k", KEY), b"av", b"", b"ro"),
    play(
        0,
        b"ag",
        ask(b"POST /k", KEY, b"Content-Length: 3", body=b"ab"),
        b"cc",
        ask(b"GET /"),
        b"a",
        b"",
        b"ro",
        b"",
        b"ro",
    ),
    play(0, b"cGET / HTTP/1.1\r\nX: " + b"a" * 1100, b""),
    play(0, b"cGET /" + b"a" * 1100, b"", b"y"),
    play(0, b"cGET / HTTP/1.1\r\n", b"e", b"cHost"),
    play(0, ask(b"POST /", b"Content-Length: 9", body=b"abc"), b"", b"cde", b"e", b"t2"),
    play(0, ask(b"GET /"), b"e", b"", b"t2"),
    play(0, b"p", b"cx\r\n", b"", b"t6", b"t6"),
    play(0, ask(b"GET /"), b"", b"rl"),
    play(0, ask(b"GET /"), b"", b"rj"),
    play(0, b"cGARBAGE\0", b"y", b""),
    play(
        0,
        ask(b"GET /w", *WEBSOCKET) + b"\x81\x80abcd",
        b"",
        b"u" + SWITCHED + b"\x81\x05he",
        b"k",
        b"t1",
        b"ullo\x81",
        b"",
    ),
    play(
        0,
        ask(b"GET /w", *WEBSOCKET),
        b"",
        b"rs",
        b"p",
        b"u\x82\x7e\x00\xff" + b"m" * 120,
        b"cab",
        b"P",
        b"w",
        b"c" + b"n" * 99,
        b"W",
    ),
    play(0, ask(b"GET /w", *WEBSOCKET), b"", b"rs", b"h", b"cab"),
    play(0, ask(b"GET /w", *WEBSOCKET), b"", b"rs", b"i", b"cab", b"e"),
    play(2, ask(b"GET /w", *WEBSOCKET), b"", b"rs", b"ua", b"t7", b"", b"t2"),
    play(
        0, b"fr", *(ask(b"GET /o/%d" % n) for n in range(9)), b"", b"t1", b"f", ask(b"GET /o"), b"", b"ro", b"", b"ro"
    ),
    play(0, ask(b"GET /n"), b"C" + ask(b"GET /n", b"X-Forwarded-For: 1.1.1.1, 10.0.0.3")[1:], b"", b"ro"),
    play(0, ask(b"GET /w", *WEBSOCKET), b"", b"rs", b"u\x82\x05he", b"k", b"t1", b"", b"t4", b"", b"ullo"),
    play(2, ask(b"GET /w", *WEBSOCKET), b"", b"rs", b"u\x82\x05he", b"d", b"ullo\x81\x01a", b"ca"),
    play(0, ask(b"POST /", b"Content-Length: 9", body=b"abc"), b"", b"e", b"cde"),
    play(0, b"p", ask(b"GET /"), b"", b"rb", b"cGARBAGE\n\n", b"t6", b"", b"t6", b""),
    play(0, ask(b"GET /"), b"", b"uHTTP/1.1 200 OK\n\n"),
    play(0, ask(b"GET /"), b"", b"uHTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n\r\n5\nhello"),
    play(0, b"cTRACE / HTTP/1.1\r\nHost: a\r\n\r\n"),
    play(0, ask(b"GET /") + b"GET /2", b"e", b"", b"ro"),
    play(0, b"ag", ask(b"POST /k", KEY, b"Content-Length: 9", body=b"abc"), b"e", b"a", b""),
    play(0, ask(b"POST /", b"Content-Length: 3", body=b"abc\r\n"), b"", b"ro", b"", b"t4", b"", b"t0"),
    play(0, b"c\r", b"c\n", b"t4", b""),
    play(0, ask(b"GET http://shop.test/k/shop"), b"", b"r1", ask(b"OPTIONS *"), b"", b"ro"),
]
TOKENS = [
    *(
        STEP + letter
        for letter in (b"c", b"C", b"ae", b"ag", b"ro", b"rc", b"rk", b"rs", b"u", b"h", b"H", b"e", b"x", b"t1", b"t5")
    ),
    *(STEP + step for step in (b"", b"p", b"P", b"w", b"W", b"o", b"fr", b"fs", b"f", b"k", b"d", b"rf", b"rg", b"rz")),
    *(ask(b"GET /"), ask(b"GET /k", KEY), ask(b"GET /w", *WEBSOCKET), ask(b"POST /", CHUNKED, body=CHUNKS)),
    *(b"Content-Length: 5\r\n", CHUNKED + b"\r\n", b"0\r\n\r\n", b"Expect: 100-continue\r\n", KEY + b"\r\n"),
    *(b"Connection: close\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"/k", b"/o", b"/s/", b"/b", b"/m", b"/w", b"/p"),
]
STEPS = sorted({step for seed in SEEDS for step in seed.split(STEP)[1:]})


def mutate(data: bytes, most_bytes: int, seed: int, scramble: Callable[[bytes, int], bytes]) -> bytes:
    """Another play: a step more or less, elsewhere, in two pieces, or with other bytes. `scramble` knows no steps."""
    random = Random(seed)
    flags, *steps = data.split(STEP)
    if not steps or random.random() < 0.2:
        return scramble(data, most_bytes)
    for _ in range(random.choice((1, 1, 2, 4))):
        place = random.randrange(len(steps))
        step = steps[place]
        match random.randrange(6):
            case 0:
                steps.insert(place, random.choice(STEPS))
            case 1 if len(steps) > 1:
                del steps[place]
            case 2:
                steps.insert(random.randrange(len(steps) + 1), steps.pop(place))
            case 3 if len(step) > 2:
                cut = random.randrange(1, len(step))
                steps[place : place + 1] = [step[:cut], step[:1] + step[cut:]]
            case 4 if place + 1 < len(steps) and steps[place + 1][:1] == step[:1]:
                steps[place : place + 2] = [step + steps[place + 1][1:]]
            case _:
                steps[place] = step[:1] + scramble(step[1:], len(step) + 16).replace(STEP, b"")
    return STEP.join((flags, *steps))[:most_bytes]
