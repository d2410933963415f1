"""From a command line to a run: compose a config, open a Run, call the workflow that the config names."""
