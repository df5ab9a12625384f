"""Sweeps: unnoise-train -m."""
