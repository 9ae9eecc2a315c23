"""What people read: tables, pages and figures, all built on the same results."""
