"""Estimators for scikit-learn, which is imported with them only: `attnflow.DiffusionMap`."""
