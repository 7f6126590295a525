"""A trained torch model of the user's own as a search space: analysis, proof, lowering, weights."""
