"""Rows: read from files and data sets, tokenised, kept; and texts to calibrate on. No torch until they are used."""
