"""The public listener's certificate: loaded, and loaded again when its files change. Open connections keep theirs."""

import asyncio
import ssl
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509

log = structlog.get_logger(__name__)

WATCH_SECONDS: Final = 2.0


def end_of(certificate: Path) -> float:
    """When the first certificate of a PEM file ends (epoch seconds). Raises OSError for a file that holds none."""
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc.timestamp()
    except ValueError as error:
        raise OSError(f"{certificate} holds no certificate: {error}") from error


class ServerCertificate:
    """A TLS context that follows its files. `context` is given to the listener once and for all.

    `ends_at` is when the certificate ends that it shows (epoch seconds).
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.set_alpn_protocols(["http/1.1"])
        self._seen = self._changed_at()
        self._load()
        self._task: asyncio.Task[None] | None = None

    def _load(self) -> None:
        self.context.load_cert_chain(self._certificate, self._key)
        self.ends_at = end_of(self._certificate)

    def _changed_at(self) -> tuple[int, int]:
        return self._certificate.stat().st_mtime_ns, self._key.stat().st_mtime_ns

    async def start(self) -> None:
        """Begin to watch the files."""
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                changed_at = self._changed_at()
                if changed_at == self._seen:
                    continue
                # Remembered before loading: a pair that does not fit is told once, and tried again when it changes.
                self._seen = changed_at
                # Tried on a context of its own first: a pair that does not fit must not take the old one away.
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self._certificate, self._key)
                self._load()
                log.info("certificate_reloaded", certificate=str(self._certificate))
            except OSError as error:
                log.error("certificate_not_reloaded", certificate=str(self._certificate), error=str(error))
