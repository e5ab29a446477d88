"""The HTTP service: translators between ASGI and the gateway, without decisions of their own."""

from ta_fast.serve.app import App
from ta_fast.serve.keys import ANYONE, Key, Keys, read_keys
from ta_fast.serve.server import serve
from ta_fast.serve.service import Service, Settings

__all__ = ["ANYONE", "App", "Key", "Keys", "Service", "Settings", "read_keys", "serve"]
