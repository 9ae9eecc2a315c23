"""Points tables: read, chosen from, compared with published figures."""
