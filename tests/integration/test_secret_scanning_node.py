"""A report of GitHub's at a real node: the leaked key is dead on the data plane when the reply comes."""

import json

import aiohttp

from tests.conftest import StartGateway
from tests.fixtures.github import github_running, signed
from tests.fixtures.planted import plant


async def test_a_reported_key_is_refused_at_once(gateway: StartGateway, postgres_dsn: str) -> None:
    """Configured by the file, without any admin token; warm in two nodes before. R221, R280."""
    caller = await plant(postgres_dsn)
    async with github_running() as github:
        changes = {"github_secret_scanning": {"public_keys_url": github.url}}
        nodes = [await gateway(changes), await gateway(changes)]
        async with aiohttp.ClientSession() as session:

            async def statuses() -> list[int]:
                found = []
                for node in nodes:
                    headers = {"X-Api-Key": caller.secret}
                    async with session.get(f"{node.proxy_url}/orders/1", headers=headers) as response:
                        found.append(response.status)
                return found

            assert await statuses() == await statuses() == [200, 200]
            raw = json.dumps([{"token": caller.secret, "type": "t", "url": "", "source": "commit"}]).encode()
            url = f"{nodes[0].admin_url}/v1/secret-scanning/github"
            async with session.post(url, data=raw, headers=signed(github.key, raw)) as response:
                assert [one["label"] for one in await response.json()] == ["true_positive"]
            assert await statuses() == [401, 401]
        assert not any(caller.secret in node.log for node in nodes)
