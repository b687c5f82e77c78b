"""The gate: the daemon's engine without its store, for a command line and for CI."""
