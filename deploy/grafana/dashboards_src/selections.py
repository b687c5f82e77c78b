"""What the queries of the fleet overview are narrowed down to by its variables."""

from __future__ import annotations

DAEMON = 'job=~"$job", instance=~"$instance"'
REGISTRY = f'{DAEMON}, registry=~"$registry"'
MODEL = f'{REGISTRY}, model=~"$model"'
