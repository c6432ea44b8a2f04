"""The Hydra launcher for `-m`, and `resume=SWEEP_FOLDER`. Imports no torch.

Hydra calls `launcher`, which composes the jobs; `job_scheduler` runs them on GPUs and cores, `state` stores and writes
their states, `display` shows them. `recorded` completes an existing sweep from its recorded jobs, and `resume` matches
jobs with existing runs. `tuning` checks hyperparameter searches.
"""
