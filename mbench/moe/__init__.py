"""The only part that touches a model: find its MoE layers, profile them, mask them."""
