"""Alerts: life cycle, outbox, delivery to receivers."""
