"""A finished checkpoint in another form. An exporter is a function that writes one format; `export` names it."""

from depthprune.exporting.base import Exported, export, exporter, registry

__all__ = ["Exported", "export", "exporter", "registry"]
