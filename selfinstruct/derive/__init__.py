"""Recipes that make new rows from rows or from code."""
