"""The client's sources and tests compile, and with them a page that uses supabase-js with the `Database` type.

The page marks its mistakes with `@ts-expect-error`, and a mark without a mistake is an error of the compiler.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.support import npm

SOURCE = Path(__file__).parents[2] / "client"
NODE = (20, 19)
PAGE = SOURCE / "tests" / "database.types.ts"


def test_a_page_with_the_type_of_the_database_compiles_and_its_mistakes_do_not() -> None:
    mistakes = re.findall(r"// @ts-expect-error (.+)", PAGE.read_text())
    assert {"a column that was not selected", "no such column", "no message", "an argument is missing"} <= {
        *mistakes
    }
    npm.node_modules(SOURCE, NODE)
    npm.run(SOURCE, "npm", "run", "check")
