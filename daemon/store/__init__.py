"""What the daemon remembers: versions, measurements, baselines, alerts, and the outbox of events to deliver."""
