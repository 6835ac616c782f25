"""Statistics, tables and figures from result files alone; never loads torch."""
