"""The daemon: registries, scanning, storage, HTTP, command line."""
