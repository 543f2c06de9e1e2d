"""The hot operations behind one seam: the same functions, with several implementations."""

from shacira_nerfstudio.backends.base import (
    Backend as Backend,
)
from shacira_nerfstudio.backends.base import (
    MarchSettings as MarchSettings,
)
from shacira_nerfstudio.backends.base import (
    Rendering as Rendering,
)
from shacira_nerfstudio.backends.base import (
    Samples as Samples,
)
from shacira_nerfstudio.backends.base import (
    VisibleSamples as VisibleSamples,
)
from shacira_nerfstudio.backends.sparse_rows import (
    AdamState as AdamState,
)
from shacira_nerfstudio.backends.sparse_rows import (
    Quantizer as Quantizer,
)
from shacira_nerfstudio.backends.sparse_rows import (
    RowGradient as RowGradient,
)
from shacira_nerfstudio.backends.selection import (
    available_backends as available_backends,
)
from shacira_nerfstudio.backends.selection import (
    get_backend as get_backend,
)
