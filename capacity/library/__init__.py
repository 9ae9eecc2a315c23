"""What each command does, as functions that a notebook calls; `import capacity` has them by their names.

They join what trains with what analyses and shows, so they stand above both: only the command stands above them. A
function takes values where the command takes text, prints nothing, and returns a frozen result whose `repr` is a line,
which a notebook shows as tables, and whose `to_json` is what the command prints with --json.
"""
