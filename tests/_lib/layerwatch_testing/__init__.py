"""What several test suites share: real models on disk, their examination, and builders of values."""
