"""The plugin of Hydra that hands the jobs of a study to a launcher."""
