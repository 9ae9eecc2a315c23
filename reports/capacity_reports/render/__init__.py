"""Reports as text: HTML, Markdown, PDF."""
