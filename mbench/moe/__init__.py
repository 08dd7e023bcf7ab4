"""The model: find its MoE layers, load and profile it, apply a mask, remove experts."""
