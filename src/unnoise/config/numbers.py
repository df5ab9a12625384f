"""Numbers in a config."""

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
Number = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
