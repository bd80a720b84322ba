"""Rows on their way to a trainer: reading any form, curating, mixing, exporting."""
