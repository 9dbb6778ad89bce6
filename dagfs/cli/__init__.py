"""The command line: parse, call, print. Each command imports its rooms when it runs: `dagfs --help` is quick."""
