"""Data sets as LightningDataModules, held in memory and cut into batches that any run can draw again."""
