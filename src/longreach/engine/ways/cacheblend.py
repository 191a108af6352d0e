"""`cacheblend`: passages read apart, and what deviates most computed again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from longreach.engine.ways import ways
from longreach.engine.ways.repaired import Repaired


@ways.register("cacheblend")
@dataclass(frozen=True)
class Blended(Repaired):
    """All tokens are computed through the first layer and ever fewer through the next ones, until `share` of them go
    through all others: those whose keys and values deviate most from the stored ones (`longreach.kv.reuse.cacheblend`,
    Yao et al. 2024, arXiv 2405.16444).

    The pass takes the model's own forward also where there is a quick form, and who is left behind in a layer is
    computed to the end of that layer. A token that gets no further than the first layer stays as it is stored. With an
    adapter, entries deviate by what it changed as well.
    """

    method: ClassVar[str] = "cacheblend"
    tried: ClassVar[tuple[str, ...]] = ("cacheblend(share=0.15)",)
    unasked: ClassVar[bool] = False
