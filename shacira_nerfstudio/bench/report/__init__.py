"""What one reads of measured results: tables, plots, pages."""
