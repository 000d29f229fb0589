"""Write a finished checkpoint in another format. An exporter is a function that writes one format."""

from depthprune.exporting.base import Exported, export, exporter, registry

__all__ = ["Exported", "export", "exporter", "registry"]
