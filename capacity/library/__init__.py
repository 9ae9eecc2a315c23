"""What each command does, as functions that a notebook calls; `import capacity` has them by their names.

They join what trains with what analyses and shows, so they stand above both. Only the command stands above them. A
function takes values where the command takes text, and prints nothing. It returns a frozen result whose `repr` is a
line, and a notebook shows it as tables. Its `to_json` is what the command prints with --json.
"""
