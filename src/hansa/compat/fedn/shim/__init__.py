"""The folder that is on the path of a package's own commands, and of nothing else."""
