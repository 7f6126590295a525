"""Networks: spaces of choices, lowering to placed ops, and folds over them: counts and ONNX."""
