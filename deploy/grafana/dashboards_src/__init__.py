"""Dashboards as code: one module per dashboard, `parts` holds what they share."""
