"""What people see of a report, and of a running daemon, in a terminal."""
