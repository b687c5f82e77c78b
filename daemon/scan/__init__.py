"""Scanning: weights are opened and measured in a child process only, so a hostile file can kill a scan but never
the daemon."""
