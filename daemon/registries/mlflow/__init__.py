"""An MLflow server."""
