"""Networks whose stages compute in different precisions."""
