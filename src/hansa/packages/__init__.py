"""Code on its way to a site: archives that are made in one way and read without any trust."""

from hansa.packages.archive import build_archive, extract, read_archive

__all__ = ["build_archive", "extract", "read_archive"]
