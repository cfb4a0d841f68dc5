"""A second tree of modules over the very weights of a model.

Guaranteed: no tensor is copied, and what one tree keeps beside its weights (layers added, attention switched, state of
a forward pass) the other does not see. Not guaranteed: anything if weights are changed in place.
"""

from __future__ import annotations

import copy
from typing import Any


def sharing_weights(model: Any) -> Any:
    """A copy of the modules of a torch model with the tensors of it."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, tensors)
