"""Tables for display: HTML, and data frames with readable HTML."""
