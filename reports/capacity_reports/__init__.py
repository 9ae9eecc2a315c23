"""What people read: tables and, built on the same results, pages and figures."""
