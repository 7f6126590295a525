"""Predicted accuracy of subnets: encoding, kinds of predictors, their fit and files."""
