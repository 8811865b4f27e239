"""timm's Vision Transformers with TransformerLens hook points: model, tokens, loading, preprocessing."""
