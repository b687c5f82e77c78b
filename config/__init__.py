"""Configuration: settings, secrets, loading."""
