"""What is left of an application once its listeners have ended."""

import contextlib
import gc
import weakref

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.embedded.server_process import HOST
from gateway.listeners import Listeners
from gateway.setting_values import Address
from tests.fixtures.ports import free_port


class Answers:
    """Stands for a gateway: what a handler belongs to."""

    async def answer(self, request: web.Request) -> web.Response:
        """As a handler."""
        return web.Response(text="here")


@web.middleware
async def passing(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Changes nothing."""
    return await handler(request)


async def test_who_has_ended_is_forgotten() -> None:
    """A gateway that was replaced goes, with all that it remembers, also where its handlers have been called. R346."""
    left = await served_once()
    gc.collect()
    assert left() is None


async def served_once() -> "weakref.ref[Answers]":
    """What handlers belonged to that were called, and whose listeners have been closed."""
    answers, port = Answers(), free_port()
    app = web.Application(middlewares=[passing])
    app.router.add_get("/", answers.answer)
    async with contextlib.AsyncExitStack() as stack:
        listeners = Listeners(stack)
        await listeners.serve(app, Address(HOST, port), finish_seconds=0.1)
        await listeners.open()
        async with aiohttp.request("GET", f"http://{HOST}:{port}/") as answer:
            assert await answer.text() == "here"
        await listeners.refuse(0.1)
    return weakref.ref(answers)
