"""Tables as people see them: HTML, and data frames that show themselves."""
