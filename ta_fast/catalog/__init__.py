"""Where tools come from and are kept."""

from ta_fast.catalog.index import ToolIndex
from ta_fast.catalog.store import Catalog

__all__ = ["Catalog", "ToolIndex"]
