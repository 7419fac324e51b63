"""Access tokens, signing keys and admin tokens: what callers and operators do to them, by call and by command."""

import asyncio
import random
import re
import sys
import time

import aiohttp
import jwt

from tests.chaos.cast import AdminToken, Cast, Key, Signer, Token
from tests.chaos.stage import Stage
from tests.chaos.tally import Tally
from tests.chaos.traffic import Traffic

TOKEN_SECONDS = 86_400
MINT_SECONDS = 5.0
COMMAND_SECONDS = 60.0
SETTLED_SECONDS = 180.0
FAILURE = re.compile(r"^ostiary: (\w+):", re.MULTILINE)


class TokenChanges:
    """One writer's hands on them. Whoever calls holds what is changed."""

    def __init__(self, stage: Stage, traffic: Traffic, cast: Cast, tally: Tally, *, seed: str) -> None:
        self._stage = stage
        self._traffic = traffic
        self._cast = cast
        self._tally = tally
        self._random = random.Random(seed)

    async def mint(self, key: Key) -> None:
        """A token of the key's current secret, if some node gives one just now."""
        bound = key.secrets[-1]
        url = f"{self._random.choice(self._stage.nodes).process.proxy_url}/.ostiary/tokens"
        timeout = aiohttp.ClientTimeout(total=MINT_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers={"X-Api-Key": bound.text}) as http,
                http.post(url, json={"expires_in": TOKEN_SECONDS}) as response,
            ):
                if response.status != 201:
                    return
                text = (await response.json())["token"]
        except (aiohttp.ClientError, TimeoutError):
            return
        signer_id = jwt.get_unverified_header(text)["kid"]
        signer = self._cast.signers.get(signer_id)
        if signer is None:
            signer = self._cast.signers[signer_id] = Signer(signer_id)
            signer.valid.opened(time.monotonic())
        token = Token(text, key, bound=bound, signer=signer)
        bound.tokens.append(token)
        # A signing key that was withdrawn meanwhile has taken it along.
        (self._cast.gone if signer.is_gone else self._cast.secrets).append(token)
        self._traffic.watch([token])

    async def withdraw(self, signer: Signer) -> None:
        """Whatever it has signed is refused; another one signs from now on."""
        signer.valid.closing("signing key withdrawn")
        at = await self._command("signing key withdrawn", "signing-keys", "withdraw", signer.name)
        signer.valid.closed(at)
        tokens = self._cast.tokens_of(signer)
        self._cast.remove_signer(signer)
        self._traffic.watch(tokens)

    async def revoke_admin_token(self, token: AdminToken) -> None:
        """For good."""
        token.valid.closing("admin token revoked")
        token.valid.closed(await self._command("admin token revoked", "admin-token", "revoke", token.id))
        self._cast.admin_tokens.remove(token)
        self._cast.admin_tokens_gone.append(token)

    async def _command(self, what: str, *arguments: str) -> float:
        """`ostiary ...`, repeated until it is done; when it was, on the monotonic clock."""
        began = time.monotonic()
        attempts = 0
        while time.monotonic() < began + SETTLED_SECONDS:
            attempts += 1
            failure = await self._failure(*arguments)
            now = time.monotonic()
            if failure is None or (attempts > 1 and failure == "already_withdrawn"):
                self._tally.narrowed(what, now - began)
                return now
            self._tally.changes[what].pending += failure == "revocation_pending"
            self._tally.repeated_calls += failure != "revocation_pending"
        raise AssertionError(f"{what} was not done in {SETTLED_SECONDS} s; {self._stage.weather()}")

    async def _failure(self, *arguments: str) -> str | None:
        """The code of a command's failure, `unavailable` where it tells none; None where there is none."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", *arguments, "-c", str(self._stage.command_config)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                _, stderr = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        told = FAILURE.search(stderr.decode())
        assert b"Traceback" not in stderr, stderr.decode()
        return None if process.returncode == 0 else told[1] if told else "unavailable"
