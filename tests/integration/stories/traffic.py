"""Callers who do not pause while something is done to their keys."""

import asyncio
from collections.abc import Sequence

from tests.fixtures.waiting import until
from tests.integration.stories.world import Answer, World


class Traffic:
    """Callers who never stop asking every node with the same secrets, while the block runs."""

    def __init__(self, world: World, secrets: Sequence[str], *, callers: int = 2) -> None:
        self.answers: list[Answer] = []
        self._world = world
        self._secrets = secrets
        self._callers = callers
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Traffic":
        for node in range(len(self._world.nodes)):
            self._tasks += [asyncio.create_task(self._call(node)) for _ in range(self._callers)]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def _call(self, node: int) -> None:
        while not self._is_over:
            for secret in self._secrets:
                self.answers.append(await self._world.ask(node, secret))

    async def goes_on(self, answers: int) -> None:
        """Return once every node has answered so many more requests."""
        wanted = {node: self._count(node) + answers for node in range(len(self._world.nodes))}
        await until(lambda: all(self._count(node) >= count for node, count in wanted.items()), what="more traffic")

    def _count(self, node: int) -> int:
        return sum(answer.node == node for answer in self.answers)
