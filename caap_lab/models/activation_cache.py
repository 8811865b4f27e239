"""The result of `run_with_cache`: activations by full hook name or TransformerLens's short names."""

from typing import Any

from torch import Tensor

from caap_lab.models.activation_summary import Kept, html_summary, memory, text_summary
from caap_lab.models.stored_names import find_stored, is_stored
from caap_lab.models.transformer_lens_calls import no_attribute


class ActivationCache(dict[str, Tensor]):
    """Activations of one run, by hook name; in Jupyter a table with one line for each kind.

    ```python
    logits, cache = model.run_with_cache(x)
    cache["pattern", 3]  # [image, head, query, key] of layer 3
    cache["resid_pre", -1]  # of the last layer
    cache["logits"]
    ```

    Iterating gives full names, "blocks.3.attn.hook_pattern" and so on. Short names are TransformerLens's, and those of
    `model.record`: ("q", 0), ("normalized", 3, "ln1"), "embed".
    """

    def __init__(self, model_name: str, n_layers: int) -> None:
        """An empty cache; hooks fill it.

        Args:
            model_name: Name of the model that runs.
            n_layers: Its number of blocks; negative layers count from the last one.
        """
        super().__init__()
        self.model_name = model_name
        self.n_layers = n_layers

    def __missing__(self, key: Any) -> Tensor:
        """The activation that a short name refers to.

        Raises:
            InputError: there is no such activation, or the name matches several.
        """
        return self[find_stored(self.keys(), key, self.n_layers, "this cache")]

    def __contains__(self, key: Any) -> bool:
        """True if there is an activation of this full or short name."""
        return super().__contains__(key) or is_stored(self.keys(), key, self.n_layers)

    def get(self, key: Any, default: Any = None) -> Any:
        """An activation, or the default if it is not there."""
        return self[key] if key in self else default  # noqa: SIM401  # dict.get does not know short names

    def __getattr__(self, name: str) -> Any:
        """Called for missing attributes only.

        Raises:
            AttributeError: always; for a method of TransformerLens's cache, with what to use instead.
        """
        raise no_attribute(self, name)

    @property
    def nbytes(self) -> int:
        """Bytes of all activations."""
        return sum(tensor.nbytes for tensor in self.values())

    def _title(self) -> str:
        where = sorted({f"{str(tensor.dtype).removeprefix('torch.')} on {tensor.device}" for tensor in self.values()})
        size = ", ".join([f"{len(self)} activations", memory(self.nbytes), *where])
        return f"ActivationCache of {self.model_name}: {size}"

    def _kept(self) -> list[Kept]:
        return [Kept(hook, tuple(tensor.shape), tensor.nbytes) for hook, tensor in self.items()]

    def __repr__(self) -> str:
        """One line for each kind of activation."""
        return text_summary(self._title(), self._kept())

    def _repr_html_(self) -> str:
        return html_summary(self._title(), self._kept())
