"""Finds the files of `sql/`: inside the wheel, or beside the package in a checkout."""

from __future__ import annotations

from pathlib import Path


def sql_file(name: str) -> Path:
    """Return the path of a file or folder of `sql/`."""
    package = Path(__file__).resolve().parent.parent
    folder = package / "_sql"
    return (folder if folder.is_dir() else package.parent / "sql") / name
