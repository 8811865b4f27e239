"""Models from folders with a config.json, as timm, transformers and PEFT save them, on this machine or on the hub."""
