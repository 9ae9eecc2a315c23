"""The one adapter layer: ΔW = B · R(θ) · A on a frozen linear W, from one trained parameter up."""
