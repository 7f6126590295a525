"""Settings: hwnas.yaml, its fields and schema, amounts, targets by name."""
