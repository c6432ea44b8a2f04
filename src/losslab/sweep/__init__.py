"""The Hydra launcher for `-m`, and `resume=SWEEP_FOLDER`. Imports no torch.

`launcher` is what Hydra calls, `job` composes its jobs, `scheduler` runs them on GPUs and cores, `state` keeps and
writes what becomes of them, `display` shows it. `recorded` reads the jobs of an existing sweep, and `resume` matches
jobs with the runs that exist.
"""
