from .attention_view import attention as attention
from .benchmark_view import benchmark as benchmark
from .explore_view import explore as explore
from .layer_sweep_view import layer_sweep as layer_sweep
from .trace_view import trace as trace
