"""Hashes by which files, models, images and methods are known: equal in every process, kept in files for years.

A hash that some file holds must never change for the same content.
"""
