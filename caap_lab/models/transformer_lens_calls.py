"""TransformerLens's names that the models and caches here do not have, with what does the same job."""

from typing import Any

_WEIGHTS = "the weights have timm's names, see model.vit.state_dict()"
_STACK = "cl.residual_stack(model, images) has the parts of the residual stream, by='head' those of heads"
_LOGITS = "cl.logit_attribution(model, images, target) has what each part, head, token or neuron adds to the score"
_NO_TEXT = "images are not text: model.preprocess(image) makes the input tensor, and cl.tokens chooses tokens"
_COMPUTED = "not needed: a hook point such as hook_result is computed while something reads or edits it"

_MODEL = {
    "cfg": "sizes are in model.spec: n_layers, n_heads, d_model, d_head, d_mlp, n_tokens, grid",
    **dict.fromkeys(("W_E", "W_pos", "W_U", "b_U", "W_Q", "W_K", "W_V", "W_O", "W_in", "W_out", "W_gate"), _WEIGHTS),
    **dict.fromkeys(("b_Q", "b_K", "b_V", "b_O", "b_in", "b_out", "QK", "OV"), _WEIGHTS),
    **dict.fromkeys(("tokenizer", "to_tokens", "to_string", "to_str_tokens", "to_single_token", "generate"), _NO_TEXT),
    **dict.fromkeys(
        ("set_use_attn_result", "set_use_split_qkv_input", "set_use_attn_in", "set_use_hook_mlp_in"), _COMPUTED
    ),
    "tokens_to_residual_directions": _LOGITS,
    "accumulated_bias": _STACK,
}
_CACHE = {
    **dict.fromkeys(
        ("decompose_resid", "get_full_resid_decomposition", "stack_head_results", "compute_head_results"), _STACK
    ),
    **dict.fromkeys(("logit_attrs", "apply_ln_to_stack", "stack_neuron_results", "get_neuron_results"), _LOGITS),
    "accumulated_resid": "torch.stack([cache['resid_post', layer] for layer in range(cache.n_layers)])",
    "logit_lens": "cl.logit_lens(model, images, target) has the scores of every token after every block",
    "stack_activation": "torch.stack([cache[name, layer] for layer in range(cache.n_layers)])",
    "remove_batch_dim": "model.run_with_cache(image, remove_batch_dim=True)",
    "to": "model.run_with_cache(images, device='cpu') stores activations there",
}


def no_attribute(of: Any, name: str, error: AttributeError | None = None) -> AttributeError:
    """The error for a missing attribute of a hooked ViT or a cache, with what to use if TransformerLens has it.

    Args:
        of: The model or the cache.
        name: The attribute.
        error: The error that there would be otherwise; it is returned if TransformerLens has no such name either.
    """
    known = _CACHE if isinstance(of, dict) else _MODEL
    plain = f"{type(of).__name__!r} object has no attribute {name!r}"
    if name not in known:
        return error or AttributeError(plain, name=name, obj=of)
    return AttributeError(f"{plain}. In caap_lab: {known[name]}.", name=name, obj=of)
