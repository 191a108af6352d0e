"""Longreach."""
