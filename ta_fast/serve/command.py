"""``ta-fast serve``: from a configuration to a running service."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote

from ta_fast.commands import open_attention
from ta_fast.config import Config
from ta_fast.encoder import Encoder, make_encoder
from ta_fast.engine import Engine, RememberingEncoder
from ta_fast.errors import InvalidConfig
from ta_fast.gateway import Gateway
from ta_fast.serve.bodies import MAX_NAME
from ta_fast.serve.keys import Keys, read_keys
from ta_fast.serve.server import serve
from ta_fast.serve.service import Service, Settings
from ta_fast.serve.trace import otlp_spans
from ta_fast.sessions import MemoryStore, RedisStore, SessionStore

DEVICE = re.compile(r"cpu|cuda(:\d+)?")
TOKENISERS = 4
"""Processes that read texts for a GPU, where nothing is said."""
SWITCH = 0.0005
"""Seconds after which a thread must let others run Python, with a GPU; 0.005 is the usual. A
large batch's threads ask for their turn some twenty times, each time beside a busy event loop;
small ones, as a CPU has, only lose by it."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says beside the configuration.

    Attributes:
        host, port: Where to listen.
        keys: The file of keys; None for no keys, on this machine's own addresses only.
        sessions: URL of a Redis; "" for this process's memory.
        otel: Send OpenTelemetry spans.
        catalogs: SQLite files by the name that requests say, beside the configured catalog.
        devices: Where encoders and scorers are, one of each for every device; none for one,
            where the encoder's name says.
        remember: Embeddings of intents that each device keeps; 0 for none.
        tokenisers: Processes that read texts for each device; 0 for none; None for what fits
            the encoder and the cores.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: Path | None = None
    sessions: str = ""
    otel: bool = False
    catalogs: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    remember: int = 0
    tokenisers: int | None = None


def read_catalogs(given: Sequence[str]) -> dict[str, str]:
    """Files by name, from ``NAME=FILE``.

    Raises:
        InvalidConfig: another form, a name that is too long or not printable, or one twice.
    """
    catalogs: dict[str, str] = {}
    for each in given:
        name, _, file = each.partition("=")
        if not (name and file and name.isprintable() and len(name) <= MAX_NAME):
            raise InvalidConfig(f"--catalog-file {each!r}; expected NAME=FILE, a printable name")
        if name in catalogs:
            raise InvalidConfig(f"--catalog-file names {name!r} twice")
        catalogs[name] = file
    return catalogs


def read_devices(given: str) -> tuple[str, ...]:
    """Devices, from their names with commas between.

    Raises:
        InvalidConfig: a name that is none.
    """
    devices = tuple(name.strip() for name in given.split(",")) if given else ()
    for device in devices:
        if not DEVICE.fullmatch(device):
            raise InvalidConfig(f"--devices: {device!r}; expected cpu, cuda or cuda:NUMBER")
    return devices


def run(config: Config, options: Options) -> None:
    """Serve until a signal.

    Raises:
        InvalidConfig: no keys on an address that others can reach; and as of ``read_keys`` and
            ``open_gateway``.
        BackendUnavailable: a package or device that is asked for is absent.
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
    serve(lambda: open_gateway(config, options), service, options.host, options.port)


def open_gateway(config: Config, options: Options) -> Gateway:
    """The configured catalog and those beside it, behind one engine of all devices.

    Pinned tools are those of the configured catalog; all else that is configured holds for all.

    Raises:
        InvalidConfig: there is no such catalog, an encoder does not compute on such a device,
            embeddings are to be remembered that stay on a GPU, or texts to be read by processes
            for an encoder that does not let them.
        BackendUnavailable: such a process did not start.
    """
    devices = options.devices or ("",)
    encoders = [make_encoder(config.encoder, device) for device in devices]
    if hasattr(encoders[0], "on_device"):
        sys.setswitchinterval(SWITCH)
    attentions = {"": open_attention(config, encoders[0])}
    for name, file in options.catalogs.items():
        beside = replace(config, catalog=file, always_include=())
        attentions[name] = open_attention(beside, encoders[0])
    return Gateway(
        attentions,
        Engine(len(devices)),
        [_for_turns(encoder, options) for encoder in encoders],
        partial(_sessions, options.sessions),
        devices=devices,
    )


def _for_turns(encoder: Encoder, options: Options) -> Encoder:
    """What turns alone need: a catalog's tools are embedded once, and would push intents out."""
    if options.remember and hasattr(encoder, "on_device"):
        raise InvalidConfig(
            f"--remember {options.remember} with encoder {encoder.name}, whose vectors stay on a "
            "GPU; expected one of the CPU"
        )
    processes = options.tokenisers
    if processes is None:
        processes = _tokenisers(encoder, max(1, len(options.devices)))
    if processes < 0:
        raise InvalidConfig(f"--tokenisers {processes}; expected 0 or more")
    if processes:
        # Its modules need what only encoders of a folder have.
        from ta_fast.encoder.processes import ProcessReadEncoder

        encoder = ProcessReadEncoder(encoder, processes)
    return RememberingEncoder(encoder, options.remember) if options.remember else encoder


def _tokenisers(encoder: Encoder, devices: int) -> int:
    """As many as keep a GPU busy, if the cores reach; a CPU that embeds has no core to spare."""
    if not hasattr(encoder, "on_device"):
        return 0
    return max(0, min(TOKENISERS, len(os.sched_getaffinity(0)) // devices - 2))


def _sessions(url: str, catalog: str) -> SessionStore:
    """Where a catalog's sessions are kept."""
    if not url:
        return MemoryStore()
    # Quoted, the name holds no colon: no key of one catalog is one of another.
    return RedisStore(
        url, prefix=f"ta_fast:catalog:{quote(catalog, safe='')}" if catalog else "ta_fast"
    )


def _own(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
