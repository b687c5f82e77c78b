"""Registries of OCI artifacts."""
