"""The command line: parse, call, print. Each command imports its rooms when it runs, so that `dagfs --help` is quick."""
