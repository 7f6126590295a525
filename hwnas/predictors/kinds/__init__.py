"""Kinds of accuracy predictors beside the ridge, one file each: `fit(data) -> Body`."""
