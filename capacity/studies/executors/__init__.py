"""Where the runs of a study are made: worker processes on this machine, or workers on the nodes of a Ray cluster."""
