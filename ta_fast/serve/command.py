"""``ta-fast serve``: from a configuration to a running service."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from ta_fast.commands import open_attention
from ta_fast.config import Config
from ta_fast.engine import Engine
from ta_fast.errors import InvalidConfig
from ta_fast.gateway import Gateway
from ta_fast.serve.keys import Keys, read_keys
from ta_fast.serve.server import serve
from ta_fast.serve.service import Service, Settings
from ta_fast.serve.trace import otlp_spans
from ta_fast.sessions import MemoryStore, RedisStore


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says beside the configuration.

    Attributes:
        host, port: Where to listen.
        keys: The file of keys; None for no keys, on this machine's own addresses only.
        sessions: URL of a Redis; "" for this process's memory.
        otel: Send OpenTelemetry spans.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: Path | None = None
    sessions: str = ""
    otel: bool = False


def run(config: Config, options: Options) -> None:
    """Serve until a signal.

    Raises:
        InvalidConfig: no keys on an address that others can reach; and as of ``read_keys``.
        BackendUnavailable: a package that is asked for is absent.
    """
    if options.keys is None and not _own(options.host):
        raise InvalidConfig(
            f"host {options.host!r} can be reached by others; expected --keys FILE, or 127.0.0.1"
        )
    service = Service(
        read_keys(options.keys) if options.keys else Keys(None),
        Settings(top_k=config.top_k, threshold=config.threshold),
        otlp_spans() if options.otel else None,
    )
    serve(lambda: open_gateway(config, options.sessions), service, options.host, options.port)


def open_gateway(config: Config, sessions: str = "") -> Gateway:
    """The configured catalog behind an engine of one device."""
    attention = open_attention(config)
    store = RedisStore(sessions) if sessions else MemoryStore()
    return Gateway({"": attention}, Engine(), [attention.encoder], store)


def _own(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
