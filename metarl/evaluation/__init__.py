"""Evaluations, their statistics and tables, and videos."""
