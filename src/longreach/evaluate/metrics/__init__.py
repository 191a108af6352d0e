"""Metrics: plain functions from results and references to numbers."""
