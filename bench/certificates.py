"""The certificate of the listeners that speak TLS, and the authority that the load generators believe."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificate:
    """PEM files: the authority's certificate, the listener's with its chain, its key, and these two in one."""

    authority: Path
    chain: Path
    key: Path
    both: Path

    @classmethod
    def made_in(cls, folder: Path) -> "Certificate":
        """Make an authority and a certificate of it for 127.0.0.1, with keys on the curve P-256."""
        made = cls(*(folder / name for name in ("authority.pem", "chain.pem", "key.pem", "both.pem")))
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        for path in (made.key, made.both):
            path.touch(mode=0o600)
        authority.cert_pem.write_to_path(made.authority)
        issued.private_key_pem.write_to_path(made.key)
        issued.private_key_and_cert_chain_pem.write_to_path(made.both)
        made.chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return made


def client_context(authority: Path | str) -> ssl.SSLContext:
    """Return what a client needs that believes this authority alone."""
    return ssl.create_default_context(cafile=str(authority))
