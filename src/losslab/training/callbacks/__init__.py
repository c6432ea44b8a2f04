"""What watches a run: guards, checkpoints, histories, figures, dashboards."""
