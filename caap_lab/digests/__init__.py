"""Hashes that identify files, models, images and methods, equal in every process and kept in files for years.

A hash that is stored in a file must never change for the same content.
"""
