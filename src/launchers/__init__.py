"""What starts the processes of a run, where it is not Lightning, torchrun or SLURM."""
