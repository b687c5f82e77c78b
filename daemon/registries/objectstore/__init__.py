"""Buckets of object stores."""
