"""The Hydra launcher for `-m`: job queue, resume, display."""
