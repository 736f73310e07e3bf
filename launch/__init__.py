"""The command line, and how ranks and jobs are started. Nobody imports it."""
