"""One description of a record, many renderers: text, HTML, matplotlib. No torch, no widgets.

`describe_step` and `describe_steps` turn records into a neutral
`layerlab.show.page.Description`; `layerlab.show.text.text` and `layerlab.show.html.html` draw it, and
`Shown` does both for a notebook. Pictures of a tensor are in `layerlab.show.picture`.
"""

from layerlab.show.describe import describe_step
from layerlab.show.matrix import describe_steps
from layerlab.show.shown import Shown, legend, table
from layerlab.show.words import short

__all__ = ["Shown", "describe_step", "describe_steps", "legend", "short", "table"]
