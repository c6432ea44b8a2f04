"""From a Hydra configuration to a trained run."""
