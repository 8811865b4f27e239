from .attention_view import attention as attention
from .benchmark_view import benchmark as benchmark
from .explore_view import explore as explore
from .layer_sweep_view import layer_sweep as layer_sweep
from .patch_view import patch as patch
from .trace_view import trace as trace
from .uploads import uploaded_photo as uploaded_photo
