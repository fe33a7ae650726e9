"""Modules that the examples share. Python finds them in the folder of the script it runs."""
