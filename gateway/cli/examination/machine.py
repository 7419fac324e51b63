"""Certificates on file, whose word on clients is believed, and how many files may be open."""

import resource
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from gateway.cli.examination.finding import Finding
from gateway.settings import Settings

SOON_DAYS: Final = 14
FEW_FILES: Final = 4096
SPARE_FILES: Final = 200  # stores, logs, the listeners
WIDE_PREFIXES: Final = {4: 8, 6: 16}


def certificate_findings(settings: Settings) -> list[Finding]:
    """The certificates that are named in the configuration: readable, with their key, and in time."""
    found: list[Finding] = []
    tls = settings.listen.tls
    if tls is not None:
        found += _pair("listen.tls", tls.cert, tls.key)
    for name, upstream in settings.upstreams.items():
        if upstream.tls is not None and upstream.tls.cert is not None and upstream.tls.key is not None:
            found += _pair(f"upstream.{name}.tls", upstream.tls.cert, upstream.tls.key)
    return found


def _pair(check: str, cert: str, key: str) -> Iterator[Finding]:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
        first = x509.load_pem_x509_certificates(Path(cert).read_bytes())[0]
    except (OSError, ValueError, IndexError) as error:
        cure = "Name a readable PEM file each, that fit together."
        yield Finding.failed(check, f"{cert} and {key}: {getattr(error, 'strerror', None) or error}", cure)
        return
    yield from _expiry(check, first, cert)


def expiry_finding(check: str, der: bytes, of: str) -> list[Finding]:
    """Whether a certificate is in time, if it can be read."""
    try:
        return list(_expiry(check, x509.load_der_x509_certificate(der), of))
    except ValueError:
        return []


def _expiry(check: str, certificate: x509.Certificate, of: str) -> Iterator[Finding]:
    now = datetime.now(UTC)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    days = (ends - now).total_seconds() / 86_400
    if now < begins:
        cure = "Set this machine's clock, or use a certificate that is valid already."
        yield Finding.failed(check, f"{of} is not valid before {begins:%Y-%m-%d %H:%M} UTC", cure)
    elif days <= 0:
        cure = "Renew it; a file that is replaced is taken up without a restart."
        yield Finding.failed(check, f"{of} has expired at {ends:%Y-%m-%d %H:%M} UTC", cure)
    elif days < SOON_DAYS:
        yield Finding.warning(check, f"{of} expires in {days:.1f} days", "Renew it now.")
    else:
        yield Finding.ok(check, f"{of} is valid for {days:.0f} days")


def proxy_findings(settings: Settings) -> list[Finding]:
    """Whose word on their clients is believed."""
    proxies = settings.trusted_proxies
    if not proxies:
        text = "none: a client is who the socket says; behind a load balancer all clients are one address"
        return [Finding.ok("trusted_proxies", text)]
    wide = [str(one) for one in proxies if one.prefixlen < WIDE_PREFIXES[one.version]]
    if wide:
        cure = "Name your proxies alone: whoever is in these networks may say to be any client."
        return [Finding.warning("trusted_proxies", f"very wide: {', '.join(wide)}", cure)]
    return [Finding.ok("trusted_proxies", f"{', '.join(map(str, proxies))}, by {settings.trusted_header}")]


def file_findings(settings: Settings) -> list[Finding]:
    """How many files a process started here may have open: each connection is one, to either side."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = settings.client.connection_limit
    wanted = FEW_FILES if limit is None else 2 * limit + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        cure = f"`ulimit -n {max(65_536, wanted)}`, or LimitNOFILE= of the service."
        return [Finding.warning("open_files", f"{soft} at most, of a process started here; {wanted} are wanted", cure)]
    many = "any number" if soft == resource.RLIM_INFINITY else f"{soft} at most"
    return [Finding.ok("open_files", f"{many}, of a process started here")]
