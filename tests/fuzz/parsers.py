"""Every reader of what comes from outside, and the target that fuzzes it.

`test_parsers.py` runs the targets and sees that each reader is called; and that no module reads anything that is not
told of here.
"""

from typing import Final, NamedTuple


class Reader(NamedTuple):
    """A function that is given what others have written, and the target that calls it."""

    what: str
    place: str  # module:qualified name
    target: str


READERS: Final = (
    Reader("request line and header section", "gateway.proxy.request_head:RequestReader.read", "request_heads"),
    Reader("what a connection remembers of them", "gateway.proxy.remembered:Remembered.said_by", "request_heads"),
    Reader("Content-Length", "gateway.proxy.framing:content_length", "request_heads"),
    Reader("Transfer-Encoding", "gateway.proxy.framing:is_chunked", "request_heads"),
    Reader("absolute request targets", "gateway.proxy.request_head:reduce_target", "request_heads"),
    Reader("Host", "gateway.proxy.request_head:check_authority", "request_heads"),
    Reader("keys in a query", "gateway.proxy.places:Places.take_from_query", "request_heads"),
    Reader("keys among subprotocols", "gateway.proxy.places:Places.take_from_protocols", "request_heads"),
    Reader("X-Forwarded-For and its kin", "gateway.proxy.edge:read_x_forwarded", "request_heads"),
    Reader("Forwarded", "gateway.proxy.edge:read_forwarded", "request_heads"),
    Reader("chunks, extensions and trailers", "gateway.proxy.framing:ChunkedBody.feed", "chunked_bodies"),
    Reader("paths", "gateway.proxy.router:Router.match", "paths"),
    Reader("status lines and heads of replies", "gateway.proxy.response_head:ResponseReader.read", "replies"),
    Reader("offers of another protocol", "gateway.proxy.tunnel:handshake", "engine"),
    Reader("their acceptance", "gateway.proxy.tunnel:Handshake.is_answered_by", "engine"),
    Reader("WebSocket frames", "gateway.proxy.tunnel:FrameBoundary.feed", "frames"),
    Reader("PROXY headers, both kinds", "gateway.proxy.proxy_protocol:read_header", "proxy_headers"),
    Reader("credentials in headers", "gateway.auth.credentials:CredentialReader.read", "credentials"),
    Reader("secrets", "gateway.auth.secrets:SecretFormat.is_well_formed", "credentials"),
    Reader("access tokens: the head", "gateway.auth.signing:signer_of", "tokens"),
    Reader("access tokens: the claims", "gateway.auth.tokens:TokenVerifier.verify", "tokens"),
    Reader("requests that proxies ask about", "gateway.proxy.naming:Naming.named", "asking_proxies"),
    Reader("addresses", "gateway.proxy.edge:address_in", "asking_proxies"),
    Reader("trace context", "gateway.telemetry.trace_context:read", "asking_proxies"),
    Reader("cookies, for the portal's own", "gateway.proxy.request_head:others_of", "asking_proxies"),
    Reader("the seal in Redis", "gateway.stores.redis.seal:Seal.open", "stored"),
    Reader("cached entries in Redis", "gateway.stores.redis.entry_format:unpack", "stored"),
    Reader("messages of the push channel", "gateway.stores.redis.channel:read_message", "stored"),
    Reader("rows of keys in PostgreSQL", "gateway.stores.postgres.lookup:finding_of", "stored"),
    Reader("identity headers to be", "gateway.auth.principal:header_lines", "stored"),
    Reader("a provider's keys (JWKS)", "gateway.auth.sign_in:public_keys", "providers"),
    Reader("a provider's tokens: the head", "gateway.auth.sign_in:Judge.head_of", "providers"),
    Reader("a provider's ID tokens", "gateway.auth.sign_in:Judge.read_id_token", "providers"),
    Reader("a provider's answer to a code", "gateway.control.portal.provider:token_answer", "providers"),
    Reader("addresses in a provider's discovery", "gateway.setting_values:check_provider_url", "providers"),
    Reader("GitHub's public keys", "gateway.control.github_keys:keys_of", "providers"),
    Reader("GitHub's signatures", "gateway.control.github_keys:is_signed", "providers"),
    Reader("GitHub's reports", "gateway.control.secret_scanning:reports_in", "providers"),
    Reader("what is put on record of a report", "gateway.control.secret_scanning:reason_of", "providers"),
    Reader("bodies of the management API", "gateway.control.bodies:parse_body", "management"),
    Reader("queries of the management API", "gateway.control.pages:parse_query", "management"),
    Reader("cursors of listings", "gateway.control.pages:_after", "management"),
    Reader("cursors of usage", "gateway.control.usage:_place", "management"),
    Reader("moments", "gateway.control.moments:parse", "management"),
    Reader("imports: JSON lines", "gateway.control.import_rows:_of_json", "management"),
    Reader("imports: CSV", "gateway.control.import_rows:_of_csv", "management"),
    Reader("Idempotency-Key", "gateway.control.idempotency:Once.of", "management"),
    Reader("the form of an entitlement", "gateway.control.portal.administration.users:wanted", "management"),
    Reader("the cookie of a sign-in", "gateway.control.portal.attempt:Attempt.of_cookie", "management"),
    Reader("the page to go on to", "gateway.control.portal.attempt:onward", "management"),
    Reader("the configuration: YAML", "gateway.configuration.document:read", "configurations"),
    Reader("the configuration: settings", "gateway.configuration:parse", "configurations"),
    Reader("the greeting of a process that gives its place", "gateway.running.handover:received", "processes"),
    Reader("lines between workers and supervisor", "gateway.workers.channel:read", "processes"),
)
# Modules that read, too, but what this deployment has written itself, or what another reader has read before.
OWN: Final = {
    "gateway.cli.bulk": "answers of the own API, and a person's own file",
    "gateway.cli.difference.rules": "two configurations that are good",
    "gateway.cli.doors": "what its own user types",
    "gateway.cli.examination.network": "a configuration that is good",
    "gateway.cli.status": "the metrics of an own node",
    "gateway.consistency.confirmation": "subjects, which are written by triggers",
    "gateway.control.cache": "digests that a body's model has taken",
    "gateway.control.fetching": "JSON, and nothing about it: the readers above are given it",
    "gateway.control.imports": "digests that a row's model has taken",
    "gateway.control.issuance": "digests that a body's model has taken",
    "gateway.control.portal.activity": "events as the API writes them",
    "gateway.control.portal.administration.record": "events as the API writes them",
    "gateway.control.portal.usage_view": "usage as the API writes it",
    "gateway.embedded.keeper": "lines of its own keeper process",
    "gateway.proxy.explanation": "its own requests, by the readers above",
    "gateway.proxy.names": "hosts of a configuration that is good",
    "gateway.setting_rules": "a configuration: called by its reader",
    "gateway.stores.postgres.audit": "columns of type jsonb, written by itself",
    "gateway.stores.postgres.idempotency": "a hash of its own",
    "gateway.stores.postgres.plans": "columns of type jsonb, checked by the schema",
    "gateway.stores.postgres.portal_sessions": "columns of type jsonb, written by itself",
    "gateway.stores.postgres.revisions": "columns of type jsonb, written by nodes",
    "gateway.stores.postgres.users": "columns of type jsonb, checked by the schema",
    "gateway.stores.redis.connection": "the operator's URL",
    "gateway.stores.redis.entries": "calls a reader above",
    "gateway.telemetry.merged": "the metrics of its own workers",
    "gateway.workers.node": "calls a reader above",
    "gateway.workers.process": "calls a reader above",
}
# What reads for us is fuzzed by its makers: hiredis and asyncpg (the stores' protocols), OpenSSL, aiohttp (HTTP of the
# management API and the portal, forms, cookies, the client to the provider), PyYAML, pydantic.
