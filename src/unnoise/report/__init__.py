"""What is made to be looked at: sheets, figures, the report page."""
