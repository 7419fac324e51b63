"""The SQL of listings of keys, by pages that cost the same however deep they are."""

from gateway.stores.postgres.connection import Connection
from gateway.stores.postgres.keys import KeyRow, key_of


def page_query(
    *, tenant_id: str | None, user_id: str | None, status: str | None, after: str, limit: int
) -> tuple[str, list[str | int]]:
    """The statement of a page and its arguments.

    Only the filters that are there stand in it: one that may or may not apply (`$2 IS NULL OR ...`) has no index in a
    plan for any arguments. And a tenant's keys are asked for as a range of the index on tenant and id, in its order:
    by `tenant_id = ...`, such a plan may go through everybody's keys by age, and a small tenant pays for a large one.
    """
    arguments: list[str | int] = [after, limit]
    clauses, order = ["id > $1"], "id"
    if user_id is not None:
        arguments.append(user_id)
        clauses.append("user_id = $3")
        if tenant_id is not None:
            arguments.append(tenant_id)
            clauses.append("tenant_id = $4")
    elif tenant_id is not None:
        arguments.append(tenant_id)
        clauses, order = ["(tenant_id, id) > ($3, $1) AND tenant_id <= $3"], "tenant_id, id"
    if status is not None:
        clauses.append(_STATUSES[status])
    statement = (
        "SELECT *, coalesce(expires_at <= now(), false) AS is_expired FROM api_keys"  # noqa: S608  # our own clauses
        f" WHERE {' AND '.join(clauses)} ORDER BY {order} LIMIT $2"
    )
    return statement, arguments


_STATUSES = {
    "active": "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())",
    "expired": "revoked_at IS NULL AND expires_at <= now()",
    "revoked": "revoked_at IS NOT NULL",
}


async def page(
    connection: Connection,
    *,
    tenant_id: str | None,
    user_id: str | None,
    status: str | None,
    after: str,
    limit: int,
) -> list[KeyRow]:
    """Up to `limit` keys with an id above `after`, by id (which is by age); each filter that is not None must fit.

    A page far behind costs what the first one does: it begins where the last one ended, in the index.
    """
    statement, arguments = page_query(tenant_id=tenant_id, user_id=user_id, status=status, after=after, limit=limit)
    return [key_of(row) for row in await connection.fetch(statement, *arguments)]
