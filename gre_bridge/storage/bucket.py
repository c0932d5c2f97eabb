"""The bucket of the chat's files. The migrations make it (`gre_storage_adopt`); `doctor` compares."""

from __future__ import annotations

BUCKET = "gre-chat"
MAX_FILE_BYTES = 25 * 1024 * 1024
"""The bucket's limit for an object."""
UNSAFE = ("html", "xml", "xsl", "*")
"""Subtypes that the bucket must not take, nor any that ends with +xml: Storage serves an object on the project's origin as what
its uploader claims it to be."""
VIEW_TYPES = ("image/jpeg", "image/webp")
"""What workers store as views and thumbs."""
