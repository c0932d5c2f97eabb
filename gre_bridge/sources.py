"""Where settings come from: the environment, a dotenv file, files of single secrets. What they mean is `settings`' business."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"postgres(?:ql)?://(?:[^@/?#]*@)?[^@/?#]*(?:/[^@/?#]*)?(?:\?[^#]*)?")


def db_url_problem(url: str) -> str | None:
    """What is wrong with the address of a database, without a word of it; None when it can be read in one way only."""
    if not url.startswith(("postgresql://", "postgres://")):
        return "must be an address that starts with postgresql://"
    if re.search(r"%(?![0-9A-Fa-f]{2})", url) or not _ADDRESS.fullmatch(url):
        return "the password holds characters that must be percent-encoded: @ is %40, : %3A, / %2F, # %23, ? %3F, % %25"
    return None
