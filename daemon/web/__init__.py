"""The HTTP port: metrics, health, API, hooks."""
