"""The hot operations behind one seam: the same functions, with several implementations."""

from shacira_nerfstudio.backends.base import Backend as Backend
from shacira_nerfstudio.backends.selection import available_backends as available_backends
from shacira_nerfstudio.backends.selection import get_backend as get_backend
from shacira_nerfstudio.backends.sparse_rows import IDENTITY as IDENTITY
from shacira_nerfstudio.backends.sparse_rows import AdamState as AdamState
from shacira_nerfstudio.backends.sparse_rows import SparseRowGradient as SparseRowGradient
from shacira_nerfstudio.backends.sparse_rows import TableQuantizer as TableQuantizer
from shacira_nerfstudio.backends.types import FieldArrays as FieldArrays
from shacira_nerfstudio.backends.types import MarchSettings as MarchSettings
from shacira_nerfstudio.backends.types import NetworkWeights as NetworkWeights
from shacira_nerfstudio.backends.types import Rendering as Rendering
from shacira_nerfstudio.backends.types import Samples as Samples
from shacira_nerfstudio.backends.types import VisibleSamples as VisibleSamples
