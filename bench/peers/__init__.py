"""The proxies under test. Each says whether it is installed, and starts itself in front of an upstream.

peer             what a peer is, and the shapes it is asked to take: one route or many, plain or TLS
plain            no proxy at all, the bare tunnel, and a proxy of aiohttp
servers          nginx, HAProxy, Envoy
express_gateway  Express Gateway on Node

The gateway itself is `bench.gateway_peer`.
"""

from bench.peers.express_gateway import ExpressGateway
from bench.peers.peer import CONFIGURATIONS, PLAIN, Peer, Running, Shape, chosen, configuration
from bench.peers.plain import AiohttpProxy, Direct, Tunnel
from bench.peers.servers import Envoy, HAProxy, Nginx

__all__ = [
    "CONFIGURATIONS",
    "PLAIN",
    "AiohttpProxy",
    "Direct",
    "Envoy",
    "ExpressGateway",
    "HAProxy",
    "Nginx",
    "Peer",
    "Running",
    "Shape",
    "Tunnel",
    "chosen",
    "configuration",
]
