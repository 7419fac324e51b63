"""What can go wrong with an exchange, sorted by whose fault it is. Each error knows its reply (docs/errors.md)."""

from gateway.errors import Fault, GatewayError

# The client's


class BadRequest(GatewayError):
    """The bytes are not a request that every strict reader would read in the same way."""

    code = "bad_request"
    status = 400
    fault = Fault.CLIENT
    public = "The request is malformed."


class HeadersTooLarge(BadRequest):
    """The head, or the number of its lines, is over the limit."""

    code = "headers_too_large"
    status = 431
    public = "The request's header section is too large."


class UriTooLong(BadRequest):
    """The request line is over the limit."""

    code = "uri_too_long"
    status = 414
    public = "The request target is too long."


class MethodRefused(BadRequest):
    """CONNECT and TRACE have no meaning behind a gateway."""

    code = "method_not_allowed"
    status = 405
    public = "This method is not allowed here."


class ExpectationFailed(BadRequest):
    """An expectation other than 100-continue (RFC 9110 10.1.1)."""

    code = "expectation_failed"
    status = 417
    public = "This expectation cannot be met."


class NotFound(GatewayError):
    """No route has this path and host."""

    code = "not_found"
    status = 404
    fault = Fault.CLIENT
    public = "There is nothing here."


class WrongMethod(GatewayError):
    """The route exists, for other methods."""

    code = "method_not_allowed"
    status = 405
    fault = Fault.CLIENT
    public = "This method is not allowed here."


class OriginNotAllowed(GatewayError):
    """A page of an origin that the route does not list."""

    code = "origin_not_allowed"
    status = 403
    fault = Fault.CLIENT
    public = "Pages of this origin may not use this route."


class AddressRefused(GatewayError):
    """The client's address is none of those from where the route may be used."""

    code = "address_not_allowed"
    status = 403
    fault = Fault.CLIENT
    public = "This route may not be used from your address."


class PayloadTooLarge(GatewayError):
    """The body is over the route's limit."""

    code = "payload_too_large"
    status = 413
    fault = Fault.CLIENT
    public = "The request's body is too large."


class RateLimited(GatewayError):
    """A limit of requests that time gives back. `lines` are the header lines that tell of all that hold."""

    code = "rate_limited"
    status = 429
    fault = Fault.CLIENT
    public = "Too many requests. Try again after Retry-After."
    lines = b""


class QuotaExhausted(RateLimited):
    """A day's or a month's requests are used up."""

    code = "quota_exhausted"
    public = "The requests of this day or month are used up."


class RequestTimeout(GatewayError):
    """The client stopped sending in the middle of a request."""

    code = "request_timeout"
    status = 408
    fault = Fault.CLIENT
    public = "The request did not arrive in time."


# The upstream's


class UpstreamError(GatewayError):
    """The upstream refused the connection, broke it, or answered nonsense."""

    code = "upstream_error"
    status = 502
    fault = Fault.UPSTREAM
    public = "The service behind the gateway failed to answer."


class UpstreamHungUp(UpstreamError):
    """A connection ended before a single byte of the reply had come."""


class UpstreamUnreachable(UpstreamError):
    """No connection to the upstream could be made."""


class UpstreamUnavailable(UpstreamError):
    """Every target of the upstream is out: unhealthy, or ejected."""

    code = "upstream_unavailable"
    status = 503
    public = "The service behind the gateway is not available right now. Try again shortly."
    retry_after_seconds = 2


class UpstreamBusy(UpstreamUnavailable):
    """As many requests are under way as the upstream is to have at once."""

    retry_after_seconds = 1


class UpstreamTimeout(GatewayError):
    """The upstream did not begin to answer in time."""

    code = "upstream_timeout"
    status = 504
    fault = Fault.UPSTREAM
    public = "The service behind the gateway took too long to answer."
