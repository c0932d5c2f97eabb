"""The typed dictionaries of `gre_bridge.db.answers` are the shapes that the API documents."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from gre_bridge.api.schemas import responses
from gre_bridge.db import answers


@pytest.mark.parametrize(
    ("shape", "model"),
    [
        (answers.Message, responses.Message),
        (answers.Session, responses.Session),
        (answers.QueuedSession, responses.Waiting),
    ],
)
def test_a_shape_has_the_keys_of_its_model(shape: type, model: type[BaseModel]) -> None:
    documented = {field.alias or name for name, field in model.model_fields.items()}
    assert set(shape.__annotations__) | set(getattr(shape, "__required_keys__", ())) == documented
